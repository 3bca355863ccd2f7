"""Benchmark: what a step of neurons with memory costs, beside the loop and along the time axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import ELBO, Trace_ELBO
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_vdn.bench.memory_cost import SIZES, bench_memory_cost
from pyro_vdn.bench.timing import Step, median_seconds, peak_bytes
from pyro_vdn.guides import (
    FilteringPosterior,
    NeuronGuide,
    SmoothingPosterior,
    StructuredPosterior,
)
from pyro_vdn.infer import LocalELBO
from pyro_vdn.infer.own_store import give_own_store
from pyro_vdn.nn import AutoregressiveNormal, NormalPosterior, VariationalNeurons
from pyro_vdn.nn.neurons import Steps

POSTERIORS: dict[str, Callable[[], nn.Module]] = {
    "factorised": NormalPosterior,
    "filtering": FilteringPosterior,
    "smoothing": SmoothingPosterior,
    "structured": StructuredPosterior,
}
LOSSES: dict[str, Callable[[], ELBO]] = {"LocalELBO": LocalELBO, "Trace_ELBO": Trace_ELBO}
FEATURES, UNITS, ROWS, LOOP_LENGTH = 16, 64, 64, 336
LENGTHS = (48, 96, 192, 384, 768, 1536)


class MemoryModel(PyroModule):
    """The model that the benchmark times: neurons with memory and a linear readout.

    Args:
        posterior: Name of the posterior, of `POSTERIORS`.
        steps: How the neurons run over time.
        units: Number of units.

    Example:
        >>> MemoryModel("filtering", units=4)(torch.zeros(5, 10, FEATURES)).shape
        torch.Size([5, 10, 1])
    """

    def __init__(self, posterior: str, steps: Steps = "parallel", *, units: int = UNITS) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(
            FEATURES,
            units,
            prior=AutoregressiveNormal(units),
            posterior=POSTERIORS[posterior](),
            steps=steps,
        )
        self.readout = nn.Linear(units, 1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Sample or observe the outputs of `x`, `(rows, time, 1)`."""
        with pyro.plate("data", x.shape[-3], dim=-3):
            z = self.neurons(x)
            with pyro.plate("time", x.shape[-2], dim=-2):
                sampled: Tensor = pyro.sample("y", dist.Normal(self.readout(z), 1.0), obs=y)
        return sampled


@dataclass(frozen=True)
class LoopComparison:
    """Cost of a step beside that of the same step run as a `pyro.markov` loop.

    Args:
        posterior: Name of the posterior.
        loss: Name of the loss, used by both.
        time: Length T of the sequences.
        milliseconds: Median time of a step.
        loop_milliseconds: Median time of a step of the loop.

    Example:
        >>> LoopComparison("filtering", "LocalELBO", 336, 20.0, 500.0).speedup
        25.0
    """

    posterior: str
    loss: str
    time: int
    milliseconds: float
    loop_milliseconds: float

    @property
    def speedup(self) -> float:
        """How many times faster than the loop."""
        return self.loop_milliseconds / self.milliseconds


