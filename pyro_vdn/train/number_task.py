"""Runs on numbers, tables and series: how they are loaded, trained, scored and drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyro

from pyro_vdn.diagnostics import save_netcdf
from pyro_vdn.errors import InputError
from pyro_vdn.train.draws import draws_to_arviz
from pyro_vdn.train.evaluate import Evaluation, evaluate_pooled
from pyro_vdn.train.members import Units
from pyro_vdn.train.pictures import picture_rows, save_pictures
from pyro_vdn.train.problem import Problem, Recipe, build_model, load_problem
from pyro_vdn.train.row_scores import standard_errors
from pyro_vdn.train.run_config import RunConfig
from pyro_vdn.train.run_folder import DRAWS, read_config
from pyro_vdn.train.tasks import Fitted, Plan, Task

Program = Callable[..., Any]
_EVALUATION_BATCH = 512
_EVALUATION_SEED = 7
_DRAWN_ROWS = 24


def plan(problem: Problem, seed: int, units: Units) -> Plan:
    """Return what `fit` is to be given for a problem."""
    recipe = problem.recipe
    return Plan(problem.build_model(seed, units=units), recipe.loss(), recipe.options(seed))


def build(config: RunConfig, units: Units, step: int | None) -> Program:
    """Make a fresh model of a run; the steps taken are of no account."""
    return build_model(config.recipe, len(config.inputs.names), config.seed, units=units)


def score(models: Sequence[Fitted], problem: Problem) -> Evaluation:
    """Score a model or an ensemble on the test rows, with the same noise every time."""
    pyro.set_rng_seed(_EVALUATION_SEED)
    found = evaluate_pooled(
        models,
        *problem.test,
        num_samples=problem.recipe.num_samples,
        batch_size=_EVALUATION_BATCH,
    )
    return replace(found, standard_errors=standard_errors(found.rows, problem.blocks))


def write_artefacts(
    folder: Path, model: Program, guide: Program, problem: Problem, scored: Evaluation
) -> None:
    """Write draws and pictures of the neurons."""
    pyro.set_rng_seed(_EVALUATION_SEED)
    draws = draws_to_arviz(
        model,
        guide,
        problem,
        scored.layers,
        picture_rows(problem, _DRAWN_ROWS),
        seed=_EVALUATION_SEED,
        config=read_config(folder).to_dict(),
    )
    save_netcdf(draws, folder / DRAWS)
    save_pictures(folder, model, guide, problem, scored)


def load_again(config: RunConfig, recipe: Recipe) -> Problem:
    """Load the data of a run once more, refusing data that have changed."""
    problem = load_problem(config.source, recipe)
    for now, before in ((problem.inputs, config.inputs), (problem.targets, config.targets)):
        if now.to_dict() != before.to_dict():
            raise InputError(
                f"data {config.source.data!r}",
                expected="the data that the run was trained on",
                got="others: their columns, means or scales differ",
                hint="restore the file as it was, or train a new run",
            )
    return problem


TASK = Task(
    load=load_problem,
    configure=RunConfig.of,
    read=RunConfig.from_dict,
    load_again=load_again,
    plan=plan,
    build=build,
    score=score,
    write=write_artefacts,
)
