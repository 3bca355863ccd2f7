"""Cases in order of their uncertainty, ties kept together, and sums along that order."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_Number = TypeVar("_Number", np.int64, np.float64)


class Ordering(NamedTuple):
    """Cases from the least to the most uncertain; equally uncertain ones form one group.

    Args:
        order: Index of each case in that order, `(cases,)`.
        ends: Where each group ends, exclusive, `(groups,)`.
        risk: Risk of each case in that order, `(cases,)`.
    """

    order: NDArray[np.intp]
    ends: NDArray[np.intp]
    risk: Array


class Sums(NamedTuple):
    """Cases and their risk accepted up to the end of each group, from zero on.

    Args:
        cases: `(..., groups + 1)`.
        risk: `(..., groups + 1)`.
    """

    cases: NDArray[np.int64]
    risk: Array


def ordering(uncertainty: Array, risk: Array) -> Ordering:
    """Sort cases by their uncertainty, `(cases,)`."""
    order = np.argsort(uncertainty, kind="stable")
    ends = np.flatnonzero(np.diff(uncertainty[order]) > 0) + 1
    return Ordering(order, np.append(ends, len(order)), risk[order])


def sums(ordered: Ordering, weights: NDArray[np.int64] | None = None) -> Sums:
    """Add up along the order, each case as often as `weights` says, `(..., cases)`."""
    if weights is None:
        cases, risk = np.arange(1, len(ordered.risk) + 1), np.cumsum(ordered.risk)
    else:
        drawn = weights[..., ordered.order]
        cases = np.cumsum(drawn, axis=-1)
        risk = np.cumsum(drawn * ordered.risk, axis=-1)
    if len(ordered.ends) < len(ordered.risk):
        cases, risk = cases[..., ordered.ends - 1], risk[..., ordered.ends - 1]
    return Sums(_from_zero(cases), _from_zero(risk))


def area(total: Sums) -> Array:
    r"""Return the mean selective risk over all coverages, in expectation over the order in ties.

    A group of :math:`w` cases of mean risk :math:`m`, after :math:`c` cases of risk :math:`r`, adds
    :math:`\sum_{j \le w} (r + j m) / (c + j) = w m + (r - c m) (H_{c + w} - H_c)`, with
    :math:`H` the harmonic numbers.
    """
    size, added = np.diff(total.cases, axis=-1), np.diff(total.risk, axis=-1)
    mean = added / np.maximum(size, 1)  # a group of nothing adds nothing
    before = total.risk[..., :-1] - total.cases[..., :-1] * mean
    everything = total.cases[..., -1]
    harmonic = _from_zero(np.cumsum(1.0 / np.arange(1, int(everything.max()) + 1)))
    gap = np.diff(harmonic[total.cases], axis=-1)
    result: Array = (added.sum(-1) + (before * gap).sum(-1)) / everything
    return result


def risk_at(total: Sums, share: Array) -> Array:
    """Return the selective risk at shares `(points,)` of the cases, in (0, 1], `(points,)`."""
    position = share * total.cases[-1]
    result: Array = np.interp(position, total.cases, total.risk) / position
    return result


def _from_zero(values: NDArray[_Number]) -> NDArray[_Number]:
    return np.concatenate([np.zeros_like(values[..., :1]), values], axis=-1)
