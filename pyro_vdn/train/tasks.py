"""What a run has to know of its task: one table that a new task adds a line to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from pyro.infer import ELBO

from pyro_vdn.train.batches import Pair
from pyro_vdn.train.members import Units
from pyro_vdn.train.options import FitOptions

Program = Callable[..., Any]
Fitted = tuple[Program, Program]
"""A program with its effects, and its guide."""

FORMAT = "pyro-vdn run 1"
"""What a run's configuration says of its format."""

_MODULES = {"forecasting": "number_task", "regression": "number_task", "language": "language_task"}


class Config(Protocol):
    """What reproduces a run of any task.

    Example:
        >>> from pyro_vdn.train.problem import Source
        >>> from pyro_vdn.train.recipes import RegressionRecipe
        >>> task = task_of("regression")
        >>> config: Config = task.configure(task.load(Source("energy"), RegressionRecipe()), 3)
        >>> config.seed
        3
    """

    @property
    def source(self) -> Any:
        """Where the data come from."""
        ...

    @property
    def recipe(self) -> Any:
        """Every hyper-parameter."""
        ...

    @property
    def seed(self) -> int:
        """Seed of weights, batches and noise."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration, ready for JSON."""
        ...


class Problem(Protocol):
    """The data of a run of any task.

    Example:
        >>> from pyro_vdn.train.problem import Source
        >>> from pyro_vdn.train.recipes import RegressionRecipe
        >>> problem: Problem = task_of("regression").load(Source("energy"), RegressionRecipe())
        >>> problem.tested_on
        '77 test rows of split 0'
    """

    @property
    def recipe(self) -> Any:
        """How a model is made and trained."""
        ...

    @property
    def source(self) -> Any:
        """Where the data come from."""
        ...

    @property
    def train(self) -> Pair:
        """Inputs and targets to fit on."""
        ...

    @property
    def validation(self) -> Pair:
        """Inputs and targets to choose by."""
        ...

    @property
    def tested_on(self) -> str:
        """What is reported on, in words."""
        ...


@dataclass(frozen=True)
class Plan:
    """What `fit` is to be given.

    Args:
        model: A fresh program with its effects.
        loss: The objective.
        options: The numbers of the run.
        callbacks: Callbacks, such as what anneals an effect.

    Example:
        >>> Plan(None, None, FitOptions(max_steps=5)).callbacks
        ()
    """

    model: Program
    loss: ELBO
    options: FitOptions
    callbacks: tuple[Any, ...] = ()


class Scored(Protocol):
    """What scoring a model, or an ensemble of them, gives.

    Example:
        >>> from pyro_vdn.train.evaluate import Evaluation, Metrics
        >>> metrics = Metrics(0.1, 0.2, 0.3, 0.3, 0.1, 0.9, 0.1, None, None, 10, 1.0)
        >>> scored: Scored = Evaluation(metrics, None, {})
        >>> scored.metrics.to_dict()["mse"]
        0.1
    """

    @property
    def metrics(self) -> Any:
        """The scores, with a ``to_dict`` for JSON."""
        ...

    @property
    def standard_errors(self) -> Mapping[str, float]:
        """Standard errors of some of the scores, over what is independent, by their names."""
        ...


@dataclass(frozen=True)
class Task:
    """The functions of a task. Problems and configurations are the task's own.

    Args:
        load: From source and recipe to the problem.
        configure: From problem and seed to the configuration.
        read: From what the configuration wrote to the configuration.
        load_again: From configuration and recipe to the problem, refused where the data changed.
        plan: From problem, seed and what the units are to what `fit` is given.
        build: From configuration, what the units are, and the steps taken to a fresh program.
        score: From programs with their guides, of which an ensemble has several, and problem to
            scores, with the same noise every time.
        write: Writes draws or pictures: folder, program, guide, problem, scores.

    Example:
        >>> task_of("regression").load.__name__
        'load_problem'
    """

    load: Callable[[Any, Any], Any]
    configure: Callable[[Any, int], Config]
    read: Callable[[dict[str, Any]], Config]
    load_again: Callable[[Any, Any], Any]
    plan: Callable[[Any, int, Units], Plan]
    build: Callable[[Any, Units, int | None], Program]
    score: Callable[[Sequence[Fitted], Any], Any]
    write: Callable[[Path, Program, Program, Any, Any], None]


def task_of(name: str) -> Task:
    """Return the functions of a task.

    Args:
        name: Its name, as recipes have it.

    Raises:
        KeyError: For another name.
    """
    task: Task = import_module(f"pyro_vdn.train.{_MODULES[name]}").TASK
    return task
