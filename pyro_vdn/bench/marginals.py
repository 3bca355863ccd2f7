"""Marginal distributions of units at every step, on a common grid, and how far they are apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor


class Marginals(NamedTuple):
    """Marginals of units, from whatever source.

    Args:
        mean: Means, `(rows, time, units)`.
        scale: Standard deviations.
        cdf: Distribution functions on the grid, `(rows, time, units, points)`.

    Example:
        >>> Marginals.of_normal(dist.Normal(torch.zeros(1, 3, 2), 1.0), torch.zeros(5)).cdf.shape
        torch.Size([1, 3, 2, 5])
    """

    mean: Tensor
    scale: Tensor
    cdf: Tensor

    @classmethod
    def of_normal(cls, normal: dist.Normal, grid: Tensor) -> Marginals:
        """Take those of a posterior.

        Args:
            normal: Normals of batch shape `(rows, time, units)`.
            grid: Evenly spaced points, `(points,)`.
        """
        wide = dist.Normal(normal.loc.unsqueeze(-1), normal.scale.unsqueeze(-1))
        return cls(normal.mean, normal.stddev, wide.cdf(grid))

    @classmethod
    def of_draws(cls, draws: Tensor, grid: Tensor) -> Marginals:
        """Estimate them from draws, `(draws, rows, time, units)`.

        Args:
            draws: The draws.
            grid: Evenly spaced points, `(points,)`.
        """
        ranked = draws.movedim(0, -1).contiguous().sort(-1).values  # (rows, time, units, draws)
        points = grid.expand(*ranked.shape[:-1], -1).contiguous()
        below = torch.searchsorted(ranked, points, right=True)
        return cls(draws.mean(0), draws.std(0), below / len(draws))


def exact_marginals(
    log_likelihood: Callable[[Tensor], Tensor], phi: Tensor, scale: Tensor, grid: Tensor
) -> Marginals:
    """Integrate every chain forwards and backwards on a grid: exact up to the grid.

    Args:
        log_likelihood: From values of a unit, `(points,)`, to the log density of every outcome,
            `(rows, time, units, points)`.
        phi: Coefficients, `(units,)`.
        scale: Innovation scales, `(units,)`.
        grid: Evenly spaced points that cover the stationary distribution, `(points,)`.
    """
    stationary = scale / (1 - phi.square()).sqrt()
    width = grid[1] - grid[0]
    seen = log_likelihood(grid)
    seen = (seen - seen.amax(-1, keepdim=True)).exp()
    move = dist.Normal(phi[:, None, None] * grid[:, None], scale[:, None, None])
    move = move.log_prob(grid).exp() * width  # (units, from, to)
    forward = [dist.Normal(0.0, stationary[:, None]).log_prob(grid).exp() * seen[:, 0]]
    for step in seen[:, 1:].unbind(1):  # (rows, units, points)
        forward.append(_normalised(_moved(_normalised(forward[-1]), move) * step))
    backward = [torch.ones_like(forward[0])]
    for step in seen[:, 1:].flip(1).unbind(1):
        backward.append(_normalised(_moved(step * backward[-1], move.mT)))
    weights = _normalised(torch.stack(forward, 1) * torch.stack(backward[::-1], 1))
    mean = (weights * grid).sum(-1)
    variance = (weights * (grid - mean.unsqueeze(-1)).square()).sum(-1)
    return Marginals(mean, variance.sqrt(), weights.cumsum(-1) - 0.5 * weights)


def _moved(weights: Tensor, move: Tensor) -> Tensor:
    return torch.einsum("run,unm->rum", weights, move)


def _normalised(weights: Tensor) -> Tensor:
    return weights / weights.sum(-1, keepdim=True)


def distances(found: Marginals, reference: Marginals, grid: Tensor) -> dict[str, float]:
    """Compare marginals, in standard deviations of the reference.

    Args:
        found: What is judged.
        reference: What it is judged by.
        grid: The grid of both, `(points,)`.

    Returns:
        ``mean`` and ``mean_worst``, distance of means, on average and the largest; ``ratio``,
        ``ratio_low`` and ``ratio_high``, ratio of standard deviations; ``wasserstein`` and
        ``wasserstein_worst``, 1-Wasserstein distance.
    """
    distance = (found.mean - reference.mean).abs() / reference.scale
    ratio = found.scale / reference.scale
    area = (found.cdf - reference.cdf).abs().sum(-1) * (grid[1] - grid[0]) / reference.scale
    return {
        "mean": float(distance.mean()),
        "mean_worst": float(distance.max()),
        "ratio": float(ratio.mean()),
        "ratio_low": float(ratio.min()),
        "ratio_high": float(ratio.max()),
        "wasserstein": float(area.mean()),
        "wasserstein_worst": float(area.max()),
    }
