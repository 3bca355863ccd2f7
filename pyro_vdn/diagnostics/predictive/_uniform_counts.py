"""How many of `n` independent uniform values lie below points or in bins: exact laws, limits."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_vdn.diagnostics._checks import refuse_where
from pyro_vdn.errors import InputError

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

_DIRECT = 256
"""Up to this length, sums of products are faster than Fourier transforms."""


class Tails(NamedTuple):
    """Tail probabilities of the counts `X_i ~ Binomial(n, z_i)` wherever they matter.

    Args:
        start: First count in the table of each point, `(points,)`.
        below: `P(X_i <= start_i + j)`, rising in `j`, `(points, window)`.
        above: `P(X_i >= start_i + j)`, falling in `j`, `(points, window)`.
    """

    start: Counts
    below: Array
    above: Array


@lru_cache(maxsize=16)
def tails(count: int, points: tuple[float, ...]) -> Tails:
    """Return the tails of the counts below `points`, each in (0, 1), of `count` values.

    The table reaches ten standard deviations (and twenty counts) to either side: what lies beyond
    has a probability below that of any band.
    """
    z = np.array(points)[:, None]
    reach = int(np.ceil(10 * np.sqrt(count) / 2)) + 20
    start = np.maximum(0, np.floor(count * z[:, 0]).astype(np.int64) - reach)
    k = start[:, None] + np.arange(min(count, 2 * reach) + 1)  # (points, window)
    within = k <= count
    k = np.minimum(k, count)
    ways = _log_factorial(count) - _log_factorial(k) - _log_factorial(count - k)
    mass = np.where(within, np.exp(ways + k * np.log(z) + (count - k) * np.log1p(-z)), 0.0)
    above = np.flip(np.flip(mass, 1).cumsum(1), 1)
    return Tails(start, mass.cumsum(1), above)


def limits(table: Tails, tail: float) -> tuple[Counts, Counts]:
    """Return the least and the largest count at each point that leave a tail above `tail`."""
    beyond = tail * (1.0 + 1e-9)  # rounding must not tell apart what symmetry makes equal
    lower = table.start + (table.below <= beyond).sum(1)
    upper = table.start + (table.above > beyond).sum(1) - 1
    return lower, upper


def smallest_tail(table: Tails, low: Array, high: Array) -> float:
    """Return the least of `P(X_i <= low_i)` and `P(X_i >= high_i)` over all points."""
    rows, window = np.arange(len(table.start)), table.below.shape[1]
    at_low = np.clip(low.astype(np.int64) - table.start, -1, window - 1)
    at_high = np.clip(high.astype(np.int64) - table.start, 0, window)
    below = np.where(at_low < 0, 0.0, table.below[rows, at_low])
    above = np.where(at_high == window, 0.0, table.above[rows, np.minimum(at_high, window - 1)])
    return float(np.minimum(below, above).min())


def widest_tail(
    table: Tails, level: float, probability: Callable[[Counts, Counts], float]
) -> float:
    """Return the tail that, cut off everywhere, leaves at least `level` for all counts together.

    Args:
        table: Tails of each count by itself.
        level: Probability wanted inside all limits together.
        probability: Of all counts inside given limits, which falls as the tail grows.

    Returns:
        The largest such tail. Limits change only where a tail is crossed, so few need be tried.
    """
    largest = 1.0 - level  # a tail that is cut off is lost at least once
    safe = largest / (2 * len(table.start))  # Bonferroni's
    every = np.concatenate([table.below.ravel(), table.above.ravel()])
    tried = np.r_[safe, np.unique(every[(every > safe) & (every <= largest)])]
    first, last = 0, len(tried)  # the first is good, the last is not
    while last - first > 1:
        middle = (first + last) // 2
        if probability(*limits(table, tried[middle])) >= level:
            first = middle
        else:
            last = middle
    return float(tried[first])


def probability_below(count: int, points: Array, lower: Counts, upper: Counts) -> float:
    r"""Return the probability that all counts lie within their limits, exactly.

    Given that a Poisson process of rate `n` has `n` points in [0, 1], they are independent and
    uniform; its increments are independent, so the law of the count at the next point is a
    convolution, cut to the limits:

    .. math:: P = \frac{1}{\mathrm{Poi}(n; n)} \sum_{c_1, \dots, c_K} \prod_i
        \mathrm{Poi}(c_{i + 1} - c_i; n (z_{i + 1} - z_i)), \quad l_i \le c_i \le u_i

    Args:
        count: Number of values `n`.
        points: Rising, each in (0, 1), `(points,)`.
        lower: Least count allowed at each point, `(points,)`.
        upper: Largest count allowed at each point, `(points,)`.

    Returns:
        The probability.

    Example:
        >>> at = np.array([0.5])  # two values, one of them below 1/2
        >>> round(probability_below(2, at, np.array([1]), np.array([1])), 6)
        0.5

    Source: Moscovich and Nadler, *Fast Calculation of Boundary Crossing Probabilities for Poisson
    Processes*, 2017.
    """
    lower = np.maximum.accumulate(lower)  # counts only rise from point to point
    upper = np.minimum.accumulate(upper[::-1])[::-1]
    if bool((upper < lower).any()):
        return 0.0
    steps = count * np.diff(points, prepend=0.0, append=1.0)
    law, low, high = np.ones(1), 0, 0  # of the count at 0
    ends = zip(np.r_[lower, count].tolist(), np.r_[upper, count].tolist(), steps, strict=True)
    for next_low, next_high, mean in ends:
        reached = _convolved(law, _poisson(next_high - low, mean))
        law = reached[next_low - low : next_high - low + 1]
        low, high = next_low, next_high
    assert low == high == count
    return float(law[0] / _poisson(count, float(count))[-1])


def probability_in_bins(count: int, shares: Array, lower: Counts, upper: Counts) -> float:
    """Return the probability that the counts of all bins lie within their limits, exactly.

    The same conditioning on a Poisson process: the counts of the bins are independent, and their
    sum is `count`.

    Args:
        count: Number of values.
        shares: Probability of each bin, `(bins,)`.
        lower: Least count allowed in each bin, `(bins,)`.
        upper: Largest count allowed in each bin, `(bins,)`.

    Returns:
        The probability.

    Example:
        >>> half = np.array([0.5, 0.5])
        >>> round(probability_in_bins(2, half, np.array([1, 1]), np.array([1, 1])), 6)
        0.5
    """
    if bool((upper < lower).any()) or lower.sum() > count or upper.sum() < count:
        return 0.0
    law = np.ones(1)  # of the count in all bins so far, less their lower limits
    spare = count - int(lower.sum())
    for low, high, mean in zip(lower.tolist(), upper.tolist(), count * shares, strict=True):
        law = _convolved(law, _poisson(high, mean)[low:])[: spare + 1]
    return float(law[spare] / _poisson(count, float(count))[-1])


def checked_values(values: Tensor | ArrayLike, count: int, ranks: int | None) -> Array:
    """Return values in [0, 1], or ranks, as a flat array; refuse others, or fewer than `count`."""
    plain = values.detach().cpu() if isinstance(values, Tensor) else torch.as_tensor(values)
    flat = plain.double().reshape(-1)
    if len(flat) < count:
        raise InputError(
            "values",
            expected=f"at least {count}, the count of the band",
            got=str(len(flat)),
            hint="ecdf_band(count) with the number of values",
        )
    if ranks is None:
        refuse_where(~((flat >= 0) & (flat <= 1)), "values", flat, "values in [0, 1]")
    else:
        good = (flat >= 0) & (flat < ranks) & (flat == flat.round())
        refuse_where(~good, "values", flat, f"ranks 0, ..., {ranks - 1}")
    return flat.numpy()


def _poisson(largest: int, mean: float) -> Array:
    """Return the Poisson probabilities of 0, ..., `largest`."""
    k = np.arange(largest + 1)
    factorials = _log_factorials(largest.bit_length())[: largest + 1]
    mass: Array = np.exp(k * np.log(mean) - mean - factorials)
    return mass


def _convolved(first: Array, second: Array) -> Array:
    if min(len(first), len(second)) <= _DIRECT:
        return np.convolve(first, second)
    length = len(first) + len(second) - 1
    padded = 1 << (length - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(first, padded) * np.fft.rfft(second, padded), padded)[:length]


@lru_cache(maxsize=8)
def _log_factorials(bits: int) -> Array:
    """Return the logs of the factorials of all numbers of so many bits: one table for many laws."""
    return _log_factorial(np.arange(1 << bits))


def _log_factorial(k: Counts | int) -> Array:
    logs: Array = torch.lgamma(torch.as_tensor(k, dtype=torch.float64) + 1).numpy()
    return logs
