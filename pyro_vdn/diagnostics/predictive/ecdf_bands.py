"""Simultaneous bands for the distribution function of uniform values or ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from pyro_vdn.diagnostics._checks import check_level
from pyro_vdn.diagnostics.predictive._uniform_counts import (
    Array,
    Tails,
    checked_values,
    limits,
    probability_below,
    smallest_tail,
    tails,
    widest_tail,
)
from pyro_vdn.errors import InputError

MOST_POINTS = 99
"""Points at which a distribution function is looked at by default: every 1/100."""


@dataclass(frozen=True, eq=False)
class EcdfBand:
    """Where the empirical distribution function of uniform values lies, at all points together.

    Args:
        points: Where it is looked at, rising, in (0, 1), shape `(points,)`. Of `R` ranks, the point
            `j / R` asks for the share of ranks below `j`.
        lower: Lower end at each point, a share, shape `(points,)`.
        upper: Upper end at each point, shape `(points,)`.
        coverage: Exact probability that the whole function of uniform values lies inside: at least
            the level asked for, and hardly more.
        count: Number of independent values behind the function.
        ranks: Number of possible ranks, or None for continuous values.

    Example:
        >>> band = ecdf_band(100)
        >>> even = (np.arange(100) + 0.5) / 100
        >>> band.inside(even), band.inside(even**2)
        (True, False)
    """

    points: Array
    lower: Array
    upper: Array
    coverage: float
    count: int
    ranks: int | None = None

    @property
    def lower_difference(self) -> Array:
        """Lower end less the point itself, `(points,)`."""
        return self.lower - self.points

    @property
    def upper_difference(self) -> Array:
        """Upper end less the point itself, `(points,)`."""
        return self.upper - self.points

    def ecdf(self, values: Tensor | ArrayLike) -> Array:
        """Return the share of values at or below each point (of ranks: below `j`).

        Args:
            values: In [0, 1], or ranks 0, ..., `ranks - 1`; any shape.

        Returns:
            Shares, shape `(points,)`.

        Raises:
            InputError: If there are fewer values than `count`, or one is out of range.
        """
        flat = np.sort(checked_values(values, self.count, self.ranks))
        if self.ranks is None:
            below = np.searchsorted(flat, self.points, side="right")
        else:  # whole numbers: rounding must not move a rank across a point
            below = np.searchsorted(flat, np.rint(self.points * self.ranks), side="left")
        return np.asarray(below / len(flat), dtype=np.float64)

    def difference(self, values: Tensor | ArrayLike) -> Array:
        """Return the empirical distribution function less the uniform one, `(points,)`.

        Above 0 there are too many values below the point.

        Args:
            values: As in :meth:`ecdf`.

        Returns:
            Differences, shape `(points,)`.
        """
        return self.ecdf(values) - self.points

    def inside(self, values: Tensor | ArrayLike) -> bool:
        """Say whether the distribution function of the values stays inside the band everywhere.

        Args:
            values: As in :meth:`ecdf`.

        Returns:
            Whether it does; of uniform values, with probability `coverage`.
        """
        share, slack = self.ecdf(values), 1e-12
        return bool(((self.lower - slack <= share) & (share <= self.upper + slack)).all())

    def p_value(self, values: Tensor | ArrayLike) -> float:
        """Return how often uniform values have a distribution function that strays as far.

        How far is measured by the smallest tail probability over all points. A function leaves the
        band exactly if this is at most one less `coverage`.

        Args:
            values: As in :meth:`ecdf`. If more than `count` (because they depend on each other),
                their shares are taken for those of `count` values.

        Returns:
            Exact probability for `count` independent uniform values.
        """
        at = self.count * self.ecdf(values)
        table = _tails(self.count, self.points)
        least = smallest_tail(table, np.floor(at + 1e-9), np.ceil(at - 1e-9))
        inside = probability_below(self.count, self.points, *limits(table, least))
        return min(1.0, max(0.0, 1.0 - inside))


def ecdf_band(
    count: int, *, level: float = 0.95, ranks: int | None = None, points: int | None = None
) -> EcdfBand:
    r"""Band the empirical distribution function of uniform values at all points together.

    .. math:: l_i = \min \{k : P(X_i \le k) > \gamma\}, \quad
        u_i = \max \{k : P(X_i \ge k) > \gamma\}, \qquad X_i \sim \mathrm{Binomial}(n, z_i)

    with the largest tail :math:`\gamma` for which all counts below the points :math:`z_i` stay
    between :math:`l_i` and :math:`u_i` with a probability of at least `level`. That probability is
    computed exactly, by a recursion over the points, not simulated.

    Values must be independent. The transforms of overlapping windows, or of the steps of one
    forecast, are not: pass as `count` the number of windows that do not overlap.

    Args:
        count: Number of independent values :math:`n`.
        level: Probability that the whole function lies inside, in (0, 1).
        ranks: Number of possible ranks: `draws + 1` for the rank of one among `draws` others. None
            for continuous values.
        points: Number of points at which to look, evenly spread; :data:`MOST_POINTS` by default.
            Ranks have at most `ranks - 1` points.

    Returns:
        The band.

    Raises:
        InputError: If the level lies outside (0, 1), or a number is too small.

    Example:
        >>> band = ecdf_band(50, ranks=10)
        >>> band.points.shape, 0.95 <= band.coverage < 0.96
        ((9,), True)
        >>> band.inside(np.arange(50) % 10), band.inside(np.arange(50) % 5)
        (True, False)

    Source: Säilynoja, Bürkner and Vehtari, *Graphical Test for Discrete Uniformity and its
    Applications in Goodness-of-Fit Evaluation and Multiple Sample Comparison*, 2022.
    """
    check_level(level)
    for what, value, least in (("count", count, 1), ("ranks", ranks, 2), ("points", points, 1)):
        if value is not None and value < least:
            raise InputError(
                what, expected=f"at least {least}", got=str(value), hint="ecdf_band(500, ranks=100)"
            )
    return _band(count, level, ranks, points)


@lru_cache(maxsize=32)
def _band(count: int, level: float, ranks: int | None, points: int | None) -> EcdfBand:
    at = _points(ranks, points)
    table = _tails(count, at)
    inside: Callable[..., float] = partial(probability_below, count, at)
    lower, upper = limits(table, widest_tail(table, level, inside))
    coverage = inside(lower, upper)
    band = EcdfBand(at, lower / count, upper / count, coverage, count, ranks)
    for array in (band.points, band.lower, band.upper):
        array.flags.writeable = False  # the same band is handed out again
    return band


def _points(ranks: int | None, points: int | None) -> Array:
    wanted = MOST_POINTS if points is None else points
    if ranks is None:
        return np.arange(1, wanted + 1) / (wanted + 1)
    step = np.linspace(0, ranks, min(wanted, ranks - 1) + 2)[1:-1]
    return np.asarray(np.unique(np.rint(step)) / ranks, dtype=np.float64)


def _tails(count: int, points: Array) -> Tails:
    return tails(count, tuple(points.tolist()))
