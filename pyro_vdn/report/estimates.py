"""Means over rows that may depend on each other, with their errors."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vdn.diagnostics import block_error
from pyro_vdn.diagnostics._exact import student_quantile


class Estimate(NamedTuple):
    """A mean with its standard error.

    Args:
        value: The mean.
        error: Its standard error; NaN where one block cannot tell.
        blocks: Number of blocks taken to be independent, behind the error.

    Example:
        >>> round(Estimate(0.5, 0.1, 30).half_width, 3)
        0.205
    """

    value: float
    error: float
    blocks: int

    @property
    def half_width(self) -> float:
        """Half the width of its 95 % interval, by Student's t; infinite for one block."""
        return math.inf if self.blocks < 2 else _factor(self.blocks) * self.error

    def differs_from(self, value: float, *, comparisons: int = 1) -> bool:
        """Say whether a value lies outside of the interval, one of several looked at together.

        Args:
            value: The value.
            comparisons: How many intervals are to be right together, by Bonferroni.
        """
        reach = _factor(self.blocks, comparisons) * self.error if self.blocks > 1 else math.inf
        return abs(self.value - value) > reach


def mean_of(values: Tensor, blocks: Tensor) -> Estimate:
    """Return a mean over rows with its error; values of one block may depend on each other.

    Args:
        values: Values, `(rows,)` or `(rows, ...)`; NaN for those that are missing.
        blocks: Which block each row is in, integers from 0, `(rows,)`.

    Example:
        >>> mean_of(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([0, 1]))
        Estimate(value=2.5, error=1.0, blocks=2)
    """
    flat = values.reshape(len(values), -1).double()
    there = ~flat.isnan()
    members = blocks.unsqueeze(-1).expand(flat.shape)[there]
    known = flat[there]
    if len(known) == 0:
        return Estimate(math.nan, math.nan, 0)
    _, members = torch.unique(members, return_inverse=True)
    count = int(members.max()) + 1
    return Estimate(float(known.mean()), block_error(known, members), count)


def share_of(hits: Tensor, blocks: Tensor, expected: float) -> Estimate:
    r"""Return the share of hits, with an error that chance alone makes at the least.

    Blocks that all agree, such as a few rows without a hit, have no spread; the error is never
    below that of as many independent hits, :math:`\sqrt{p (1 - p) / n}` for an expected share p.

    Args:
        hits: 1 or 0, NaN where missing, `(rows,)` or `(rows, ...)`.
        blocks: Which block each row is in, integers from 0, `(rows,)`.
        expected: The share that is expected, in (0, 1).

    Example:
        >>> share_of(torch.zeros(4), torch.arange(4), 0.5)
        Estimate(value=0.0, error=0.25, blocks=4)
    """
    found = mean_of(hits, blocks)
    count = max(int((~hits.isnan()).sum()), 1)
    return found._replace(error=max(found.error, math.sqrt(expected * (1.0 - expected) / count)))


def _factor(blocks: int, comparisons: int = 1) -> float:
    """Return how many errors an interval reaches that is right 95 % of the time, all together."""
    return student_quantile(0.025 / comparisons, blocks - 1)
