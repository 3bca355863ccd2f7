"""Paired comparison: one value per row and fit, and errors of differences over the same rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_vdn.diagnostics._blocks import block_numbers
from pyro_vdn.errors import InputError

Array = NDArray[np.float64]


class Wording(NamedTuple):
    """What values are called in errors, and what to try.

    Args:
        what: The argument.
        one: One value.
        many: Several of them.
        example: What to pass.
        infinite: What to do about infinite ones.
    """

    what: str
    one: str
    many: str
    example: str
    infinite: str


class Place(NamedTuple):
    """A fit's sum over rows of a value of which more is better, and how far it is behind.

    Args:
        at: Its column.
        total: The sum.
        se: Standard error of the sum.
        behind: The sum of the best less this one, at least 0.
        dse: Standard error of that paired difference.
        lower: Lower end of the interval of `behind`.
        upper: Upper end of it.
    """

    at: int
    total: float
    se: float
    behind: float
    dse: float
    lower: float
    upper: float


@dataclass(frozen=True, eq=False)
class PairedRows:
    """Values of the rows that all fits have.

    Args:
        names: Of the fits.
        values: `(rows, fits)`.
        missing: Number of rows left out.
        members: Number of the block of each row, from 0, `(rows,)`.
        factor: By which squared errors are multiplied.
    """

    names: list[str]
    values: Array
    missing: int
    members: NDArray[np.intp]
    factor: float

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return _count(self.members)

    def ranked(self, level: float, *, more_is_better: bool) -> list[Place]:
        """Return the place of each fit, the best first."""
        values = self.values if more_is_better else -self.values
        totals = values.sum(axis=0)
        order = np.argsort(-totals, kind="stable")
        half_width = NormalDist().inv_cdf(0.5 + level / 2)
        places = []
        for at in order.tolist():
            behind = float(totals[order[0]] - totals[at])
            dse = self._error_of_sum(values[:, order[0]] - values[:, at])
            interval = (behind - half_width * dse, behind + half_width * dse)
            own = (float(totals[at]), self._error_of_sum(values[:, at]))
            places.append(Place(at, *own, behind, dse, *interval))
        return places

    def _error_of_sum(self, values: Array) -> float:
        sums = np.bincount(self.members, values - values.mean())
        return math.sqrt(self.factor * float(np.square(sums).sum()))


def paired_rows(
    columns: Mapping[str, Tensor | ArrayLike],
    blocks: Tensor | ArrayLike | None,
    wording: Wording,
) -> PairedRows:
    """Return the rows that all fits have a value of.

    Args:
        columns: One value per row by name of the fit, `(rows,)`; NaN where it is missing.
        blocks: Labels of rows that depend on each other, `(rows,)`.
        wording: What to call the values in errors.

    Raises:
        InputError: For no fit, unequal numbers of rows, infinite values, or fewer than two rows or
            blocks that all fits have.
    """
    table = _table(columns, wording)
    there = ~np.isnan(table).any(axis=1)
    _, members = np.unique(block_numbers(blocks, len(table))[there], return_inverse=True)
    count = _count(members)
    if count < 2:
        raise InputError(
            wording.what if blocks is None else "blocks",
            expected=f"at least 2 {'rows' if blocks is None else 'blocks'} that all fits have",
            got=str(count),
            hint=f"leave out a fit whose {wording.many} are missing, or compare on more data",
        )
    # ArviZ divides by the number of rows; of few blocks the loss of one would be felt.
    factor = 1.0 if blocks is None else count / (count - 1)
    return PairedRows(list(columns), table[there], int((~there).sum()), members, factor)


def of_rows(rows: int, missing: int, blocks: int) -> str:
    """Say what a table speaks of."""
    said = f"{rows} rows" + (f", {missing} more left out" if missing else "")
    return said if blocks == rows else f"{said}, in {blocks} blocks"


def _count(members: NDArray[np.intp]) -> int:
    return int(members.max(initial=-1)) + 1


def _table(given: Mapping[str, Tensor | ArrayLike], wording: Wording) -> Array:
    """Return values `(rows, fits)`, NaN where they are missing."""
    columns = {name: _column(name, values, wording) for name, values in given.items()}
    if not columns:
        raise InputError(
            wording.what, expected="at least one fit by name", got="none", hint=wording.example
        )
    rows = len(next(iter(columns.values())))
    for name, values in columns.items():
        if len(values) != rows:
            raise InputError(
                f"{wording.what}['{name}']",
                expected=f"{rows} rows, as the first fit has",
                got=str(len(values)),
                hint="evaluate all fits on the same held-out rows; NaN for one that is missing",
            )
    return np.stack(list(columns.values()), axis=1)


def _column(name: str, values: Tensor | ArrayLike, wording: Wording) -> Array:
    plain = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else values
    column = np.array(plain, dtype=np.float64)
    if column.ndim != 1:
        raise InputError(
            f"{wording.what}['{name}']",
            expected=f"one {wording.one} per row, shape (rows,)",
            got=f"shape {column.shape}",
            hint=f"one joint {wording.one} of each row; or flatten, with the rows' numbers as "
            "blocks",
        )
    infinite = np.isinf(column)
    if infinite.any():
        at = int(infinite.argmax())
        raise InputError(
            f"{wording.what}['{name}']",
            expected=f"finite {wording.many}, or NaN for a missing row",
            got=f"{column[at]} at {at}",
            hint=wording.infinite,
        )
    return column
