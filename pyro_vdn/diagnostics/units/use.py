"""How much the likelihood depends on each unit: an intervention, not a weight norm."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vdn.diagnostics._checks import check_layers, check_runs
from pyro_vdn.diagnostics._rows import Batches, Rows
from pyro_vdn.diagnostics.units.statistics import Use
from pyro_vdn.infer import log_density
from pyro_vdn.infer.evaluating import evaluating, own_noise
from pyro_vdn.infer.own_store import give_own_store
from pyro_vdn.nn.observed import reads_missing
from pyro_vdn.nn.shapes import check_positive
from pyro_vdn.nn.sites import PRIOR, Message, layer_of
from pyro_vdn.poutine import NeuronMessenger, record
from pyro_vdn.poutine.clamp import hold_units

Program = Callable[..., Any]


def downstream_use(
    model: Program,
    guide: Program,
    batches: Batches,
    *,
    layers: Iterable[str] | None = None,
    num_samples: int = 64,
    max_rows: int = 1024,
    batch_size: int = 256,
    seed: int = 0,
    site: str = "y",
) -> dict[str, Use]:
    r"""Measure how much the log-likelihood falls when a unit is replaced by its prior.

    .. math:: \text{use}_i = \frac1N \sum_n \log p(y_n \mid x_n)
        - \log p(y_n \mid x_n;\ z_i \sim p(z_i))

    with all other units drawn from their posterior. The densities are joint over a row's outputs:
    in closed form where the model offers one, else of a mixture of `num_samples` draws, which is
    biased low by `O(1 / num_samples)` and more so the wider the draws spread. Both densities see
    the same noise, so a unit that nothing reads has a use of exactly zero. A negative use says that
    the unit's prior would do better.

    The standard error is over rows only. It says nothing of the noise of draws, which another
    `seed` shows and more `num_samples` lower.

    One evaluation per unit (and one per layer), each of which grows with units x rows [x draws]: 48
    units on 1,024 rows take seconds on one CPU thread, 1,024 units a minute.

    Args:
        model: A Pyro program with rows at dim -2, called as ``model(x)``.
        guide: Its guide, which takes the posteriors that neurons offer, such as `NeuronGuide`.
        batches: Batches `(x, y)` that can be gone through again, such as a `DataLoader`, or the
            pair of tensors `(x, y)`.
        layers: Paths of the layers to measure; all of them by default.
        num_samples: Draws per row where there is no closed form.
        max_rows: Most rows to measure on, evenly spread over the data.
        batch_size: Rows per evaluation: memory grows with batch_size x units x num_samples.
        seed: Seed of the draws; the caller's random state is untouched.
        site: Name of the outcome's site.

    Returns:
        By layer path, mean fall and standard error per unit, in nats per row.

    Raises:
        InputError: If a layer does not run in the guide, there are no rows, or they are not finite.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3, num_units=4)
        >>> with torch.no_grad():
        ...     _ = model.readout.linear.weight[:, 2].zero_()
        >>> x, y = torch.randn(50, 3), torch.randn(50, 1)
        >>> used = downstream_use(model, NeuronGuide(model), (x, y))["neurons"]
        >>> used.mean.shape, float(used.mean[2])
        ((4,), 0.0)
    """
    check_positive(num_samples=num_samples, max_rows=max_rows, batch_size=batch_size)
    give_own_store(model, guide)
    with own_noise(seed), evaluating(model, guide), torch.no_grad():
        inputs, y = Rows(batches, missing_allowed=reads_missing(model)).spread(max_rows)

        def log_likelihood(effect: _PriorInstead) -> Tensor:  # (rows,)
            torch.manual_seed(seed)
            with effect:
                _, joint = log_density(
                    model,
                    guide,
                    inputs,
                    y,
                    num_samples=num_samples,
                    batch_size=batch_size,
                    site=site,
                )
            return joint.double()

        units = _units(guide, inputs)
        check_runs(units)
        paths = list(units if layers is None else layers)
        check_layers("layers", paths, units)
        return {path: _use(log_likelihood, path, units[path], y.device) for path in paths}


def _use(
    log_likelihood: Callable[[_PriorInstead], Tensor], path: str, units: int, device: torch.device
) -> Use:
    """Intervene on one unit of a layer after the other."""
    nobody = torch.zeros(units, dtype=torch.bool, device=device)
    base = log_likelihood(_PriorInstead(path, nobody))
    mean, error = np.zeros(units), np.full(units, np.nan)
    for unit in range(units):
        held = nobody.clone()
        held[unit] = True
        fall = base - log_likelihood(_PriorInstead(path, held))
        mean[unit] = float(fall.mean())
        if len(fall) > 1:
            error[unit] = float(fall.std()) / len(fall) ** 0.5
    return Use(mean, error, len(base))


class _PriorInstead(NeuronMessenger):
    """Draw chosen units of a layer from their prior, as `clamp` does.

    Unlike `clamp` it draws the prior's noise also where no unit is held, so that all interventions
    on a layer leave the same noise to the layers above it.
    """

    def __init__(self, path: str, held: Tensor) -> None:
        super().__init__()
        self.path = path
        self.held = held

    def on_neuron(self, msg: Message) -> None:
        """Hold the chosen units."""
        if layer_of(msg["name"]) == self.path:
            hold_units(msg, self.held, msg["infer"].get(PRIOR, msg["fn"]))


def _units(guide: Program, inputs: list[Tensor]) -> dict[str, int]:
    """Return the number of units of every layer that runs in the guide."""
    with record() as seen:
        guide(*(value[:1] for value in inputs))
    return {path: len(layer.kl.mean) for path, layer in seen.items()}
