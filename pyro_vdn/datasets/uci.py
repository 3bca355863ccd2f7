"""The UCI regression benchmark: its tables and its standard splits."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyro_vdn.datasets.cache import read_dataset
from pyro_vdn.datasets.checks import unknown_name
from pyro_vdn.datasets.table import Split, Table
from pyro_vdn.errors import InputError

NUM_SPLITS = 20

# One name per column of the file; the last column is the target in every published index file.
_COLUMNS = {
    "energy": "compactness surface wall roof height orientation glazing glazing_layout "
    "heating_load",
    "boston": "CRIM ZN INDUS CHAS NOX RM AGE DIS RAD TAX PTRATIO B LSTAT MEDV",
    "concrete": "cement slag fly_ash water superplasticizer coarse fine age strength",
    "kin8nm": "theta1 theta2 theta3 theta4 theta5 theta6 theta7 theta8 distance",
    "power": "temperature vacuum pressure humidity power",
    "wine": "fixed_acidity volatile_acidity citric_acid residual_sugar chlorides free_sulfur "
    "total_sulfur density pH sulphates alcohol quality",
    "yacht": "buoyancy prismatic length_displacement beam_draught length_beam froude resistance",
}
UCI_NAMES: tuple[str, ...] = tuple(_COLUMNS)


class SplitRows(NamedTuple):
    """Which rows belong to which part of a split.

    Args:
        train: Row indices to fit on, `(num_train,)`.
        validation: Row indices to choose by, `(num_validation,)`, perhaps empty.
        test: Row indices to report on, `(num_test,)`.

    Example:
        >>> [len(rows) for rows in uci_split_rows(768, 0)]
        [691, 0, 77]
    """

    train: Tensor
    validation: Tensor
    test: Tensor


def load_uci(name: str, *, accept: str | None = None, dtype: torch.dtype = torch.float32) -> Table:
    """Load one table of the UCI regression benchmark, in its own units.

    Args:
        name: One of `UCI_NAMES`; `"energy"` ships with the library.
        accept: The consent that `"boston"` asks for.
        dtype: The type of the tensors.

    Returns:
        The table, features `(rows, num_features)` and target `(rows, 1)`.

    Raises:
        InputError: If the name is unknown, or as for `fetch`.

    Example:
        >>> table = load_uci("energy")
        >>> table.features.shape, table.target.shape, table.target_name
        (torch.Size([768, 8]), torch.Size([768, 1]), 'heating_load')
    """
    if name not in _COLUMNS:
        raise unknown_name("UCI data set", name, UCI_NAMES)
    columns = tuple(_COLUMNS[name].split())
    text = read_dataset(name, accept=accept).decode()
    values = torch.as_tensor(np.loadtxt(io.StringIO(text)), dtype=dtype)  # (rows, columns)
    return Table(values[:, :-1], values[:, -1:], columns[:-1], name, columns[-1])


def uci_split(data: Table, split: int, *, validation: float = 0.0) -> Split:
    """Divide a table as the published results do: 90 % train, 10 % test.

    Any table can be split so; for the tables of `load_uci` the rows equal the published ones.

    Args:
        data: The table.
        split: Which split, from 0 to 19.
        validation: The fraction of the training rows to hold out, taken from the end of their
            random order.

    Returns:
        The split, in the units of the table.

    Raises:
        InputError: If there is no such split, the fraction is not in [0, 1), or a part would be
            empty.

    Example:
        >>> split = uci_split(load_uci("energy"), 3)
        >>> len(split.train), split.validation, len(split.test)
        (691, None, 77)
    """
    rows = uci_split_rows(len(data), split, validation=validation)
    held_out = data.select(rows.validation) if len(rows.validation) else None
    return Split(train=data.select(rows.train), validation=held_out, test=data.select(rows.test))


def uci_split_rows(num_rows: int, split: int, *, validation: float = 0.0) -> SplitRows:
    """Draw the rows of a standard split.

    One generator with seed 1 draws a permutation per split, in order; the first
    `round(0.9 * num_rows)` rows of the permutation train.

    Args:
        num_rows: The number of rows to divide.
        split: Which split, from 0 to 19.
        validation: The fraction of the training rows to hold out.

    Returns:
        The row indices, in their random order.

    Raises:
        InputError: If there is no such split, the fraction is not in [0, 1), or a part would be
            empty.

    Example:
        >>> uci_split_rows(10, 0).test
        tensor([5])
    """
    _require_split(split, validation)
    random = np.random.RandomState(1)
    for _ in range(split + 1):
        order = random.permutation(num_rows)
    num_fit = round(0.9 * num_rows)
    num_validation = round(validation * num_fit)
    num_train = num_fit - num_validation
    if num_train < 1 or num_fit == num_rows or (validation > 0 and num_validation < 1):
        raise InputError(
            "table to split",
            expected="enough rows for every part",
            got=f"{num_rows} rows ({num_train} train, {num_validation} validation, "
            f"{num_rows - num_fit} test)",
            hint="more rows (from 5 there is a test row), or another validation fraction",
        )
    permutation = torch.as_tensor(order, dtype=torch.long)  # (num_rows,)
    sizes = [num_train, num_validation, num_rows - num_fit]
    train, held_out, test = torch.split(permutation, sizes)
    return SplitRows(train, held_out, test)


def _require_split(split: int, validation: float) -> None:
    if not 0 <= split < NUM_SPLITS:
        raise InputError(
            "split",
            expected=f"a number from 0 to {NUM_SPLITS - 1}",
            got=str(split),
            hint="0 for a first look; all of them for a published figure",
        )
    if not 0 <= validation < 1:
        raise InputError(
            "validation",
            expected="a fraction of the training rows in [0, 1)",
            got=str(validation),
            hint="0.1",
        )
