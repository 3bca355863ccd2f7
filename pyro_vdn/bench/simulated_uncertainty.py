"""Benchmark: checks of uncertainty on simulated data, where it is known what is right."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pyro_vdn.bench.results import environment
from pyro_vdn.diagnostics import (
    AdaptiveConformal,
    SplitConformal,
    coverage,
    importance_evidence,
    simulation_based_calibration,
)
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.infer.evaluating import own_noise
from pyro_vdn.poutine import scale_noise
from pyro_vdn.testing import ConjugateNeurons, orthogonal_columns

LEVELS = (0.5, 0.9)
GUIDES = {"exact": 1.0, "half its scale": 0.5, "0.9 of its scale": 0.9, "twice its scale": 2.0}
_UNITS, _OUTPUTS, _NOISE = 3, 5, 0.8


def bench_simulated(
    *,
    simulations: int = 500,
    repeats: int = 20,
    conformal_sets: int = 2000,
    on_part: Callable[[dict[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """Check coverage, simulation-based calibration, k-hat and conformal intervals.

    Args:
        simulations: Simulated data sets behind each coverage and each verdict.
        repeats: Verdicts of simulation-based calibration for each guide.
        conformal_sets: Simulated pairs of calibration and test sets.
        on_part: Called with all results so far after every part.

    Returns:
        ``environment`` and the parts by name, ready for JSON.
    """
    results: dict[str, Any] = {
        "benchmark": "simulated",
        "environment": environment(),
        "simulations": simulations,
        "repeats": repeats,
    }
    parts: dict[str, Callable[[], Any]] = {
        "coverage": lambda: conjugate_coverage(simulations),
        "verdicts": lambda: verdicts(simulations, repeats),
        "evidence": lambda: evidence_cases(repeats),
        "split_conformal": lambda: split_conformal(conformal_sets),
        "adaptive_conformal": lambda: adaptive_conformal(100),
    }
    with _double_precision():
        for name, part in parts.items():
            results[name] = part()
            on_part(results)
    return results


@contextmanager
def _double_precision() -> Iterator[None]:
    """Make tensors in double precision for the length of a block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def conjugate(seed: int) -> ConjugateNeurons:
    """Return linear-Gaussian neurons at their exact posterior.

    Args:
        seed: Seed of the loadings.

    Example:
        >>> conjugate(0)(torch.zeros(4, 5)).shape
        torch.Size([4, 5])
    """
    with own_noise(seed):
        model = ConjugateNeurons(
            orthogonal_columns(_OUTPUTS, _UNITS), torch.randn(_OUTPUTS), _NOISE
        )
    model.set_exact_()
    return model


def conjugate_coverage(simulations: int) -> list[dict[str, float]]:
    """Return how often central intervals of the guide hold what made the data.

    Args:
        simulations: Simulated data sets, each of its own neurons.
    """
    model = conjugate(0)
    with own_noise(1), torch.no_grad():
        z = torch.randn(simulations, _UNITS)
        y = z @ model.weight.mT + model.bias + _NOISE * torch.randn(simulations, _OUTPUTS)
        draws = model.neurons.posterior(y).sample((1999,))
    return [share(coverage(draws, z, level), z.numel(), level) for level in LEVELS]


def share(inside: Tensor | float, count: int, nominal: float) -> dict[str, float]:
    """Return an observed share beside the nominal one, with its error if that is true.

    Args:
        inside: The observed share.
        count: Independent observations behind it.
        nominal: What it should be.

    Example:
        >>> share(0.52, 400, 0.5)["standard_error"]
        0.025
    """
    error = math.sqrt(nominal * (1.0 - nominal) / count)
    return {"nominal": nominal, "share": float(inside), "count": count, "standard_error": error}


def verdicts(simulations: int, repeats: int) -> dict[str, int]:
    """Return how often simulation-based calibration passes a guide, at a level of 95 %.

    Args:
        simulations: Simulations behind each verdict.
        repeats: Verdicts of each guide.
    """
    passed = dict.fromkeys(GUIDES, 0)
    for seed in range(repeats):
        model = conjugate(seed)
        for name, factor in GUIDES.items():
            result = simulation_based_calibration(
                scale_noise(model, factor),
                NeuronGuide(scale_noise(model, factor)),
                (torch.zeros(simulations, _OUTPUTS),),
                observe=lambda drawn: (drawn["y"],),
                num_simulations=simulations,
                seed=seed,
            )
            passed[name] += result.passed
    return passed


