"""Simultaneous bands for the histogram of uniform values or ranks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from pyro_vdn.diagnostics._checks import check_level
from pyro_vdn.diagnostics.predictive._uniform_counts import (
    Array,
    checked_values,
    limits,
    probability_in_bins,
    tails,
    widest_tail,
)
from pyro_vdn.errors import InputError


@dataclass(frozen=True, eq=False)
class HistogramBand:
    """How high the bars of a histogram of uniform values are, all bars together.

    Heights are relative to what is expected, so that 1 is uniform.

    Args:
        edges: Edges of the bins, from 0 to 1, shape `(bins + 1,)`; of `R` ranks, multiples of
            `1 / R`, so that no rank is cut.
        lower: Least height of each bar, shape `(bins,)`.
        upper: Largest height of each bar, shape `(bins,)`.
        coverage: Exact probability that all bars of uniform values are inside.
        count: Number of independent values.
        ranks: Number of possible ranks, or None for continuous values.

    Example:
        >>> band = histogram_band(1000, bins=4)
        >>> band.heights(np.linspace(0.0, 1.0, 1000) ** 2).round(1)
        array([2. , 0.8, 0.6, 0.5])
        >>> band.upper.round(2)
        array([1.14, 1.14, 1.14, 1.14])
    """

    edges: Array
    lower: Array
    upper: Array
    coverage: float
    count: int
    ranks: int | None = None

    def heights(self, values: Tensor | ArrayLike) -> Array:
        """Return the heights of the bars, relative to uniform.

        Args:
            values: In [0, 1], or ranks 0, ..., `ranks - 1`; any shape.

        Returns:
            Heights, shape `(bins,)`.

        Raises:
            InputError: If there are fewer values than `count`, or one is out of range.
        """
        flat = checked_values(values, self.count, self.ranks)
        if self.ranks is not None:
            flat = (flat + 0.5) / self.ranks  # the middle of the rank's cell
        counts = np.histogram(flat, self.edges)[0]
        return np.asarray(counts / (len(flat) * np.diff(self.edges)), dtype=np.float64)


def histogram_band(
    count: int, *, bins: int = 20, level: float = 0.95, ranks: int | None = None
) -> HistogramBand:
    r"""Band the bars of a histogram of uniform values, all together.

    As :func:`ecdf_band`, with the counts of bins in place of those below points: the largest tail
    cut off every bar for which all bars together stay inside with a probability of at least
    `level`, which is computed exactly.

    Args:
        count: Number of independent values.
        bins: Number of bins, at least 2; of ranks, at most as many as there are ranks.
        level: Probability that all bars are inside, in (0, 1).
        ranks: Number of possible ranks, or None for continuous values.

    Returns:
        The band.

    Raises:
        InputError: If the level lies outside (0, 1), or a number is too small.

    Example:
        >>> band = histogram_band(200, bins=10)
        >>> 0.95 <= band.coverage < 0.99
        True

    Source: Säilynoja, Bürkner and Vehtari 2022, for the adjustment; here of bins.
    """
    check_level(level)
    for what, value, least in (("count", count, 1), ("bins", bins, 2), ("ranks", ranks, 2)):
        if value is not None and value < least:
            raise InputError(
                what, expected=f"at least {least}", got=str(value), hint="bins of 10 or 20"
            )
    return _band(count, bins, level, ranks)


@lru_cache(maxsize=32)
def _band(count: int, bins: int, level: float, ranks: int | None) -> HistogramBand:
    if ranks is None:
        ends, most = np.arange(bins + 1), bins
    else:
        ends, most = np.rint(np.linspace(0, ranks, min(bins, ranks) + 1)), ranks
    edges, shares = ends / most, np.diff(ends) / most
    table = tails(count, tuple(shares.tolist()))
    inside = partial(probability_in_bins, count, shares)
    lower, upper = limits(table, widest_tail(table, level, inside))
    coverage = inside(lower, upper)
    expected = count * shares
    band = HistogramBand(edges, lower / expected, upper / expected, coverage, count, ranks)
    for array in (band.edges, band.lower, band.upper):
        array.flags.writeable = False  # the same band is handed out again
    return band
