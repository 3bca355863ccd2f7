"""A whole run: train neurons and references, score all, write everything into a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pyro_vdn.errors import RunFolderError
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.train.files import read_json, write_json
from pyro_vdn.train.fit import FitResult, fit
from pyro_vdn.train.members import NEURONS, Member, method_label
from pyro_vdn.train.resume import check_folder, last_of_run
from pyro_vdn.train.run_folder import (
    METRICS,
    TRAINING,
    load_models,
    read_config,
    save_model,
    write_config,
)
from pyro_vdn.train.tasks import Config, Problem, Scored, task_of


@dataclass(frozen=True)
class RunReport:
    """What a run came to.

    Args:
        folder: Where everything is.
        task: ``"forecasting"``, ``"regression"`` or ``"language"``.
        data: Name of the data.
        tested_on: What the scores were measured on, in words.
        models: Scores by method, ``"neurons"`` first: what `Metrics` or `LanguageMetrics` hold, a
            standard error such as ``"nll_se"`` for some of them, the number of ``"networks"``, and
            how these were trained.

    Example:
        >>> RunReport(Path("runs/a"), "regression", "energy", "77 rows", {"neurons": {}}).data
        'energy'
    """

    folder: Path
    task: str
    data: str
    tested_on: str
    models: dict[str, dict[str, Any]]


class Interrupted(Exception):  # noqa: N818 - not an error
    """Ctrl-C ended training; the best checkpoint so far was kept.

    Args:
        folder: The run's folder.
        kept: File of the best weights, or None where there was no evaluation yet.
    """

    def __init__(self, folder: Path, kept: Path | None) -> None:
        super().__init__(f"interrupted; {'kept ' + str(kept) if kept else 'nothing to keep yet'}")
        self.folder = folder
        self.kept = kept


def start_run(source: Any, recipe: Any, seed: int, folder: Path) -> tuple[Problem, Config]:
    """Load the data of a new run and write its configuration.

    Args:
        source: Where the data come from.
        recipe: Every hyper-parameter.
        seed: Seed of the run.
        folder: Its folder, empty or new.

    Returns:
        The problem and its configuration.

    Raises:
        RunFolderError: If the folder is not empty; nothing is loaded then.
        InputError: If the data or sizes are not what they should be; nothing is written then.
    """
    check_folder(folder)
    task = task_of(recipe.task)
    problem: Problem = task.load(source, recipe)
    config = task.configure(problem, seed)
    task.build(
        config, "neurons", None
    )  # sizes that do not fit are refused before anything is written
    write_config(folder, config)
    return problem, config


def resume_run(folder: Path) -> tuple[Problem, Config]:
    """Load the problem of a run that was interrupted.

    Args:
        folder: Its folder.

    Returns:
        The problem and its configuration.

    Raises:
        RunFolderError: If the folder holds no run, or one that is complete.
    """
    config = read_config(folder)
    if (folder / METRICS).exists():
        raise RunFolderError(
            f"{folder}: expected an interrupted run, got one that is complete. "
            f"Try: pyro-vdn evaluate {folder}, or another --out."
        )
    return task_of(config.recipe.task).load_again(config, config.recipe), config


def complete_run(
    problem: Problem,
    config: Config,
    folder: Path,
    *,
    progress: bool = True,
    say: Callable[[str], None] = lambda message: None,
) -> RunReport:
    """Train what is not trained yet, score it and write the run folder.

    Args:
        problem: The data.
        config: The configuration, whose recipe says what the neurons are compared with.
        folder: The run's folder; checkpoints in it are continued from.
        progress: Whether to show progress bars on a terminal.
        say: Told what is going on.

    Returns:
        The scores; ``metrics.json``, weights, draws and pictures are in the folder.

    Raises:
        Interrupted: After Ctrl-C in training, with the best weights written.
    """
    task, recipe = task_of(problem.recipe.task), config.recipe
    models = dict[str, dict[str, Any]]()
    for method in recipe.methods:
        results = []
        for member in recipe.members(method):
            say(f"training the {member.label}")
            results.append(_train(problem, config, folder, member, progress))
        say(f"scoring the {method_label(method)} on {problem.tested_on}")
        fitted = [(result.model, result.guide) for result in results]
        scored = task.score(fitted, problem)
        models[method] = _figures(method, scored, len(fitted)) | _trained(results)
        if method == NEURONS:
            say("writing draws and pictures")
            task.write(folder, *fitted[0], problem, scored)
    report = RunReport(folder, recipe.task, problem.source.name, problem.tested_on, models)
    write_metrics(report)
    return report


def _train(
    problem: Problem, config: Config, folder: Path, member: Member, progress: bool
) -> FitResult:
    place = folder / TRAINING / member.name
    plan = task_of(problem.recipe.task).plan(problem, member.seed(config.seed), member.units)
    result = fit(
        plan.model,
        problem.train,
        problem.validation,
        guide=NeuronGuide(plan.model),
        loss=plan.loss,
        options=plan.options,
        callbacks=plan.callbacks,
        folder=place,
        resume=last_of_run(place),
        progress=f"{member.name:<10}" if progress else False,
    )
    if result.best_step is not None:
        save_model(folder, plan.model, member, step=result.best_step)
    if result.interrupted:
        raise Interrupted(folder, None if result.best_step is None else folder / member.file)
    return result


def _figures(method: str, scored: Scored, networks: int) -> dict[str, Any]:
    """Return scores and their standard errors by name; only neurons have a KL."""
    figures: dict[str, Any] = {**scored.metrics.to_dict(), "networks": networks}
    figures |= {f"{name}_se": value for name, value in scored.standard_errors.items()}
    if method != NEURONS:
        figures |= {"kl_per_unit": None, "active_share": None}
    return figures


def _trained(results: Sequence[FitResult]) -> dict[str, Any]:
    """Return how the networks of a method were trained: one by itself, or an ensemble's members."""
    seconds = sum(result.seconds for result in results)
    each = [
        {
            "steps": result.steps,
            "best_step": result.best_step,
            "validation_nll": result.validation_nll,
        }
        for result in results
    ]
    if len(each) == 1:
        return each[0] | {"training_seconds": seconds}
    return {"members": each, "training_seconds": seconds}


def write_metrics(report: RunReport) -> None:
    """Write the scores of a run."""
    content = {
        "task": report.task,
        "data": report.data,
        "tested_on": report.tested_on,
        "models": report.models,
    }
    write_json(report.folder / METRICS, content)


def rescore_run(folder: Path, *, every_window: bool = False) -> RunReport:
    """Score the models of a run anew, from its weights and data, writing nothing.

    Args:
        folder: The run's folder.
        every_window: Whether to score all test windows or blocks where the run took every n-th.

    Returns:
        The scores.

    Raises:
        RunFolderError: If the folder holds no run, or its files are damaged.
        InputError: If the data have changed or are gone.
    """
    config = read_config(folder)
    recipe = config.recipe
    if every_window and hasattr(recipe, "test_every"):
        recipe = replace(recipe, test_every=1)
    loaded = load_models(folder, config)
    task = task_of(recipe.task)
    problem = task.load_again(config, recipe)
    known = read_json(folder / METRICS)["models"] if (folder / METRICS).exists() else {}
    models = {
        method: known.get(method, {}) | _figures(method, task.score(fitted, problem), len(fitted))
        for method, fitted in loaded.items()
    }
    return RunReport(folder, recipe.task, config.source.name, problem.tested_on, models)
