"""Exact tails and intervals of counts, means and ranks, through the incomplete beta function."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_TINY = 1e-300
_MOST_TERMS = 10_000
_HALVINGS = 60


def beta_cdf(x: ArrayLike, a: ArrayLike, b: ArrayLike) -> Array:
    r"""Return the regularised incomplete beta function :math:`I_x(a, b)`, element by element.

    Args:
        x: In [0, 1].
        a: Above 0.
        b: Above 0.

    Example:
        >>> beta_cdf([0.0, 0.25, 1.0], 1.0, 1.0)
        array([0.  , 0.25, 1.  ])

    Source: the continued fraction of Didonato and Morris 1992, evaluated by Lentz's method.
    """
    x, a, b = np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in (x, a, b)))
    turned = x > (a + 1) / (a + b + 2)  # where the fraction of the other tail converges sooner
    x, a, b = np.where(turned, 1 - x, x), np.where(turned, b, a), np.where(turned, a, b)
    with np.errstate(divide="ignore"):
        front = a * np.log(x) + b * np.log1p(-x) - np.log(a)
    front = front + _log_gamma(a + b) - _log_gamma(a) - _log_gamma(b)
    part = np.exp(front) * _fraction(x, a, b)
    result: Array = np.where(turned, 1 - part, part)
    return result


def binomial_cdf(successes: ArrayLike, trials: ArrayLike, chance: ArrayLike) -> Array:
    """Return the probability of at most so many successes.

    Args:
        successes: Whole numbers from 0 to `trials`.
        trials: Whole numbers.
        chance: Of one success, in (0, 1).

    Example:
        >>> binomial_cdf([0, 1, 2], 2, 0.5)
        array([0.25, 0.75, 1.  ])
    """
    hits, all_ = np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    below = beta_cdf(1 - np.asarray(chance), np.maximum(all_ - hits, 1.0), hits + 1)
    result: Array = np.where(hits >= all_, 1.0, below)
    return result


def proportion_interval(successes: Array, trials: int, tail: float) -> tuple[Array, Array]:
    """Return Clopper and Pearson's interval of a chance, which misses at most `tail` on each side.

    Args:
        successes: Of each, `(...)`.
        trials: Of each.
        tail: Probability on each side, in (0, 1/2).

    Returns:
        Lower and upper ends, `(...)`.

    Example:
        >>> lower, upper = proportion_interval(np.array([0.0, 10.0]), 10, 0.025)
        >>> upper.round(4)  # 1 - 0.025 ** (1 / 10) is the first
        array([0.3085, 1.    ])
        >>> lower.round(4)
        array([0.    , 0.6915])
    """
    counts, places = np.unique(successes, return_inverse=True)
    lower = 1 - _largest_chance(trials - counts, trials, tail)
    upper = _largest_chance(counts, trials, tail)
    shape = successes.shape
    return lower[places].reshape(shape), upper[places].reshape(shape)


@cache
def student_quantile(tail: float, freedom: int) -> float:
    """Return the value that Student's t exceeds with probability `tail`, at most 1/2.

    Args:
        tail: In (0, 1/2].
        freedom: Degrees of freedom, at least 1.

    Example:
        >>> round(student_quantile(0.025, 9), 4)
        2.2622
    """

    def exceeded(share: Array) -> Array:  # share = freedom / (freedom + t^2), rising as t falls
        return 1 - 0.5 * beta_cdf(share, 0.5 * freedom, 0.5)

    # P(T > t) = I_share(freedom / 2, 1 / 2) / 2
    (share,) = _bisect(exceeded, 1 - tail, np.zeros(1), np.ones(1))
    return float(np.sqrt(freedom * (1 - share) / share))


def rank_interval(draws: int, level: float, tail: float) -> tuple[int, int]:
    """Return between which of the sorted draws a quantile lies, whatever their distribution.

    Args:
        draws: How many there are.
        level: Level of the quantile, in (0, 1).
        tail: Probability that the interval misses on each side, at most.

    Returns:
        Ranks from 1 on, the smallest draw being 1; 0 and `draws + 1` where no draw is far enough
        out, which stand for minus and plus infinity.

    Example:
        >>> rank_interval(100, 0.5, 0.025)  # the median is below draw 40 with chance 0.018
        (40, 61)
    """
    below = binomial_cdf(np.arange(draws + 1), draws, level)  # P(at most k draws below)
    # Draw r exceeds the quantile iff at most r - 1 draws lie below it.
    lower = int(np.searchsorted(below, tail, side="right"))
    upper = int(np.searchsorted(below, 1 - tail, side="left")) + 1
    return lower, upper


def _largest_chance(counts: Array, trials: int, tail: float) -> Array:
    """Return the chance at which so few successes, or fewer, come with probability `tail`."""

    def so_few(chance: Array) -> Array:  # falls from 1 to 0 as the chance rises
        return 1 - beta_cdf(chance, counts + 1, np.maximum(trials - counts, 1.0))

    found = _bisect(so_few, tail, np.zeros_like(counts), np.ones_like(counts))
    result: Array = np.where(counts == trials, 1.0, found)
    return result


def _bisect(function: Callable[[Array], Array], goal: float, low: Array, high: Array) -> Array:
    """Return where a falling function reaches a goal, element by element."""
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        above = function(middle) > goal
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return 0.5 * (low + high)


def _fraction(x: Array, a: Array, b: Array) -> Array:
    """Return the continued fraction of the incomplete beta function by Lentz's method."""
    c, d = np.ones_like(x), 1 / _away(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        step = np.ones_like(x)
        for term in (even, odd):
            d, c = 1 / _away(1 + term * d), _away(1 + term / c)
            step = step * d * c
        value = value * step
        if np.abs(step - 1).max(initial=0.0) < 1e-15:
            break
    return value


def _away(values: Array) -> Array:
    """Keep values away from zero, by which they divide."""
    result: Array = np.where(np.abs(values) < _TINY, _TINY, values)
    return result


def _log_gamma(values: Array) -> Array:
    result: Array = torch.lgamma(torch.from_numpy(np.array(values))).numpy()
    return result
