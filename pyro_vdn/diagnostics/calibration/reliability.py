"""Reliability of predicted quantiles: how many targets lie below each?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from pyro_vdn.diagnostics._checks import check_level
from pyro_vdn.diagnostics.calibration._labels import Label, Labels, grouped
from pyro_vdn.diagnostics.predictive._uniform_counts import (
    limits,
    probability_below,
    tails,
    widest_tail,
)
from pyro_vdn.diagnostics.scoring.quantiles import check_quantiles
from pyro_vdn.errors import InputError


@dataclass(frozen=True, eq=False)
class QuantileReliability:
    """Shares of targets at or below predicted quantiles, by group, with consistency bands.

    Args:
        nominal: Levels of the quantiles, rising, shape `(levels,)`.
        empirical: Shares of targets at or below them, shape `(groups, levels)`.
        lower: Lower end of the band that holds the shares of calibrated predictions, all levels
            together, shape `(groups, levels)`.
        upper: Upper end, shape `(groups, levels)`.
        count: Independent targets behind the band of each group, shape `(groups,)`.
        groups: Names of the groups; one, `"all"`, without groups.

    Example:
        >>> quantiles = torch.tensor([-0.67, 0.0, 0.67]).unsqueeze(-1).expand(3, 200)
        >>> target = 0.5 * torch.randn(200, generator=torch.Generator().manual_seed(0))
        >>> found = quantile_reliability(quantiles, [0.25, 0.5, 0.75], target)  # too wide
        >>> found.inside, found.empirical[0, 0] < found.lower[0, 0]
        (tensor([False]), tensor(True))
    """

    nominal: Tensor
    empirical: Tensor
    lower: Tensor
    upper: Tensor
    count: Tensor
    groups: tuple[Label, ...]

    @property
    def inside(self) -> Tensor:
        """Whether all shares of a group lie inside its band, shape `(groups,)`."""
        # Shares and bounds are both whole numbers over a count; the slack is for their rounding.
        below, above = self.lower - 1e-6, self.upper + 1e-6
        return ((below <= self.empirical) & (self.empirical <= above)).all(dim=-1)

    def worst_gap(self) -> Tensor:
        """Return the largest distance of a share from its level, shape `(groups,)`."""
        return (self.empirical - self.nominal).abs().amax(dim=-1)


def quantile_reliability(
    quantiles: Tensor,
    levels: Sequence[float] | Tensor,
    target: Tensor,
    *,
    groups: Labels | None = None,
    level: float = 0.95,
    effective_count: int | None = None,
) -> QuantileReliability:
    r"""Compare the share of targets at or below predicted quantiles with the quantiles' levels.

    .. math:: \frac{1}{n} \sum_i 1[y_i \le q_{i, \tau}]

    The band holds the shares of calibrated, independent predictions at all levels together with
    probability `level`: their counts are those of uniform values below the levels. Targets must
    have no ties with quantiles (of counts, take the randomised :func:`pit`).

    Args:
        quantiles: Predicted quantiles, shape `(levels, rows, ...)`.
        levels: Their levels :math:`\tau`, rising, shape `(levels,)`, each in (0, 1).
        target: Observed values :math:`y`, shape `(rows, ...)`.
        groups: Labels of rows, shape `(rows,)`, or of entries, of the target's shape, as for the
            horizon: ``torch.arange(steps).expand(rows, steps)``.
        level: Probability that calibrated predictions stay inside a group's band, in (0, 1).
        effective_count: Number of independent targets in all; the number of targets by default.
            Steps of one forecast move together: pass the number of rows. A group gets its share by
            size, or by rows that it has a part of where these are more: of 100 days a quarter of
            the days counts 25, and a quarter of every day counts 100.

    Returns:
        Shares and bands.

    Raises:
        InputError: If shapes disagree, a value is not finite, levels do not rise or lie outside
            (0, 1), or a count is below 1.

    Example:
        >>> forecast, hours = torch.zeros(1, 100, 24), torch.arange(24).expand(100, 24)
        >>> for labels in (torch.arange(100) // 25, hours // 6):
        ...     found = quantile_reliability(
        ...         forecast, [0.5], torch.randn(100, 24), groups=labels, effective_count=100
        ...     )
        ...     print(found.count.tolist())
        [25, 25, 25, 25]
        [100, 100, 100, 100]

    Source: Pinson, McSharry and Madsen, *Reliability Diagrams for Non-parametric Density Forecasts
    of Continuous Variables*, 2010; bands: Säilynoja, Bürkner and Vehtari, *Graphical Test for
    Discrete Uniformity*, 2022.
    """
    check_level(level)
    listed = check_quantiles(quantiles, levels, target)
    if sorted(set(listed)) != listed:
        raise InputError("levels", expected="rising levels", got=str(listed), hint="sort both")
    if effective_count is not None and effective_count < 1:
        raise InputError(
            "effective_count", expected="at least 1", got=str(effective_count), hint="len(target)"
        )
    entries = tuple(target.shape)
    names, members = grouped(groups, entries, entries[:1])
    members = members.reshape(*members.shape, *(1,) * (len(entries) - members.ndim))
    members = members.expand(entries).to(target.device)
    below = target <= quantiles
    shares, lows, highs, counts = [], [], [], []
    for at in range(len(names)):
        own = below[:, members == at]  # (levels, entries)
        shares.append(own.double().mean(dim=-1).cpu())
        counts.append(_independent(members == at, effective_count))
        low, high = _band(counts[-1], tuple(listed), level)
        lows.append(low)
        highs.append(high)
    return QuantileReliability(
        nominal=torch.tensor(listed, dtype=torch.float64),
        empirical=torch.stack(shares),
        lower=torch.stack(lows),
        upper=torch.stack(highs),
        count=torch.tensor(counts),
        groups=names,
    )


def _independent(own: Tensor, effective_count: int | None) -> int:
    """Return how many independent targets a group has, of entries `(rows, ...)`.

    Entries of different rows are independent if there are as many as rows, whatever the group has
    of each row; entries of one row only as far as there are more.
    """
    size = int(own.sum())
    if effective_count is None:
        return size
    rows = int(own.flatten(1).any(dim=1).sum()) if own.ndim > 1 else size
    by_row = min(effective_count, len(own)) * rows / len(own)
    return max(1, round(by_row), round(effective_count * size / own.numel()))


@lru_cache(maxsize=32)
def _band(count: int, points: tuple[float, ...], level: float) -> tuple[Tensor, Tensor]:
    """Return bounds of the shares of uniform values below points, all together, `(points,)`."""
    table = tails(count, points)
    inside = partial(probability_below, count, np.array(points))
    bounds = limits(table, widest_tail(table, level, inside))
    low, high = (torch.from_numpy(bound / count) for bound in bounds)
    return low, high
