"""Benchmark: what a step costs beside hand-written PyTorch and beside two-pass losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.infer import ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_vdn.bench.handwritten import HandWritten
from pyro_vdn.bench.timing import median_seconds, peak_bytes
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.infer import LocalELBO
from pyro_vdn.nn import NormalLikelihood, OutputScale, VariationalNeurons

SIZES = (336, 256, 1024, 96)


class SpeedModel(PyroModule):
    """The model that the benchmark times: one relu layer, one layer of neurons, a linear readout.

    Args:
        sizes: Sizes of input, hidden layer, neurons and output.

    Example:
        >>> SpeedModel((6, 5, 4, 3))(torch.zeros(8, 6)).shape
        torch.Size([8, 3])
    """

    def __init__(self, sizes: tuple[int, int, int, int] = SIZES) -> None:
        super().__init__()
        self.encode = nn.Linear(sizes[0], sizes[1])
        self.neurons = VariationalNeurons(sizes[1], sizes[2])
        self.readout = nn.Linear(sizes[2], sizes[3])
        self.likelihood = NormalLikelihood(OutputScale(sizes[3]))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Sample or observe the outputs of `x`, `(rows, sizes[3])`."""
        h = torch.relu(self.encode(x))
        with pyro.plate("data", x.shape[-2], dim=-2):
            z = self.neurons(h)
            sampled: Tensor = pyro.sample("y", self.likelihood(self.readout(z)), obs=y)
        return sampled


@dataclass(frozen=True)
class SpeedResult:
    """Cost of one loss and its gradients for S particles.

    Args:
        num_particles: S.
        milliseconds: Median per step, by implementation.
        peak_mebibytes: Peak memory of a step, by implementation.

    Example:
        >>> SpeedResult(1, {"hand-written": 2.0, "LocalELBO": 2.1}, {}).ratio("LocalELBO")
        1.05
    """

    num_particles: int
    milliseconds: dict[str, float]
    peak_mebibytes: dict[str, float]

    def ratio(self, name: str) -> float:
        """Return the time of an implementation relative to the hand-written one."""
        return self.milliseconds[name] / self.milliseconds["hand-written"]


def bench_speed(
    num_particles: int = 1, *, rows: int = 256, repeats: int = 200, warmup: int = 10
) -> SpeedResult:
    """Time a step, loss and gradients, by hand and by losses, all in one run on one thread.

    The sizes are 336 -> 256 -> 1,024 neurons -> 96.

    Args:
        num_particles: Number S of draws per step.
        rows: Rows per step.
        repeats: Rounds of which the median is taken.
        warmup: Calls before the first round.

    Returns:
        Medians and peak memory, by implementation.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        steps = _steps(num_particles, rows)
        seconds = median_seconds(steps, repeats=repeats, warmup=warmup)
        peaks = {name: peak_bytes(step) / 2**20 for name, step in steps.items()}
    finally:
        torch.set_num_threads(threads)
    return SpeedResult(num_particles, {name: 1e3 * s for name, s in seconds.items()}, peaks)


def _steps(num_particles: int, rows: int) -> dict[str, Callable[[], Any]]:
    x, y = torch.randn(rows, SIZES[0]), torch.randn(rows, SIZES[3])
    by_hand = HandWritten(SIZES, num_particles)
    model = SpeedModel()
    guide = NeuronGuide(model)

    def hand_written() -> None:
        by_hand.zero_grad()
        by_hand(x, y).backward()

    def with_loss(loss: ELBO) -> Callable[[], None]:
        def step() -> None:
            model.zero_grad()
            loss.loss_and_grads(model, guide, x, y)

        return step

    two_pass = TraceMeanField_ELBO(
        num_particles, vectorize_particles=num_particles > 1, max_plate_nesting=2
    )
    return {
        "hand-written": hand_written,
        "LocalELBO": with_loss(LocalELBO(num_particles, max_plate_nesting=2)),
        "two-pass TraceMeanField_ELBO": with_loss(two_pass),
    }
