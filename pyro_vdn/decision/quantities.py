"""What draws of a row are to tell, with an interval that says how well they do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pyro_vdn.decision._ordering import Array
from pyro_vdn.diagnostics._exact import proportion_interval, rank_interval, student_quantile
from pyro_vdn.errors import InputError


class Measured(NamedTuple):
    """An estimate from draws, with its error.

    Args:
        value: The estimate, `(rows, ...)`.
        error: Its standard error, `(rows, ...)`.
        lower: Lower end of its interval, `(rows, ...)`; minus infinity where draws set none.
        upper: Upper end, `(rows, ...)`.

    Example:
        >>> Mean().measure(np.array([[1.0], [2.0], [3.0]]), tail=0.025).value
        array([2.])
    """

    value: Array
    error: Array
    lower: Array
    upper: Array


class Quantity(Protocol):
    """Something that draws tell, such as :class:`Mean`."""

    def measure(self, draws: Array, tail: float) -> Measured:
        """Return the estimate from `(draws, rows, ...)` and an interval.

        Args:
            draws: Independent draws, at least 2.
            tail: Chance that the interval misses the truth on each side, at most.
        """
        ...


@dataclass(frozen=True)
class Mean:
    r"""The mean of the draws.

    Without bounds, the interval is Student's, :math:`\bar y \pm t \, s / \sqrt n`: exact for normal
    draws, and nearly so for others if they are many or not too skewed. Draws that are all equal,
    such as counts that happen to be 0, say nothing of what else may come: without bounds they set
    no interval, and :class:`Probability` suits rare events better. With bounds on every draw it is
    that of Maurer and Pontil, :math:`\bar y \pm s \sqrt{2 L / n} + 7 (b - a) L / (3 (n - 1))`
    with :math:`L = \log(2 / \text{tail})`, which holds for any distribution within them.

    Args:
        low: Least value that a draw can take, in its unit.
        high: Largest value.

    Raises:
        InputError: If only one bound is given, or they leave nothing between them.

    Example:
        >>> draws = np.array([0.0, 1.0, 1.0, 0.0])[:, None]
        >>> Mean().measure(draws, tail=0.025).upper.round(3)
        array([1.419])

    Source: Maurer and Pontil, *Empirical Bernstein Bounds and Sample Variance Penalization*, 2009.
    """

    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        bounds = (self.low, self.high)
        if bounds == (None, None):
            return
        if self.low is None or self.high is None or not self.low < self.high:
            raise InputError(
                "low, high",
                expected="two bounds, the lower one first, or none",
                got=f"{self.low}, {self.high}",
                hint="Mean(0.0, 1.0) for shares",
            )

    def measure(self, draws: Array, tail: float) -> Measured:
        """Return the mean with its interval; see :class:`Quantity`.

        Raises:
            InputError: If a draw lies outside of the bounds.
        """
        count, value, spread = len(draws), draws.mean(0), draws.std(0, ddof=1)
        error = spread / math.sqrt(count)
        if self.low is None or self.high is None:
            half = student_quantile(tail, count - 1) * error
            half = np.where(draws.min(0) < draws.max(0), half, np.inf)
            return Measured(value, error, value - half, value + half)
        if draws.min() < self.low or draws.max() > self.high:
            raise InputError(
                "sample",
                expected=f"draws from {self.low} to {self.high}, as Mean says",
                got=f"from {draws.min():.4g} to {draws.max():.4g}",
                hint="widen the bounds, or leave them out: Mean()",
            )
        room = math.log(2.0 / tail)
        half = error * math.sqrt(2.0 * room)
        half = half + 7.0 * (self.high - self.low) * room / (3.0 * (count - 1))
        lower, upper = np.maximum(value - half, self.low), np.minimum(value + half, self.high)
        return Measured(value, error, lower, upper)


@dataclass(frozen=True)
class Probability:
    r"""The probability that a draw exceeds a value, :math:`P(y > c)`.

    The interval is that of Clopper and Pearson, which holds for any number of draws.

    Args:
        above: :math:`c`, in the unit of the draws.

    Example:
        >>> Probability(0.5).measure(np.array([[0.0], [1.0], [1.0], [1.0]]), tail=0.025).value
        array([0.75])
    """

    above: float

    def measure(self, draws: Array, tail: float) -> Measured:
        """Return the share with its interval; see :class:`Quantity`."""
        count, hits = len(draws), (draws > self.above).sum(0).astype(np.float64)
        value = hits / count
        lower, upper = proportion_interval(hits, count, tail)
        return Measured(value, np.sqrt(value * (1 - value) / count), lower, upper)


@dataclass(frozen=True)
class Quantile:
    """A quantile of the draws.

    The interval lies between two of the sorted draws, whose ranks follow from the binomial
    distribution: it holds for any distribution and number of draws.

    Args:
        level: In (0, 1).

    Raises:
        InputError: If the level lies outside (0, 1).

    Example:
        >>> measured = Quantile(0.5).measure(np.arange(101.0)[:, None], tail=0.025)
        >>> measured.value, measured.lower, measured.upper
        (array([50.]), array([40.]), array([60.]))
    """

    level: float

    def __post_init__(self) -> None:
        if not 0.0 < self.level < 1.0:
            raise InputError(
                "level",
                expected="a level strictly between 0 and 1",
                got=repr(self.level),
                hint="Quantile(0.9) for the 90 % quantile",
            )

    def measure(self, draws: Array, tail: float) -> Measured:
        """Return the quantile with its interval; see :class:`Quantity`."""
        count, ordered = len(draws), np.sort(draws, axis=0)
        step = math.sqrt(self.level * (1.0 - self.level) / count)  # one standard error in levels
        beside = np.clip([self.level - step, self.level, self.level + step], 0.0, 1.0)
        below, value, above = np.quantile(ordered, beside, axis=0)
        lower, upper = rank_interval(count, self.level, tail)
        return Measured(
            value,
            0.5 * (above - below),
            _ranked(ordered, lower, -np.inf),
            _ranked(ordered, upper, np.inf),
        )


def _ranked(ordered: NDArray[np.float64], rank: int, otherwise: float) -> Array:
    """Return the draw of a rank from 1 on, or a value where there is none."""
    if 1 <= rank <= len(ordered):
        found: Array = ordered[rank - 1]
        return found
    return np.full(ordered.shape[1:], otherwise)
