"""A whole run: train the neurons and their twin, score both, write everything into a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pyro_vdn.errors import RunFolderError
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.train.files import read_json, write_json
from pyro_vdn.train.fit import FitResult, fit
from pyro_vdn.train.resume import check_folder
from pyro_vdn.train.run_folder import (
    METRICS,
    MODEL,
    TRAINING,
    TWIN,
    load_model,
    read_config,
    save_model,
    write_config,
)
from pyro_vdn.train.tasks import Config, Problem, task_of


@dataclass(frozen=True)
class Scored:
    """One of the models of a run with its scores.

    Args:
        metrics: Its scores on the test part, by name.
        steps: Steps it was trained for.
        best_step: Step of the checkpoint that was kept.
        validation_nll: Its validation NLL.
        training_seconds: Wall time of its training, of the last call where it was resumed.

    Example:
        >>> Scored({"nll": 0.3}, 900, 600, 0.3, 20.0).to_dict()["best_step"]
        600
    """

    metrics: dict[str, Any]
    steps: int
    best_step: int | None
    validation_nll: float | None
    training_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return everything by name, ready for JSON."""
        return {
            **self.metrics,
            "steps": self.steps,
            "best_step": self.best_step,
            "validation_nll": self.validation_nll,
            "training_seconds": self.training_seconds,
        }


@dataclass(frozen=True)
class RunReport:
    """What a run came to.

    Args:
        folder: Where everything is.
        task: ``"forecasting"``, ``"regression"`` or ``"language"``.
        data: Name of the data.
        tested_on: What the scores were measured on, in words.
        models: Scores by model: ``"neurons"`` and ``"twin"``.

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
    task.build(config, False, None)  # sizes that do not fit are refused before anything is written
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
    twin: bool = True,
    progress: bool = True,
    say: Callable[[str], None] = lambda message: None,
) -> RunReport:
    """Train what is not trained yet, score it and write the run folder.

    Args:
        problem: The data.
        config: The configuration.
        folder: The run's folder; checkpoints in it are continued from.
        twin: Whether to train the deterministic twin too.
        progress: Whether to show progress bars on a terminal.
        say: Told what is going on.

    Returns:
        The scores; ``metrics.json``, weights, draws and pictures are in the folder.

    Raises:
        Interrupted: After Ctrl-C in training, with the best weights written.
    """
    task, models = task_of(problem.recipe.task), dict[str, dict[str, Any]]()
    for name in ("neurons", "twin") if twin else ("neurons",):
        say(f"training the {_LONG[name]}")
        result = _train(problem, config, folder, name, progress)
        say(f"scoring the {_LONG[name]} on {problem.tested_on}")
        scored = task.score(result.model, result.guide, problem)
        figures = scored.metrics.to_dict()
        models[name] = Scored(
            figures, result.steps, result.best_step, result.validation_nll, result.seconds
        ).to_dict()
        if name == "neurons":
            say("writing draws and pictures")
            task.write(folder, result.model, result.guide, problem, scored)
    report = RunReport(folder, problem.recipe.task, problem.source.name, problem.tested_on, models)
    write_metrics(report)
    return report


_LONG = {"neurons": "distributional neurons", "twin": "deterministic twin"}
_FILES = {"neurons": MODEL, "twin": TWIN}


def _train(problem: Problem, config: Config, folder: Path, name: str, progress: bool) -> FitResult:
    place = folder / TRAINING / name
    last = place / "last.safetensors"
    plan = task_of(problem.recipe.task).plan(problem, config.seed, name == "twin")
    result = fit(
        plan.model,
        problem.train,
        problem.validation,
        guide=NeuronGuide(plan.model),
        loss=plan.loss,
        options=plan.options,
        callbacks=plan.callbacks,
        folder=place,
        resume=last if last.exists() else None,
        progress=f"{name:<7}" if progress else False,
    )
    if result.best_step is not None:
        save_model(folder, plan.model, twin=name == "twin", step=result.best_step)
    if result.interrupted:
        raise Interrupted(folder, None if result.best_step is None else folder / _FILES[name])
    return result


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
    loaded = {"neurons": load_model(folder, config)}
    if (folder / TWIN).exists():
        loaded["twin"] = load_model(folder, config, twin=True)
    task = task_of(recipe.task)
    problem = task.load_again(config, recipe)
    known = read_json(folder / METRICS)["models"] if (folder / METRICS).exists() else {}
    models = {}
    for name, (model, guide) in loaded.items():
        models[name] = {
            **known.get(name, {}),
            **task.score(model, guide, problem).metrics.to_dict(),
        }
    return RunReport(folder, recipe.task, config.source.name, problem.tested_on, models)
