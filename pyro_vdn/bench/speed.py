"""Benchmark: what a step costs beside hand-written PyTorch and beside two-pass losses."""

from __future__ import annotations

from dataclasses import dataclass

import pyro
import torch
from pyro.infer import ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_vdn.bench.handwritten import HandWritten
from pyro_vdn.bench.timing import Step, median_seconds, peak_bytes
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.infer import LocalELBO
from pyro_vdn.infer.own_store import give_own_store
from pyro_vdn.nn import NormalLikelihood, OutputScale, VariationalNeurons

SIZES = (336, 256, 1024, 96)
HAND_WRITTEN = "hand-written"
LOCAL = "LocalELBO"
TWO_PASS = "two-pass TraceMeanField_ELBO"


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
class Comparison:
    """Cost of a step beside that of a reference, the two alternating in one run.

    Args:
        name: What is compared.
        reference: What it is compared with.
        num_particles: Number S of draws per step.
        milliseconds: Median time of its steps.
        reference_milliseconds: Median time of the reference's steps.
        peak_mebibytes: Peak memory of its step.
        reference_peak_mebibytes: Peak memory of the reference's step.

    Example:
        >>> Comparison("LocalELBO", "hand-written", 1, 2.1, 2.0, 7.5, 7.5).relative_time
        1.05
    """

    name: str
    reference: str
    num_particles: int
    milliseconds: float
    reference_milliseconds: float
    peak_mebibytes: float
    reference_peak_mebibytes: float

    @property
    def relative_time(self) -> float:
        """Time relative to the reference."""
        return self.milliseconds / self.reference_milliseconds

    @property
    def relative_memory(self) -> float:
        """Peak memory relative to the reference."""
        return self.peak_mebibytes / self.reference_peak_mebibytes


def bench_speed(
    num_particles: int = 1, *, rows: int = 256, repeats: int = 200, warmup: int = 10
) -> list[Comparison]:
    """Time a step (loss and gradients, 336 -> 256 -> 1,024 neurons -> 96) on one thread.

    `LocalELBO` alternates with hand-written PyTorch, and Pyro's two-pass loss with `LocalELBO`, a
    pair at a time; then all three take turns, in which `LocalELBO` fares worse beside the first.

    Args:
        num_particles: Number S of draws per step.
        rows: Rows per step.
        repeats: Steps of each of which the median is taken.
        warmup: Steps of each before these.

    Returns:
        The three comparisons.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        steps = _steps(num_particles, rows)
        return [
            _compare(steps, (LOCAL, HAND_WRITTEN), num_particles, repeats, warmup),
            _compare(steps, (TWO_PASS, LOCAL), num_particles, repeats, warmup),
            _compare(steps, (LOCAL, HAND_WRITTEN, TWO_PASS), num_particles, repeats, warmup),
        ]
    finally:
        torch.set_num_threads(threads)


def _compare(
    steps: dict[str, Step], names: tuple[str, ...], num_particles: int, repeats: int, warmup: int
) -> Comparison:
    """Let steps alternate and compare the first with the second; a third is there to disturb."""
    chosen = {name: steps[name] for name in names}
    seconds = median_seconds(chosen, repeats=repeats, warmup=warmup)
    name, reference, *disturbing = names
    times = [1e3 * seconds[one] for one in (name, reference)]
    peaks = [peak_bytes(steps[one]) / 2**20 for one in (name, reference)]
    if disturbing:
        name = f"{name}, all three interleaved"
    return Comparison(name, reference, num_particles, *times, *peaks)


def _steps(num_particles: int, rows: int) -> dict[str, Step]:
    x, y = torch.randn(rows, SIZES[0]), torch.randn(rows, SIZES[3])
    two_pass = TraceMeanField_ELBO(
        num_particles, vectorize_particles=num_particles > 1, max_plate_nesting=2
    )
    by_hand = HandWritten(SIZES, num_particles)

    def hand_written() -> None:
        by_hand.zero_grad()
        by_hand(x, y).backward()

    return {
        HAND_WRITTEN: hand_written,
        LOCAL: _step_of(LocalELBO(num_particles, max_plate_nesting=2), x, y),
        TWO_PASS: _step_of(two_pass, x, y),
    }


def _step_of(loss: ELBO, x: Tensor, y: Tensor) -> Step:
    model = SpeedModel(SIZES)
    guide = NeuronGuide(model)
    give_own_store(model, guide)

    def step() -> None:
        model.zero_grad()
        loss.loss_and_grads(model, guide, x, y)

    return step
