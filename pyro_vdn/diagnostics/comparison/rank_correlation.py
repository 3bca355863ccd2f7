"""Correlation of ranks, with an error that knows which observations belong together."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_vdn.diagnostics._blocks import block_numbers, check_lengths
from pyro_vdn.diagnostics._checks import as_array, check_level
from pyro_vdn.diagnostics.tokens.token_summary import block_error

Array = NDArray[np.float64]


class Correlation(NamedTuple):
    """A correlation with its interval.

    Args:
        value: The correlation, in [-1, 1].
        low: Lower end of the interval.
        high: Upper end of it.

    Example:
        >>> Correlation(0.3, 0.2, 0.4).value
        0.3
    """

    value: float
    low: float
    high: float


def rank_correlation(
    x: Tensor | ArrayLike,
    y: Tensor | ArrayLike,
    *,
    blocks: Tensor | ArrayLike | None = None,
    level: float = 0.95,
) -> Correlation:
    r"""Return Spearman's correlation with an interval by blocks.

    :math:`\rho` is the correlation of mid-ranks. Its standard error is that of its linear part:
    what each observation moves :math:`\rho` by, its effect on the ranks of all others included,
    summed by block. The interval is symmetric in :math:`\operatorname{artanh} \rho`.

    Args:
        x: One quantity, `(observations,)`.
        y: The other one, `(observations,)`.
        blocks: What each observation is part of, labels or numbers, `(observations,)`: those of one
            block, such as the tokens of a sequence, depend on each other. Without, none do.
        level: Level of the interval.

    Returns:
        Correlation and interval; all NaN where a quantity is constant, and an interval of NaN for
        fewer than two blocks.

    Raises:
        InputError: For lengths that differ, or values that are not finite.

    Example:
        >>> x = np.arange(20.0)
        >>> rank_correlation(x, np.exp(x)).value
        1.0

    Source: Hájek's projection of Spearman's statistic, as in van der Vaart, *Asymptotic
    Statistics*, 1998, chapter 12.
    """
    check_level(level)
    first, second = (as_array(n, v, ndim=1, sizes="(n,)") for n, v in (("x", x), ("y", y)))
    check_lengths("y", second, len(first))
    members = block_numbers(blocks, len(first))
    u, v = _Ranks(first), _Ranks(second)
    spread = math.sqrt(u.variance * v.variance)
    if spread == 0:
        return Correlation(math.nan, math.nan, math.nan)
    covariance = float((u.centred * v.centred).mean())
    value = covariance / spread
    moves = u.centred * v.centred + u.passed_by(v.centred) + v.passed_by(u.centred)
    moves = (moves - 3 * covariance) / spread
    for ranks in (u, v):
        own = np.square(ranks.centred) + 2 * ranks.passed_by(ranks.centred) - 3 * ranks.variance
        moves = moves - 0.5 * value * own / ranks.variance
    error = block_error(torch.from_numpy(moves), torch.from_numpy(members))
    value = min(1.0, max(-1.0, value))
    if math.isnan(error):
        return Correlation(value, math.nan, math.nan)
    if abs(value) > 1 - 1e-12:  # nothing moves it to first order
        return Correlation(value, value, value)
    half = NormalDist().inv_cdf(0.5 + level / 2) * error / (1 - value**2)
    middle = math.atanh(value)
    return Correlation(value, math.tanh(middle - half), math.tanh(middle + half))


class _Ranks:
    """Mid-ranks of observations, as shares: `P(X < x) + P(X = x) / 2`."""

    def __init__(self, values: Array) -> None:
        _, self.group, self.size = np.unique(values, return_inverse=True, return_counts=True)
        mid = (np.cumsum(self.size) - 0.5 * self.size) / len(values)
        self.centred: Array = mid[self.group] - 0.5
        self.variance = float(np.square(self.centred).mean())

    def passed_by(self, values: Array) -> Array:
        """Return for each observation the mean of `values` over those that rank above it.

        Those of the same rank count half.
        """
        sums = np.bincount(self.group, values, minlength=len(self.size))
        above = np.cumsum(sums[::-1])[::-1] - 0.5 * sums
        of_each: Array = above[self.group] / len(values)
        return of_each
