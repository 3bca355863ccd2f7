"""Benchmark: regression with neurons beside its twin, over the standard splits of a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pyro

from pyro_vdn.bench.results import environment
from pyro_vdn.bench.training import train
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.train import evaluate
from pyro_vdn.train.problem import Problem, Source, load_problem
from pyro_vdn.train.recipes import RegressionRecipe

COLUMNS = {
    "nll_original": "NLL (units of the target)",
    "rmse_original": "RMSE (units of the target)",
    "crps": "CRPS (standardised)",
    "coverage_90": "90 % coverage",
    "kl_per_unit": "KL per unit",
    "active_share": "active share",
    "parameters": "parameters",
}
NEURONS = "neurons"
TWIN = "deterministic Student-t twin"


def bench_regression(
    *,
    data: str = "energy",
    splits: Sequence[int] = tuple(range(10)),
    restarts: int = 2,
    recipe: RegressionRecipe | None = None,
    accept: str | None = None,
    on_run: Callable[[dict[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """Train and score neurons and their twin on every split.

    Both are fitted from several initial weights, of which the validation rows choose one.

    Args:
        data: Name of a UCI table.
        splits: Which standard splits, 0 to 19.
        restarts: Fits per split and method.
        recipe: Hyper-parameters; by default `RegressionRecipe()`.
        accept: The consent that some data sets ask for.
        on_run: Called with all results so far after every run.

    Returns:
        ``environment``, ``recipe``, ``restarts`` and ``runs``, ready for JSON.
    """
    recipe = recipe or RegressionRecipe()
    results: dict[str, Any] = {
        "benchmark": "regression",
        "data": data,
        "environment": environment(),
        "recipe": recipe.to_dict(),
        "restarts": restarts,
        "runs": [],
    }
    for split in splits:
        problem = load_problem(Source(data, split=split, accept=accept), recipe)
        for method, twin in ((NEURONS, False), (TWIN, True)):
            fits = [
                _fit(method, problem, split + 100 * attempt, twin) for attempt in range(restarts)
            ]
            model, fitted = min(fits, key=_validation_nll)
            metrics = _score(model, problem, recipe)
            results["runs"].append({"method": method, "split": split, **fitted, "metrics": metrics})
            on_run(results)
    return results


def _fit(method: str, problem: Problem, seed: int, twin: bool) -> tuple[Any, dict[str, Any]]:
    model = problem.build_model(seed, units="points" if twin else "neurons")
    result = train(problem, model, seed, f"{method}, split {problem.source.split}")
    return model, {
        "seed": seed,
        "best_step": result.best_step,
        "validation_nll": result.validation_nll,
        "train_seconds": result.seconds,
    }


def _score(model: Any, problem: Problem, recipe: RegressionRecipe) -> dict[str, Any]:
    pyro.set_rng_seed(0)
    x, y = problem.test
    metrics = evaluate(model, NeuronGuide(model), x, y, num_samples=recipe.num_samples).to_dict()
    scale = float(problem.targets.scale)
    nll, mse = metrics["nll"], metrics["mse"]
    return metrics | {
        "nll_original": None if nll is None else nll + math.log(scale),
        "rmse_original": None if mse is None else math.sqrt(mse) * scale,
    }


def _validation_nll(fitted: tuple[Any, dict[str, Any]]) -> float:
    value = fitted[1]["validation_nll"]
    return math.inf if value is None else float(value)
