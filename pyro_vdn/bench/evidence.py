"""Benchmark: do neurons with memory reach the exact evidence of a linear-Gaussian chain?

Four units follow AR(1) chains and are seen in noise, 200 steps of each. A structured posterior is
fitted together with `phi` and `s`, by draws. Everything is then compared with the Kalman filter:
the bound at the fitted parameters, smoothed moments, and the parameters themselves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoGuide, AutoMultivariateNormal, AutoNormal, init_to_value
from torch import Tensor

from pyro_vdn.bench.chain_reference import ExactPosterior, curvature, exact_posterior
from pyro_vdn.bench.results import environment
from pyro_vdn.bench.seen_chains import START, SeenChains, distance_to_exact, fit_steps
from pyro_vdn.guides import NeuronGuide, without_neurons
from pyro_vdn.infer import LocalELBO
from pyro_vdn.testing import LinearGaussianChain

PHI = (0.95, 0.8, 0.5, -0.6)
SCALE = (0.3, 0.5, 0.8, 0.6)
NOISE = 0.5
TIME = 200
STEPS = 1000
#: Learning rate at the start of a fit.
RATE = 0.03
#: Level of the intervals under hyper-priors.
LEVEL = 0.9
EXACT = "exact posterior, on a grid"
GUIDES: Mapping[str, Callable[..., AutoGuide]] = {
    "AutoNormal": AutoNormal,
    "AutoMultivariateNormal": AutoMultivariateNormal,
}


@dataclass(frozen=True)
class Setting:
    """What a set consists of, and what is known of it.

    At 200 steps of one sequence, noise and innovations are hard to tell apart: where the noise is
    learned too, there are more sequences.

    Args:
        name: What tables call it.
        rows: Sequences of a set.
        learn_noise: Whether the observation noise is learned too.

    Example:
        >>> [setting.name for setting in SETTINGS][0]
        'noise known, 1 sequence'
    """

    name: str
    rows: int
    learn_noise: bool


SETTINGS = (
    Setting("noise known, 1 sequence", 1, False),
    Setting("noise learned, 8 sequences", 8, True),
)


def bench_evidence(
    *,
    sets: Sequence[int] = range(20),
    steps: int = STEPS,
    on_run: Callable[[dict[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """Simulate sets of series, fit each, and compare with exact inference.

    Args:
        sets: Seeds of the sets.
        steps: Steps of each fit.
        on_run: Called with all results so far after every run.

    Returns:
        ``environment``, ``truth`` and ``runs``, ready for JSON: fits with estimates and their
        standard errors, and under hyper-priors intervals.
    """
    truth = {"phi": list(PHI), "scale": list(SCALE), "noise": [NOISE] * len(PHI)}
    results: dict[str, Any] = {
        "benchmark": "evidence",
        "environment": environment(),
        "truth": truth,
        "time": TIME,
        "steps": steps,
        "level": LEVEL,
        "runs": [],
    }
    for seed in sets:
        for setting in SETTINGS:
            results["runs"].append(fit_point(setting, seed, steps))
            on_run(results)
        for method in (*GUIDES, EXACT):
            results["runs"].append(fit_intervals(method, seed, steps))
            on_run(results)
    return results


def simulate(seed: int, rows: int) -> Tensor:
    """Draw a set of series from the truth, `(rows, time, units)`.

    Args:
        seed: Seed of the set.
        rows: Number of sequences.
    """
    pyro.set_rng_seed(seed)
    chain = LinearGaussianChain(
        torch.tensor(PHI), torch.tensor(SCALE), torch.full((len(PHI),), NOISE)
    )
    return chain.sample(TIME, (rows,)).observed


def fit_point(setting: Setting, seed: int, steps: int) -> dict[str, Any]:
    """Fit `phi` and `s` as parameters, and compare bound, moments and estimates with exact ones.

    Args:
        setting: What is known.
        seed: Seed of the set and of the fit.
        steps: Steps of the fit.
    """
    y = simulate(seed, setting.rows)
    noise = 2 * NOISE if setting.learn_noise else NOISE
    model = SeenChains(len(PHI), noise=noise, learn_noise=setting.learn_noise)
    start = time.perf_counter()
    fit_steps(model, NeuronGuide(model), _loss(), lambda: y, steps=steps, rate=RATE)
    seconds = time.perf_counter() - start
    return {
        "method": setting.name,
        "seed": seed,
        "metrics": {**distance_to_exact(model, y), "seconds": seconds},
        "parameters": _estimates(model, y, setting.learn_noise),
    }


def _loss() -> LocalELBO:
    return LocalELBO(8, max_plate_nesting=4)


def _estimates(model: SeenChains, y: Tensor, learn_noise: bool) -> dict[str, Any]:
    exact = model.exact()
    values = (exact.phi.squeeze(-1), exact.scale, exact.noise)
    errors, to_maximum = curvature(y, *values, learn_noise=learn_noise)
    return {
        name: {
            "estimate": value.tolist(),
            "standard_error": _finite(error),
            "to_maximum": _finite(step / error),
        }
        for name, value, error, step in zip(
            ("phi", "scale", "noise"), values, errors, to_maximum, strict=False
        )
    }


def _finite(values: Tensor) -> list[float | None]:
    """Return numbers for JSON: None where the evidence has no maximum near, so no error either."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def fit_intervals(method: str, seed: int, steps: int) -> dict[str, Any]:
    """Infer `phi` and `s` under hyper-priors: intervals, and the bound's distance to the evidence.

    Args:
        method: A guide of the hyperparameters, of `GUIDES`, or `EXACT`.
        seed: Seed of the set and of the fit.
        steps: Steps of the fit.
    """
    y = simulate(seed, 1)
    exact = _exact(y)
    if method == EXACT:
        intervals, gap = {"phi": exact.phi, "scale": exact.scale}, 0.0
    else:
        intervals, bound = _fitted_intervals(GUIDES[method], y, steps)
        gap = exact.log_evidence - bound
    return {
        "method": method,
        "seed": seed,
        "metrics": {"gap": gap},
        "intervals": {name: ends.tolist() for name, ends in intervals.items()},
    }