def evidence_cases(repeats: int) -> dict[str, dict[str, float | str | None]]:
    """Return the worst k-hat and error of importance-weighted evidence, by scale of the guide.

    Args:
        repeats: Data sets of 20 rows.
    """
    found: dict[str, dict[str, float | str | None]] = {}
    for name, factor in GUIDES.items():
        k_hat, gap, error = [], [], []
        for seed in range(repeats):
            model = conjugate(seed)
            with own_noise(seed):
                y = model.simulate(20)
            changed = scale_noise(model, factor)
            evidence = importance_evidence(
                changed, NeuronGuide(changed), y, num_samples=2000, seed=seed
            )
            k_hat.append(evidence.worst_k_hat)
            gap.append(evidence.log_evidence - float(model.log_evidence(y).sum()))
            error.append(evidence.error)
        found[name] = {
            "worst_k_hat": _for_json(max(k_hat)),
            "largest_gap": max(map(abs, gap)),
            "mean_error": sum(error) / repeats,
        }
    return found


def _for_json(k_hat: float) -> float | str | None:
    """Return a k-hat as JSON can say it: None where all weights are equal, "inf" at the worst."""
    if k_hat == -math.inf:
        return None
    return k_hat if math.isfinite(k_hat) else str(k_hat)


def split_conformal(sets: int, *, calibration: int = 499, test: int = 200) -> dict[str, float]:
    """Return the mean coverage of split conformal intervals of a model that is wrong.

    The targets are Student-t with spread that grows with the input; the model predicts intervals of
    one width. Sets are columns, so that one call calibrates all of them.

    Args:
        sets: Pairs of calibration and test sets.
        calibration: Rows that calibrate.
        test: Rows of each test set.
    """
    with own_noise(2):
        x = torch.rand(calibration + test, sets)
        noise = torch.distributions.StudentT(torch.tensor(3.0))
        y = x + (0.2 + x) * noise.sample(x.shape)
    lower, upper = x - 0.5, x + 0.5
    held, new = slice(calibration), slice(calibration, None)
    conformal = SplitConformal.fit(lower[held], upper[held], y[held], 0.9)
    low, high = conformal.apply(lower[new], upper[new])
    inside = ((low <= y[new]) & (y[new] <= high)).double().mean(0)
    raw = ((lower[new] <= y[new]) & (y[new] <= upper[new])).double().mean()
    return {
        "nominal": 0.9,
        "sets": sets,
        "raw": float(raw),
        "share": float(inside.mean()),
        "standard_error": float(inside.std() / math.sqrt(sets)),
    }


def adaptive_conformal(series: int, *, times: int = 2000) -> dict[str, float]:
    """Return long-run coverage after the spread of a series has doubled, split and adaptive.

    Args:
        series: Simulated series.
        times: Length of each; its spread doubles halfway, and split conformal calibrates on the
            first quarter.
    """
    with own_noise(3):
        spread = torch.ones(times, 1)
        spread[times // 2 :] = 2.0
        target = spread * torch.randn(times, series)
    mean = torch.zeros_like(target)
    late, early = slice(times // 2, None), slice(times // 4)
    low, high = SplitConformal.fit(mean[early], mean[early], target[early], 0.9).apply(
        mean[late], mean[late]
    )
    split = ((low <= target[late]) & (target[late] <= high)).double()
    method = AdaptiveConformal(0.9, 0.02, window=200)
    run = method.run(mean, mean, target)
    gap = (run.missed.mean(0) - 0.1).abs().max()
    return {
        "nominal": 0.9,
        "series": series,
        "split_after_shift": float(split.mean()),
        "adaptive_after_shift": float(1.0 - run.missed[late].mean()),
        "largest_gap": float(gap),
        "bound": float(method.bound(times)),
    }
