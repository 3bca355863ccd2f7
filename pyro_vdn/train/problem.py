"""What a run is trained and tested on: the rows of a task, in standard units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vdn.datasets import (
    DATASETS,
    SERIES_NAMES,
    UCI_NAMES,
    Standardizer,
    Table,
    Windows,
    forecasting_windows,
    load_series,
    load_uci,
    read_csv_series,
    read_csv_table,
    standardize,
    uci_split,
)
from pyro_vdn.datasets.checks import unknown_name
from pyro_vdn.errors import InputError
from pyro_vdn.train.batches import Pair
from pyro_vdn.train.members import Units
from pyro_vdn.train.recipes import ForecastingRecipe, RegressionRecipe

Program = Callable[..., Any]
Recipe = ForecastingRecipe | RegressionRecipe


@dataclass(frozen=True)
class Source:
    """Where data come from.

    Args:
        data: Name of a data set, or path of a CSV file.
        target: Column to predict (regression), or channels to forecast; empty for all of them.
        split: Which of the standard splits of a table, 0 to 19.
        accept: The consent that some data sets ask for.

    Example:
        >>> Source("energy").is_file
        False
    """

    data: str
    target: tuple[str, ...] = ()
    split: int = 0
    accept: str | None = None

    @property
    def is_file(self) -> bool:
        """Whether the data are a user's file."""
        return self.data not in DATASETS

    @property
    def name(self) -> str:
        """Name of the data, without folder and ending."""
        return Path(self.data).name.split(".")[0]

    def to_dict(self) -> dict[str, Any]:
        """Return the source, ready for JSON."""
        return {**asdict(self), "target": list(self.target)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Source:
        """Return the source that `to_dict` described."""
        return cls(**{**values, "target": tuple(values["target"])})


@dataclass(frozen=True, eq=False)
class Scaling:
    """How columns were standardised; a run needs it to predict.

    Args:
        names: A name per column.
        mean: Mean of each column, `(columns,)`.
        scale: Standard deviation of each column, `(columns,)`.

    Example:
        >>> Scaling.from_dict(Scaling(("a",), torch.zeros(1), torch.ones(1)).to_dict()).names
        ('a',)
    """

    names: tuple[str, ...]
    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, names: Sequence[str], standardizer: Standardizer) -> Scaling:
        """Name the columns of a standardizer."""
        return cls(tuple(names), standardizer.mean, standardizer.scale)

    def to_dict(self) -> dict[str, Any]:
        """Return names and numbers, ready for JSON; single precision survives exactly."""
        return {
            "names": list(self.names),
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Scaling:
        """Return the scaling that `to_dict` described."""
        columns = (torch.tensor(values[name], dtype=torch.float32) for name in ("mean", "scale"))
        return cls(tuple(values["names"]), *columns)


@dataclass(frozen=True, eq=False)
class Problem:
    """The rows of a task in standard units.

    Args:
        recipe: How a model of it is made and trained.
        source: Where the data come from.
        train: Inputs and targets to fit on.
        validation: Inputs and targets to choose by.
        test: Inputs and targets to report on.
        labels: A name per test row.
        inputs: How the inputs were standardised.
        targets: How the targets were standardised; for series the same as the inputs.
        column: Which column of `targets` each test row belongs to, `(rows,)`.
        blocks: Which block each test row is in, from 0, `(rows,)`: windows that begin within one
            horizon overlap, and channels share their time; rows of tables are blocks of their own.
        tested_on: What is reported on, in words.
        independent: About how many test rows do not overlap, for the bands of calibration plots.
    """

    recipe: Recipe
    source: Source
    train: Pair
    validation: Pair
    test: Pair
    labels: tuple[str, ...]
    inputs: Scaling
    targets: Scaling
    column: Tensor
    blocks: Tensor
    tested_on: str
    independent: int

    def build_model(self, seed: int, *, units: Units = "neurons") -> Program:
        """Make a fresh model for these rows; all twins have the same initial weights."""
        return build_model(self.recipe, len(self.inputs.names), seed, units=units)


def build_model(recipe: Recipe, num_inputs: int, seed: int, *, units: Units = "neurons") -> Program:
    """Make a fresh model by a recipe.

    Args:
        recipe: The recipe.
        num_inputs: Number of features of a table; of no account for series.
        seed: Seed of the initial weights.
        units: What the hidden units are.

    Returns:
        The program, with its effects.
    """
    if isinstance(recipe, ForecastingRecipe):
        return recipe.build_model(seed, units=units)
    return recipe.build_model(num_inputs, seed, units=units)


def load_problem(source: Source, recipe: Recipe) -> Problem:
    """Load, split and standardise the data of a run.

    Args:
        source: Where the data come from.
        recipe: The recipe, which says how windows are cut or rows are held out.

    Returns:
        The rows.

    Raises:
        InputError: For an unknown data set, one of another task, a missing target, a file that
            cannot be read, or data that are too few, constant or not finite.

    Example:
        >>> problem = load_problem(Source("energy"), RegressionRecipe())
        >>> [len(part[0]) for part in (problem.train, problem.validation, problem.test)]
        [622, 69, 77]
    """
    _check_source(source, recipe.task)
    if isinstance(recipe, ForecastingRecipe):
        return _forecasting(source, recipe)
    return _regression(source, recipe)


def _check_source(source: Source, task: str) -> None:
    known = SERIES_NAMES if task == "forecasting" else UCI_NAMES
    if not source.is_file:
        if source.data not in known:
            raise InputError(
                f"data {source.data!r}",
                expected=f"data for {task}: one of {', '.join(known)}, or a CSV file",
                got=f"data for {DATASETS[source.data].task}",
                hint=f"pyro-vdn fit {DATASETS[source.data].task} --data {source.data}",
            )
        if task == "regression" and source.target:
            raise InputError(
                "target",
                expected="none for a benchmark table, which has its own",
                got=repr(source.target[0]),
                hint="leave --target out, or give a CSV file",
            )
        return
    is_path = any(mark in source.data for mark in ("/", "\\", ".")) or Path(source.data).exists()
    if not is_path:
        raise unknown_name("data set", source.data, known)
    if task == "regression" and len(source.target) != 1:
        raise InputError(
            "target",
            expected="one column of the CSV file to predict",
            got=f"{len(source.target)}",
            hint="--target COLUMN, a name in the file's header",
        )


def _forecasting(source: Source, recipe: ForecastingRecipe) -> Problem:
    if source.is_file:
        series = read_csv_series(source.data, list(source.target) or None)
    else:
        series = load_series(source.data)
    windows = forecasting_windows(
        series,
        input_length=recipe.input_length,
        horizon=recipe.horizon,
        channels=list(source.target) or "all",
    )
    rows = _every(windows.test, recipe.test_every)
    names = windows.test.names
    scaling = Scaling.of(names, windows.standardizer)
    count = len(windows.test) // len(names)
    tested = len(rows) // len(names)
    which = "all" if recipe.test_every == 1 else f"every {recipe.test_every}th of the"
    return Problem(
        recipe=recipe,
        source=source,
        train=windows.train.tensors(),
        validation=windows.validation[_every(windows.validation, recipe.validation_every)],
        test=windows.test[rows],
        labels=tuple(
            f"{names[channel]}, forecast from row {start}"
            for channel, start in zip(
                windows.test.channel[rows].tolist(),
                windows.test.target_start[rows].tolist(),
                strict=True,
            )
        ),
        inputs=scaling,
        targets=scaling,
        column=windows.test.channel[rows],
        blocks=torch.arange(len(rows)) // len(names) * recipe.test_every // recipe.horizon,
        tested_on=f"{which} {count:,} test windows x {len(names)} channels "
        f"({tested * len(names):,} rows), {recipe.input_length} -> {recipe.horizon} steps",
        independent=len(names) * max(1, count // recipe.horizon),
    )


def _regression(source: Source, recipe: RegressionRecipe) -> Problem:
    table: Table
    if source.is_file:
        table = read_csv_table(source.data, source.target[0])
    else:
        table = load_uci(source.data, accept=source.accept)
    split = standardize(uci_split(table, source.split, validation=recipe.validation))
    assert split.validation is not None
    count = len(split.test)
    return Problem(
        recipe=recipe,
        source=source,
        train=(split.train.features, split.train.target),
        validation=(split.validation.features, split.validation.target),
        test=(split.test.features, split.test.target),
        labels=tuple(f"test row {row}" for row in range(count)),
        inputs=Scaling.of(table.feature_names, split.features),
        targets=Scaling.of((table.target_name,), split.target),
        column=torch.zeros(count, dtype=torch.long),
        blocks=torch.arange(count),
        tested_on=f"{count:,} test rows of split {source.split}",
        independent=count,
    )


def _every(windows: Windows, step: int) -> Tensor:
    """Return the rows of every n-th window, all channels, `(rows,)`."""
    number = torch.arange(len(windows)) // len(windows.names)
    return torch.nonzero(number % step == 0).squeeze(-1)
