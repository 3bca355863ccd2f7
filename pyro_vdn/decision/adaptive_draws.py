"""As many draws for each row as it needs, and no more."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_vdn.decision._ordering import Array
from pyro_vdn.decision.quantities import Mean, Measured, Quantity
from pyro_vdn.errors import InputError
from pyro_vdn.nn.shapes import check_positive

Sample = Callable[[NDArray[np.intp], int], Tensor | ArrayLike]
"""From indices of rows and a number to that many fresh draws of each, `(draws, rows, ...)`."""


@dataclass(frozen=True, eq=False)
class AdaptiveDraws:
    """What draws told of each row, and how many it took.

    Args:
        estimate: The quantity, `(rows, ...)`.
        standard_error: Of the estimate, as if the number of draws had been fixed, `(rows, ...)`.
        lower: Lower end of the interval, which holds at whatever look a row stopped, `(rows, ...)`.
        upper: Upper end, `(rows, ...)`.
        draws: Draws used, `(rows,)`.
        settled: Whether the row stopped because it was settled, not because there were no more
            draws to be had, `(rows,)`.
        looks: Numbers of draws after which rows were looked at.

    Example:
        >>> noise = np.random.default_rng(0)
        >>> def sample(rows, count):
        ...     return noise.normal(rows, 0.1 + rows, size=(count, len(rows)))
        >>> found = adaptive_draws(sample, 3, tolerance=0.5)
        >>> found.draws, found.settled.all()
        (array([ 32,  ...]), np.True_)
    """

    estimate: Array
    standard_error: Array
    lower: Array
    upper: Array
    draws: NDArray[np.int64]
    settled: NDArray[np.bool_]
    looks: tuple[int, ...]

    @property
    def saved(self) -> float:
        """Share of draws saved against the most for every row."""
        return 1.0 - float(self.draws.mean()) / self.looks[-1]


def adaptive_draws(
    sample: Sample,
    rows: int,
    *,
    quantity: Quantity | None = None,
    tolerance: float | None = None,
    threshold: float | None = None,
    confidence: float = 0.95,
    start: int = 32,
    growth: float = 1.5,
    most: int = 1024,
) -> AdaptiveDraws:
    r"""Draw in rounds, and leave out every row that is settled.

    A row is settled when its interval lies within `tolerance` of its estimate, or on one side of
    `threshold`. To look again and again at intervals of a fixed level would err more often than
    they say, so each of the :math:`K` looks uses one that misses with chance
    :math:`(1 - \text{confidence}) / K`: all of a row's intervals hold together with the stated
    confidence (Bonferroni), whenever it stops, as far as the quantity's interval holds. So a
    settled estimate is further than the tolerance from the truth, or a settled row on the wrong
    side of the threshold, with chance :math:`1 - \text{confidence}` at most. Rounds grow
    geometrically, which keeps looks few.

    Args:
        sample: Called with indices of rows and a number; returns that many fresh, independent
            draws of each, `(draws, rows, ...)`. :func:`pyro_vdn.infer.sampler` makes one of a
            model.
        rows: Number of rows.
        quantity: What is wanted of each row: :class:`Mean` (the default), :class:`Probability` or
            :class:`Quantile`.
        tolerance: Largest error that is tolerated, in the unit of the quantity.
        threshold: Value of which the side is wanted, in the unit of the quantity. With both, either
            settles a row.
        confidence: Chance that all intervals of a row hold, in (0, 1); of each of its values, where
            a row has several. A row is settled when all its values are.
        start: Draws before the first look, at least 2. Student's interval of a skewed mean needs
            some dozens.
        growth: How many times as many draws there are at the next look, at most, above 1.
        most: Most draws of a row.

    Returns:
        Estimates and draws used. Rows that stop at a threshold lean away from it, as with any
        stopping rule that looks at the estimate; their intervals hold nevertheless.

    Raises:
        InputError: If neither goal is given, a setting makes no sense, or the sample has another
            shape or values that are not finite.

    Example:
        >>> from pyro_vdn.decision import Probability
        >>> noise = np.random.default_rng(0)
        >>> def sample(rows, count):
        ...     return noise.normal(rows, 1.0, size=(count, len(rows)))
        >>> adaptive_draws(sample, 4, quantity=Probability(0.0), threshold=0.6).draws
        array([...])
    """
    _check(tolerance, threshold, confidence, (start, most))
    check_positive(rows=rows)
    if not growth > 1.0:
        raise InputError("growth", expected="above 1", got=repr(growth), hint="growth=1.5")
    wanted, looks = quantity or Mean(), _looks(start, growth, most)
    tail = 0.5 * (1.0 - confidence) / len(looks)
    open_rows, used = np.arange(rows), np.full(rows, looks[-1])
    settled = np.zeros(rows, dtype=bool)
    drawn = _fresh(sample, open_rows, looks[0])
    result = Measured(*(np.empty(drawn.shape[1:]) for _ in Measured._fields))
    for look in looks:
        if look > len(drawn):
            fresh = _fresh(sample, open_rows, look - len(drawn), drawn.shape[2:])
            drawn = np.concatenate([drawn, fresh])
        measured = wanted.measure(drawn, tail)
        for whole, part in zip(result, measured, strict=True):
            whole[open_rows] = part
        done = _settled(measured, tolerance, threshold)
        used[open_rows[done]], settled[open_rows[done]] = look, True
        open_rows, drawn = open_rows[~done], drawn[:, ~done]
        if not len(open_rows):
            break
    return AdaptiveDraws(*result, draws=used, settled=settled, looks=looks)


def _looks(start: int, growth: float, most: int) -> tuple[int, ...]:
    """Return the numbers of draws after which rows are looked at, the last being `most`."""
    rounds = max(1, math.ceil(math.log(most / start) / math.log(growth)))
    steps = (most / start) ** (np.arange(rounds + 1) / rounds)
    return tuple(np.unique(np.ceil(start * steps - 1e-9).astype(int)).tolist())


def _fresh(
    sample: Sample, rows: NDArray[np.intp], count: int, inner: tuple[int, ...] | None = None
) -> Array:
    """Return further draws of some rows, checked, `(count, rows, ...)`."""
    values = sample(rows, count)
    plain = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    array = np.asarray(plain, dtype=np.float64)
    shape = (count, len(rows), *(array.shape[2:] if inner is None else inner))
    if array.shape != shape:
        raise InputError(
            "sample",
            expected=f"{count} draws of {len(rows)} rows, shape {shape}",
            got=f"shape {array.shape}",
            hint="draws come first, then the rows that were asked for",
        )
    if not np.isfinite(array).all():
        raise InputError(
            "sample",
            expected="finite draws",
            got=f"{array[~np.isfinite(array)][0]}",
            hint="find the row whose model overflows",
        )
    return array


def _settled(
    measured: Measured, tolerance: float | None, threshold: float | None
) -> NDArray[np.bool_]:
    """Return which rows need no further draws, `(rows,)`."""
    value, lower, upper = measured.value, measured.lower, measured.upper
    done = np.zeros(value.shape, dtype=bool)
    if tolerance is not None:
        done |= np.maximum(upper - value, value - lower) <= tolerance
    if threshold is not None:
        done |= (lower > threshold) | (upper < threshold)
    whole: NDArray[np.bool_] = np.logical_and.reduce(done.reshape(len(done), -1), axis=1)
    return whole


def _check(
    tolerance: float | None, threshold: float | None, confidence: float, sizes: tuple[int, int]
) -> None:
    """Refuse settings that make no sense."""
    if tolerance is None and threshold is None:
        raise InputError(
            "tolerance, threshold",
            expected="at least one of the two",
            got="none",
            hint="tolerance=0.1, in the unit of the quantity",
        )
    if tolerance is not None and not tolerance > 0.0:
        raise InputError(
            "tolerance", expected="above 0", got=repr(tolerance), hint="in the quantity's unit"
        )
    if not 0.0 < confidence < 1.0:
        raise InputError(
            "confidence",
            expected="a share strictly between 0 and 1",
            got=repr(confidence),
            hint="write 95 % as 0.95",
        )
    start, most = sizes
    if not 2 <= start <= most:
        raise InputError(
            "start, most",
            expected="at least 2 draws at the start, and no fewer at most",
            got=f"{start}, {most}",
            hint="start=32, most=1024",
        )
