"""Observing a step and acting after it, in one `with`."""

from __future__ import annotations

from types import TracebackType

import torch.distributed as distributed
from typing_extensions import Self

from pyro_vdn.control.controller import Controller, Seen
from pyro_vdn.poutine import LayerRecord, RecordMessenger, record


class watch:  # noqa: N801 - reads as what it does
    """Record the step inside, let a controller observe it, and act.

    Recording is skipped for steps that are not due. Where several processes train together, what
    they saw is merged first, so that all of them act alike. After an exception nothing is done.

    Args:
        controller: A controller, or several composed.

    Example:
        >>> import pyro, torch
        >>> from pyro_vdn.control import Thermostat
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.infer import SVI, LocalELBO
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3)
        >>> thermostat = Thermostat(model)
        >>> model = thermostat.wrap(model)
        >>> svi = SVI(model, NeuronGuide(model), pyro.optim.Adam({"lr": 1e-2}), LocalELBO())
        >>> for _ in range(20):
        ...     with watch(thermostat):
        ...         loss = svi.step(torch.randn(8, 3), torch.randn(8, 1))
        >>> thermostat.step
        20
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.seen: RecordMessenger | None = None

    def __enter__(self) -> Self:
        if self.controller.due:
            self.seen = record()
            self.seen.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        seen, self.seen = self.seen, None
        if seen is not None:
            seen.__exit__(kind, error, traceback)
        if kind is not None:
            return
        if seen is not None:
            self.controller.observe(merged_across_processes(seen))
        self.controller.act()


def merged_across_processes(seen: Seen) -> Seen:
    """Return what all processes saw together, or the record itself where there is but one.

    Args:
        seen: Records by layer path, the same layers in every process.

    Returns:
        Records whose moments cover the rows of all processes, the same in each.

    Example:
        >>> seen = {"neurons": LayerRecord()}
        >>> merged_across_processes(seen) is seen
        True
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return seen
    if distributed.get_world_size() == 1:
        return seen
    everyone: list[dict[str, LayerRecord]] = [{}] * distributed.get_world_size()
    distributed.all_gather_object(everyone, {path: one.to("cpu") for path, one in seen.items()})
    merged = {path: LayerRecord() for path in seen}
    for theirs in everyone:
        for path, one in theirs.items():
            merged[path].merge(one)
    return {path: one.to(seen[path].kl.mean.device) for path, one in merged.items()}
