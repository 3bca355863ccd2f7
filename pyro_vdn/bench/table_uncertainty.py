"""Benchmark: uncertainty on tables, before and after recalibration, beside all references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_vdn.bench.results import environment
from pyro_vdn.bench.training import train
from pyro_vdn.decision import aurc
from pyro_vdn.diagnostics import (
    SplitConformal,
    VarianceScaling,
    central_interval,
    coverage,
    crps_draws,
    interval_score,
    interval_width,
)
from pyro_vdn.diagnostics.scoring.intervals import Interval
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.infer import Prediction, pooled, predict
from pyro_vdn.train.evaluate import as_prediction, predictive
from pyro_vdn.train.members import method_label
from pyro_vdn.train.problem import Problem, Source, load_problem
from pyro_vdn.train.recipes import RegressionRecipe

COLUMNS = {
    "nll": "NLL",
    "crps": "CRPS",
    "coverage": "90 % interval holds",
    "coverage_scaled": "… after variance scaling",
    "coverage_conformal": "… after conformal",
    "score": "interval score",
    "score_conformal": "… after conformal",
    "width_conformal": "width after conformal",
    "aurc": "AURC of the squared error",
}
LEVEL = 0.9
RECIPE = RegressionRecipe(
    validation=0.2, references=("twin", "dropout", "ensemble"), ensemble_size=5
)
"""A fifth of the rows is held out of training: half chooses the checkpoint, half calibrates."""
_SEED = 7


def bench_tables(
    *,
    data: Sequence[str] = ("energy", "concrete"),
    splits: Sequence[int] = tuple(range(5)),
    recipe: RegressionRecipe = RECIPE,
    on_run: Callable[[dict[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """Train neurons and every reference on standard splits; recalibrate each, score it on the test.

    Of the rows held out of training one half chooses the checkpoint and the other calibrates, so
    that calibration and test rows are exchangeable and the conformal guarantee holds.

    Args:
        data: Names of UCI tables.
        splits: Which standard splits, 0 to 19.
        recipe: Hyper-parameters, and the references.
        on_run: Called with all results so far after every run.

    Returns:
        ``environment``, ``recipe`` and ``runs``, ready for JSON.
    """
    results: dict[str, Any] = {
        "benchmark": "uncertainty",
        "environment": environment(),
        "recipe": recipe.to_dict(),
        "level": LEVEL,
        "runs": [],
    }
    for name in data:
        for split in splits:
            problem, calibration = _halved(load_problem(Source(name, split=split), recipe))
            for method in recipe.methods:
                metrics = _run(problem, calibration, method)
                count = len(recipe.members(method))
                about = {"data": name, "split": split, "method": method_label(method, count)}
                results["runs"].append(about | {"metrics": metrics})
                on_run(results)
    return results


def _halved(problem: Problem) -> tuple[Problem, tuple[Tensor, Tensor]]:
    """Keep every other row held out of training for calibration."""
    x, y = problem.validation
    return replace(problem, validation=(x[::2], y[::2])), (x[1::2], y[1::2])


def _run(
    problem: Problem, calibration: tuple[Tensor, Tensor], method: str
) -> dict[str, float | int]:
    recipe = problem.recipe
    models = []
    for member in recipe.members(method):
        seed = member.seed(problem.source.split)
        model = problem.build_model(seed, units=member.units)
        train(problem, model, seed, f"{problem.source.name} {problem.source.split} {member.name}")
        models.append(model)
    pyro.set_rng_seed(_SEED)
    held, test = (
        pooled([_predict(model, x, y, recipe.num_samples * 4 // len(models)) for model in models])
        for x, y in (calibration, problem.test)
    )
    return score_prediction(held, calibration[1], test, problem.test[1])


def _predict(model: Any, x: Tensor, y: Tensor, num_samples: int) -> Prediction:
    """Predict with the closed form where there is one."""
    found = predict(model, NeuronGuide(model), x, y=y, num_samples=num_samples)
    return as_prediction(predictive(found))


def score_prediction(
    held: Prediction, held_target: Tensor, test: Prediction, target: Tensor
) -> dict[str, float]:
    """Score a prediction of test rows, as it is and recalibrated on held-out rows.

    Args:
        held: Prediction of the rows that calibrate.
        held_target: Their targets, `(rows, outputs)`.
        test: Prediction of the test rows, with densities.
        target: Their targets, `(rows, outputs)`.

    Returns:
        Scores by name, in standard units.

    Example:
        >>> draws = torch.randn(200, 60, 1)
        >>> fair = Prediction(draws, torch.zeros(60, 1), torch.zeros(60))
        >>> scores = score_prediction(fair, torch.randn(60, 1), fair, torch.randn(60, 1))
        >>> 0.7 < scores["coverage_conformal"] <= 1.0
        True
    """
    assert test.log_prob_joint is not None
    raw = central_interval(test.draws, LEVEL)
    # By the CRPS of draws: the variance of heavy tails says little of how wide an interval is.
    scaling = VarianceScaling.fit_draws(held.draws, held_target)
    conformal = SplitConformal.fit(*central_interval(held.draws, LEVEL), held_target, LEVEL)
    safe = conformal.apply(*raw)
    risk = (test.mean - target).square().mean(-1)
    return {
        "nll": -float(test.log_prob_joint.mean()),
        "crps": float(crps_draws(test.draws, target, fair=True).mean()),
        "coverage": _coverage(raw, target),
        "coverage_scaled": float(coverage(scaling.apply(test.draws), target, LEVEL)),
        "coverage_conformal": _coverage(safe, target),
        "score": float(interval_score(*raw, target, LEVEL).mean()),
        "score_conformal": float(interval_score(*safe, target, LEVEL).mean()),
        "width": float(interval_width(test.draws, LEVEL).mean()),
        "width_conformal": float((safe.upper - safe.lower).mean()),
        "aurc": aurc(test.variance.mean(-1), risk),
    }


def _coverage(interval: Interval, target: Tensor) -> float:
    inside = (interval.lower <= target) & (target <= interval.upper)
    return float(inside.to(torch.float64).mean())
