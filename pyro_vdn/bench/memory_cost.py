"""Benchmark: what memory over two windows adds to a forecaster's training step."""

from __future__ import annotations

from functools import partial
from typing import Any

import pyro.poutine
import torch
from torch import Tensor

from pyro_vdn.bench.timing import Step, median_seconds
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.guides.markov import FilteringPosterior
from pyro_vdn.infer import LocalELBO
from pyro_vdn.models import Forecaster
from pyro_vdn.nn import AutoregressiveNormal, NormalPosterior, StandardNormal
from pyro_vdn.poutine import autoregressive_cost, penalize

#: Rows, input length, horizon, size of the encoding, units: those of the source.
SIZES = (256, 336, 96, 256, 1024)


def bench_memory_cost(
    num_particles: int = 4, *, repeats: int = 30, sizes: tuple[int, ...] = SIZES
) -> dict[str, float]:
    """Time `LocalELBO` steps with one window, and with two of which the last is scored.

    The penalty on locations is the form of the source; then come priors with memory.

    Args:
        num_particles: Number S of draws per step.
        repeats: Rounds of which the median is taken; threads are left to the caller.
        sizes: Rows, input length, horizon, size of the encoding, and units.

    Returns:
        Milliseconds per step by method.

    Example:
        >>> list(bench_memory_cost(1, repeats=1, sizes=(8, 30, 3, 4, 5)))
        ['one window', 'memory off', 'penalty', 'factorised', 'filtering']
    """
    rows, length, horizon, hidden, units = sizes
    x, y = torch.randn(rows, 2, length), torch.randn(rows, 1, horizon)
    make = partial(Forecaster, length, horizon, hidden=hidden, num_units=units)
    unit = partial(NormalPosterior, "unit")
    two, off = partial(make, scored_steps=1), StandardNormal
    costs = {"neurons": autoregressive_cost(0.95, scale=0.28)}
    chain = partial(AutoregressiveNormal, units, phi=0.95)
    filtering = FilteringPosterior(unit(), summary_size=0)
    pairs = {
        "memory off": two(memory=off(), posterior=unit()),
        "penalty": penalize(two(memory=off(), posterior=unit()), costs),
        "factorised": two(memory=chain(), posterior=unit()),
        "filtering": two(memory=chain(), posterior=filtering),
    }
    steps = {"one window": _step(make(posterior=unit()), num_particles, x[:, -1], y[:, 0])}
    steps |= {name: _step(model, num_particles, x, y) for name, model in pairs.items()}
    return {name: 1e3 * value for name, value in median_seconds(steps, repeats=repeats).items()}


def _step(model: Any, num_particles: int, x: Tensor, y: Tensor) -> Step:
    guide, loss = NeuronGuide(model), LocalELBO(num_particles)
    optimiser = torch.optim.Adam(pyro.poutine.unwrap(model).parameters(), 1e-3)

    def step() -> None:
        optimiser.zero_grad()
        loss.differentiable_loss(model, guide, x, y).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step
