"""Benchmark: does control help or hurt prediction? Regimes of control on tables and a series."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyro
from torch import nn

from pyro_vdn.bench.results import environment
from pyro_vdn.bench.training import train
from pyro_vdn.control import (
    Controller,
    FreeBits,
    Thermostat,
    homeostatic,
    projection_on,
)
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.poutine import kl_weight
from pyro_vdn.train import evaluate
from pyro_vdn.train.problem import Problem, Recipe, Source, load_problem
from pyro_vdn.train.recipes import ForecastingRecipe, RegressionRecipe

COLUMNS = {
    "nll": "NLL",
    "crps": "CRPS",
    "joint_nll": "joint NLL",
    "kl_per_unit": "KL per unit",
    "active_share": "active share",
}
OFF = "off: the recipe"
#: KL weight of the regimes that need one where the recipe has none.
WEIGHT = 1e-2


@dataclass(frozen=True)
class Regime:
    """A way to control a layer, to be compared with none.

    Args:
        name: What tables call it.
        control: From a bare model and the steps of an epoch to its controller; None for none.
        kl: A fixed KL weight; None for the recipe's own.

    Example:
        >>> [regime.name for regime in REGIMES][0]
        'off: the recipe'
    """

    name: str
    control: Callable[[nn.Module, int], Controller] | None = None
    kl: float | None = None

    def recipe(self, recipe: Recipe) -> Recipe:
        """Return the recipe with this regime's KL weight."""
        return recipe if self.kl is None else replace(recipe, kl=self.kl)


def _thermostat(model: nn.Module, epoch: int, **settings: float) -> Controller:
    return Thermostat(model, initial_weight=WEIGHT, **settings)  # type: ignore[arg-type]


REGIMES = (
    Regime(OFF),
    Regime("KL weight 0.01", kl=WEIGHT),
    Regime("projection (projON)", lambda model, epoch: projection_on(model, epoch)),
    Regime("homeostatic", lambda model, epoch: homeostatic(model)),
    Regime("thermostat, 0.05 to 1.5 nat", _thermostat, kl=1.0),
    Regime("thermostat, 0.05 to 6 nat", partial(_thermostat, high=6.0), kl=1.0),
    Regime(
        "free bits, 0.5 nat at KL weight 0.01", lambda model, epoch: FreeBits(model, 0.5), WEIGHT
    ),
)


def bench_control(
    *,
    data: Sequence[str] = ("energy", "concrete", "kin8nm", "etth1"),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    first_split: int = 10,
    regression: RegressionRecipe | None = None,
    forecasting: ForecastingRecipe | None = None,
    on_run: Callable[[dict[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """Train and score the same model under every regime of control.

    Each run differs from the recipe's by its regime alone: same weights at the start, same batches,
    same objective. Seed s of a table takes the standard split `first_split + s`; a series is scored
    on every n-th test window (the recipe's ``test_every``).

    Args:
        data: Names of tables and series.
        seeds: Seeds of weights, batches and noise.
        first_split: Split of the first seed.
        regression: Recipe of the tables; by default `RegressionRecipe()`.
        forecasting: Recipe of the series; by default that of the demonstration.
        on_run: Called with all results so far after every run.

    Returns:
        ``environment``, ``recipes``, ``first_split`` and ``runs``, ready for JSON.
    """
    regression = regression or RegressionRecipe()
    forecasting = forecasting or ForecastingRecipe.demo()
    results: dict[str, Any] = {
        "benchmark": "control",
        "environment": environment(),
        "recipes": {"regression": regression.to_dict(), "forecasting": forecasting.to_dict()},
        "first_split": first_split,
        "runs": [],
    }
    for name in data:
        for run in _runs(name, seeds, first_split, regression, forecasting):
            results["runs"].append(run)
            on_run(results)
    return results


def _runs(
    name: str,
    seeds: Sequence[int],
    first_split: int,
    regression: RegressionRecipe,
    forecasting: ForecastingRecipe,
) -> Iterator[dict[str, Any]]:
    series = name in ("etth1", "etth2", "exchange")
    recipe: Recipe = forecasting if series else regression
    for seed in seeds:
        problem = load_problem(Source(name, split=0 if series else first_split + seed), recipe)
        for regime in REGIMES:
            if regime.control is None and regime.kl == recipe.kl:
                continue  # the recipe itself
            metrics = run_regime(problem, regime, seed)
            yield {"method": regime.name, "data": name, "seed": seed, "metrics": metrics}


def run_regime(problem: Problem, regime: Regime, seed: int) -> dict[str, Any]:
    """Train and score a model of a problem under a regime.

    Args:
        problem: The rows and the recipe.
        regime: The regime.
        seed: Seed of weights, batches and noise.

    Returns:
        Metrics of the test rows by name, with ``train_seconds`` and ``best_step``.
    """
    from pyro_vdn.train import ControlCallback

    problem = replace(problem, recipe=regime.recipe(problem.recipe))
    program = problem.build_model(seed)
    callbacks = []
    if regime.control is not None:
        bare = pyro.poutine.unwrap(program)
        rows, batch = len(problem.train[0]), problem.recipe.batch_size
        controller = regime.control(bare, max(1, rows // batch))
        program = controller.wrap(kl_weight(bare, problem.recipe.kl))
        callbacks.append(ControlCallback(controller))
    result = train(problem, program, seed, f"{regime.name}, seed {seed}", callbacks)
    pyro.set_rng_seed(seed)
    x, y = problem.test
    metrics = evaluate(
        program, NeuronGuide(program), x, y, num_samples=problem.recipe.num_samples
    ).to_dict()
    return metrics | {
        "best_step": result.best_step,
        "validation_nll": result.validation_nll,
        "train_seconds": result.seconds,
    }