def _exact(y: Tensor) -> ExactPosterior:
    """Return the exact posterior on a grid around the truth's standard errors."""
    phi, scale = torch.tensor(PHI).double(), torch.tensor(SCALE).double()
    noise = torch.full_like(phi, NOISE)
    errors, _ = curvature(y, phi, scale, noise)
    # The curvature at the truth can be weak in a single set: no grid is narrower than these.
    widths = errors.nan_to_num(0.1).clamp(0.04, 0.1)
    return exact_posterior(y, (phi, widths[0]), (scale, widths[1]), noise, level=LEVEL)


def _fitted_intervals(
    make: Callable[..., AutoGuide], y: Tensor, steps: int
) -> tuple[dict[str, Tensor], float]:
    """Fit a guide of the hyperparameters; return its intervals and its bound."""
    model = SeenChains(len(PHI), noise=NOISE, hyper=True)
    names = {"phi": "neurons.prior.phi", "scale": "neurons.prior.scale"}
    start = {site: torch.full((len(PHI),), START).double() for site in names.values()}
    others = make(without_neurons(model), init_loc_fn=init_to_value(values=start))
    others(y)  # an autoguide makes its parameters when it first runs
    guide = NeuronGuide(model, others=others)
    fit_steps(model, guide, _loss(), lambda: y, steps=steps, rate=RATE)
    # Near the exact posterior log p - log q hardly varies, so this bound needs few draws.
    loss = Trace_ELBO(50, vectorize_particles=True, max_plate_nesting=4)
    with torch.no_grad():
        bound = -sum(loss.loss(model, guide, y) for _ in range(10)) / 10
        ends = others.quantiles([0.5 * (1 - LEVEL), 0.5 * (1 + LEVEL)], y)
    intervals = {
        name: torch.as_tensor(torch.stack(list(ends[site]))).reshape(2, -1)
        for name, site in names.items()
    }
    return intervals, bound
