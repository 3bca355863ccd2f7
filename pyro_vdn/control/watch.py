"""Observing a step and acting after it, in one `with`."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Protocol

import torch.distributed as distributed
from typing_extensions import Self

from pyro_vdn.control.controller import Controller, Seen
from pyro_vdn.control.reach import ReachMessenger, is_reached
from pyro_vdn.poutine import LayerRecord, RecordMessenger, record


class Observer(Protocol):
    """What `watch` needs of a controller, or of whoever stands in for several.

    Example:
        >>> class Steps:
        ...     due, count = False, 0
        ...     def observe(self, seen):
        ...         pass
        ...     def act(self):
        ...         self.count += 1
        >>> steps = Steps()
        >>> with watch(steps):
        ...     pass
        >>> steps.count
        1
    """

    @property
    def due(self) -> bool:
        """Whether the step to come is one to observe."""

    def observe(self, seen: Seen) -> None:
        """Take in what the step did by layer path."""

    def act(self) -> None:
        """Do what is to be done after a step."""


class watch:  # noqa: N801 - reads as what it does
    """Record the step inside, let a controller observe it, and act.

    Recording is skipped for steps that are not due. Where several processes train together, what
    they saw is merged first, so that all of them act alike. After an exception nothing is done.

    The first step that runs the model shows whether the controller's effects are in force: without
    them it would have no say in the loss.

    Args:
        controller: A controller, or several composed; or any other `Observer`.

    Raises:
        InputError: After a step of a model that lacks the controller's effects; it neither
            observes nor acts then.

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

    def __init__(self, controller: Observer) -> None:
        self.controller = controller
        self.seen: RecordMessenger | None = None
        self.reach: ReachMessenger | None = None
        self._effects = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as effects:
            if self.controller.due:
                self.seen = effects.enter_context(record())
            if isinstance(self.controller, Controller) and not is_reached(self.controller):
                self.reach = effects.enter_context(ReachMessenger())
            self._effects = effects.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._effects.__exit__(kind, error, traceback)
        seen, self.seen = self.seen, None
        reach, self.reach = self.reach, None
        if kind is not None:
            return
        if reach is not None and isinstance(self.controller, Controller):
            reach.check(self.controller)
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
