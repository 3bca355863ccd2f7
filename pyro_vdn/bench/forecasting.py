"""Benchmark: the forecaster beside its twins and beside ridge regression, on all test windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyro
from torch import Tensor

from pyro_vdn.bench.results import environment
from pyro_vdn.bench.ridge import RidgeForecaster
from pyro_vdn.bench.training import train
from pyro_vdn.diagnostics import coverage, crps_draws, energy_score
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.poutine import deterministic
from pyro_vdn.train import evaluate
from pyro_vdn.train.problem import Problem, Source, load_problem
from pyro_vdn.train.recipes import ForecastingRecipe

COLUMNS = {
    "nll": "NLL",
    "joint_nll": "joint NLL",
    "crps": "CRPS",
    "energy_score": "energy score",
    "mse": "MSE",
    "mae": "MAE",
    "coverage_90": "90 % coverage",
    "kl_per_unit": "KL per unit",
    "active_share": "active share",
    "parameters": "parameters",
}
NEURONS = "neurons"
TWIN = "deterministic twin"
MEAN_ONLY = "neurons at their mean (z = loc)"
RIDGE = "ridge, closed form"


def bench_forecasting(
    *,
    data: str = "etth1",
    seeds: Sequence[int] = (0, 1, 2),
    recipe: ForecastingRecipe | None = None,
    on_run: Callable[[dict[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """Train and score the forecaster and its references for several seeds.

    Per seed: neurons; their deterministic twin (same likelihood, same objective, same batches); the
    neurons evaluated at their mean. Once: ridge regression on windows centred
    at their last value. Scores are per step, in standardised units, on all test windows.

    Args:
        data: Name of a series, or path of a CSV file.
        seeds: Seeds of weights, batches and noise.
        recipe: Hyper-parameters; by default the full `ForecastingRecipe`.
        on_run: Called with all results so far after every run.

    Returns:
        ``environment``, ``recipe``, ``tested_on`` and ``runs``, ready for JSON.
    """
    recipe = recipe or ForecastingRecipe()
    problem = load_problem(Source(data), recipe)
    results: dict[str, Any] = {
        "benchmark": "forecasting",
        "data": data,
        "environment": environment(),
        "recipe": recipe.to_dict(),
        "tested_on": problem.tested_on,
        "runs": [],
    }
    for run in _runs(problem, recipe, seeds):
        results["runs"].append(run)
        on_run(results)
    return results


def _runs(
    problem: Problem, recipe: ForecastingRecipe, seeds: Sequence[int]
) -> Iterator[dict[str, Any]]:
    yield {"method": RIDGE, "seed": 0, "metrics": ridge_metrics(problem, recipe.num_samples)}
    for seed in seeds:
        neurons = problem.build_model(seed)
        yield _trained(NEURONS, neurons, problem, recipe, seed)
        mean_only = deterministic(pyro.poutine.unwrap(neurons))
        yield _scored(MEAN_ONLY, mean_only, problem, recipe, seed)
        yield _trained(TWIN, problem.build_model(seed, units="points"), problem, recipe, seed)


def _trained(
    method: str,
    model: Any,
    problem: Problem,
    recipe: ForecastingRecipe,
    seed: int,
) -> dict[str, Any]:
    result = train(problem, model, seed, f"{method}, seed {seed}")
    run = _scored(method, model, problem, recipe, seed)
    run["metrics"]["train_seconds"] = result.seconds
    return run | {"best_step": result.best_step, "validation_nll": result.validation_nll}


def _scored(
    method: str, model: Any, problem: Problem, recipe: ForecastingRecipe, seed: int
) -> dict[str, Any]:
    pyro.set_rng_seed(seed)
    x, y = problem.test
    metrics = evaluate(model, NeuronGuide(model), x, y, num_samples=recipe.num_samples)
    return {"method": method, "seed": seed, "metrics": metrics.to_dict()}


def ridge_metrics(problem: Problem, num_samples: int) -> dict[str, float]:
    """Score ridge regression with the same definitions as `evaluate`.

    Args:
        problem: The windows.
        num_samples: Trajectories drawn per window for CRPS, coverage and energy score.

    Returns:
        Scores by name.
    """
    x, y = problem.test
    ridge = RidgeForecaster.fit(*problem.train, penalty=1e3)
    sums: dict[str, float] = {}
    pyro.set_rng_seed(0)
    for start in range(0, len(x), 1024):
        rows = slice(start, start + 1024)
        for name, value in _ridge_scores(ridge, x[rows], y[rows].double(), num_samples).items():
            sums[name] = sums.get(name, 0.0) + float(value.mean()) * len(y[rows])
    return {name: value / len(x) for name, value in sums.items()} | {
        "parameters": ridge.weight.numel() + len(ridge.scale)
    }


def _ridge_scores(
    ridge: RidgeForecaster, x: Tensor, y: Tensor, num_samples: int
) -> dict[str, Tensor]:
    mean, draws = ridge.mean(x), ridge.draw(x, num_samples)
    standardised = (y - mean) / ridge.scale
    return {
        "nll": 0.5 * standardised.square() + ridge.scale.log() + 0.5 * math.log(2 * math.pi),
        "joint_nll": -ridge.log_prob_joint(x, y) / y.shape[-1],
        "crps": crps_draws(draws, y, fair=True),
        "energy_score": energy_score(draws, y, fair=True),
        "mse": (y - mean).square(),
        "mae": (y - draws.median(0).values).abs(),
        "coverage_90": coverage(draws, y, 0.9),
    }
