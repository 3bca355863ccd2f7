"""The best ordered thresholds: actions follow each other as uncertainty grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyro_vdn.decision._ordering import Array


class Steps(NamedTuple):
    """Cases sorted by uncertainty; equally uncertain ones are treated alike.

    Args:
        order: Index of each case in that order, `(cases,)`.
        ends: Where each group of equals ends, exclusive, from 0 on, `(groups + 1,)`.
        values: Uncertainty of each group, `(groups,)`.
    """

    order: NDArray[np.intp]
    ends: NDArray[np.intp]
    values: Array

    @classmethod
    def of(cls, score: Array) -> Steps:
        """Sort the cases, `(cases,)`."""
        order = np.argsort(score, kind="stable")
        ordered = score[order]
        ends = np.concatenate([[0], np.flatnonzero(np.diff(ordered) > 0) + 1, [len(ordered)]])
        return cls(order, ends, ordered[ends[1:] - 1])

    def running(self, cost: Array) -> Array:
        """Return the cost up to each end, `(cases,)` -> `(groups + 1,)`."""
        total: Array = np.append(0.0, np.cumsum(cost[self.order]))[self.ends]
        return total

    def threshold(self, place: int) -> float:
        """Return the largest uncertainty of the first groups; infinite for none and for all."""
        if place == 0:
            return -np.inf
        return np.inf if place == len(self.values) else float(self.values[place - 1])


def least(running: Sequence[Array]) -> float:
    r"""Return the least cost of any ordered thresholds.

    With :math:`G_a(j)` the cost of action :math:`a` for the first :math:`j` groups, the least cost
    of the first :math:`j` groups by actions up to :math:`a` is
    :math:`B_a(j) = G_a(j) + \min_{i \le j} (B_{a-1}(i) - G_a(i))`.

    Args:
        running: Cost of each action in order, `(groups + 1,)`.
    """
    return float(_bests(running)[-1][-1])


def best_places(running: Sequence[Array]) -> list[int]:
    """Return how many groups come before the end of each action but the last.

    Args:
        running: Cost of each action in order, `(groups + 1,)`.
    """
    bests, places, end = _bests(running), [], len(running[0]) - 1
    for action in range(len(running) - 1, 0, -1):
        gap = bests[action - 1][: end + 1] - running[action][: end + 1]
        end -= int(np.argmin(gap[::-1]))  # the last of equals: accepting goes before others
        places.append(end)
    return places[::-1]


def _bests(running: Sequence[Array]) -> list[Array]:
    bests = [running[0]]
    for cost in running[1:]:
        bests.append(cost + np.minimum.accumulate(bests[-1] - cost))
    return bests