def bench_memory_speed(
    *,
    rows: int = ROWS,
    units: int = UNITS,
    length: int = LOOP_LENGTH,
    lengths: tuple[int, ...] = LENGTHS,
    window_sizes: tuple[int, ...] = SIZES,
    repeats: int = 20,
) -> dict[str, Any]:
    """Time a step (loss and gradients) of neurons with memory on one thread.

    Each posterior alternates with its own loop, a pair at a time; then its cost is followed over
    the lengths of sequences.

    Args:
        rows: Sequences per step.
        units: Number of units.
        length: Length of the sequences beside the loop.
        lengths: Lengths over which the cost is followed.
        window_sizes: Sizes for `bench_memory_cost`.
        repeats: Steps of each of which the median is taken.

    Returns:
        Comparisons with the loop, and time and peak memory by posterior and length, with the
        exponents of both: the slope of log cost over log length; and what `bench_memory_cost`
        says of forecasters, by number of particles.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        loops = [
            _beside_loop(posterior, loss, rows, units, length, repeats)
            for posterior in POSTERIORS
            for loss in LOSSES
        ]
        growth = [_growth(posterior, rows, units, lengths, repeats) for posterior in POSTERIORS]
        windows = {
            str(s): bench_memory_cost(s, repeats=repeats, sizes=window_sizes) for s in (1, 4)
        }
    finally:
        torch.set_num_threads(threads)
    sizes = {"rows": rows, "units": units, "in_features": FEATURES, "repeats": repeats}
    compared = [asdict(loop) for loop in loops]
    return {"sizes": sizes, "loops": compared, "growth": growth, "windows": windows}


def _beside_loop(
    posterior: str, loss: str, rows: int, units: int, length: int, repeats: int
) -> LoopComparison:
    steps = {
        name: _step(MemoryModel(posterior, name, units=units), LOSSES[loss](), rows, length)
        for name in ("parallel", "markov")
    }
    seconds = median_seconds(steps, repeats=repeats, warmup=2)
    times = [1e3 * seconds[name] for name in ("parallel", "markov")]
    return LoopComparison(posterior, loss, length, *times)


def _growth(
    posterior: str, rows: int, units: int, lengths: tuple[int, ...], repeats: int
) -> dict[str, Any]:
    """Return time and peak memory of a step by length; lengths take turns."""
    model = MemoryModel(posterior, units=units)
    steps = {str(time): _step(model, LocalELBO(), rows, time) for time in lengths}
    seconds = median_seconds(steps, repeats=repeats, warmup=2)
    costs = {
        "milliseconds": [1e3 * seconds[str(time)] for time in lengths],
        "mebibytes": [peak_bytes(steps[str(time)]) / 2**20 for time in lengths],
    }
    exponents = {
        name: float(np.polyfit(np.log(lengths), np.log(values), 1)[0])
        for name, values in costs.items()
    }
    return {"posterior": posterior, "lengths": list(lengths), **costs, "exponents": exponents}


def _step(model: MemoryModel, loss: ELBO, rows: int, time: int) -> Step:
    guide = NeuronGuide(model)
    give_own_store(model, guide)
    x, y = torch.randn(rows, time, FEATURES), torch.randn(rows, time, 1)

    def step() -> None:
        model.zero_grad()
        loss.loss_and_grads(model, guide, x, y)

    return step


def window_table(results: dict[str, Any]) -> str:
    """Return what memory over two windows adds to a forecaster's step, as Markdown.

    Args:
        results: What `bench_memory_speed` returned.
    """
    lines = ["| step | " + " | ".join(f"S = {s}, ms | ratio" for s in results["windows"]) + " |"]
    lines.append("| --- |" + " --- | --- |" * len(results["windows"]))
    for method in next(iter(results["windows"].values())):
        cells = [
            f"{costs[method]:.1f} | {costs[method] / costs['one window']:.2f}"
            for costs in results["windows"].values()
        ]
        lines.append(f"| {_METHODS[method]} | {' | '.join(cells)} |")
    return "\n".join(lines)


_METHODS = {
    "one window": "one window, no memory",
    "memory off": "two windows, memory off",
    "penalty": "AR penalty on locations, the form of the sources",
    "factorised": "AR prior, factorised posterior",
    "filtering": "AR prior, filtering posterior",
}


def memory_speed_table(results: dict[str, Any]) -> str:
    """Return the results as Markdown.

    Args:
        results: What `bench_memory_speed` returned.
    """
    lines = [
        "| posterior | loss | step, ms | loop, ms | faster | time ~ T^a, a | memory ~ T^b, b |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    exponents = {growth["posterior"]: growth["exponents"] for growth in results["growth"]}
    for values in results["loops"]:
        one = LoopComparison(**values)
        of = exponents[one.posterior]
        grown = f"{of['milliseconds']:.2f} | {of['mebibytes']:.2f}"
        times = f"{one.milliseconds:.1f} | {one.loop_milliseconds:.0f} | {one.speedup:.0f} x"
        followed = grown if one.loss == "LocalELBO" else " | "
        lines.append(f"| {one.posterior} | {one.loss} | {times} | {followed} |")
    return "\n".join(lines)


def speed_tables(results: dict[str, Any]) -> str:
    """Return both tables, one below the other.

    Args:
        results: What `bench_memory_speed` returned.
    """
    return f"{memory_speed_table(results)}\n\n{window_table(results)}"
