"""Benchmark: regression with neurons beside its twin, over the standard splits of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyro
import torch

from pyro_vdn.bench.results import environment
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.train import evaluate, fit
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
    recipe: RegressionRecipe | None = None,
    accept: str | None = None,
    on_run: Callable[[dict[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """Train and score neurons and their twin on every split.

    Args:
        data: Name of a UCI table.
        splits: Which standard splits, 0 to 19; the split is the seed too.
        recipe: Hyper-parameters; by default `RegressionRecipe()`.
        accept: The consent that some data sets ask for.
        on_run: Called with all results so far after every run.

    Returns:
        ``environment``, ``recipe`` and ``runs``, ready for JSON.
    """
    recipe = recipe or RegressionRecipe()
    results: dict[str, Any] = {
        "benchmark": "regression",
        "data": data,
        "environment": environment(),
        "recipe": recipe.to_dict(),
        "runs": [],
    }
    for split in splits:
        problem = load_problem(Source(data, split=split, accept=accept), recipe)
        for method, twin in ((NEURONS, False), (TWIN, True)):
            results["runs"].append(_run(method, problem, recipe, split, twin))
            on_run(results)
    return results


def _run(
    method: str, problem: Problem, recipe: RegressionRecipe, split: int, twin: bool
) -> dict[str, Any]:
    model = problem.build_model(split, twin=twin)
    result = fit(
        model,
        problem.train,
        problem.validation,
        loss=recipe.loss(),
        options=recipe.options(split),
        progress=f"{method}, split {split}",
    )
    pyro.set_rng_seed(split)
    x, y = problem.test
    metrics = evaluate(model, NeuronGuide(model), x, y, num_samples=recipe.num_samples).to_dict()
    scale = problem.targets.scale
    metrics["nll_original"] = (metrics["nll"] or 0.0) + float(scale.log())
    metrics["rmse_original"] = float(torch.tensor(metrics["mse"]).sqrt() * scale)
    metrics["train_seconds"] = result.seconds
    return {
        "method": method,
        "split": split,
        "best_step": result.best_step,
        "validation_nll": result.validation_nll,
        "metrics": metrics,
    }
