"""What is exactly known about the parameters of chains seen in noise.

The units are independent, so a scalar Kalman filter, which takes whole grids of parameters at once,
gives the evidence of each; its curvature gives standard errors, its values exact posteriors.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor


def log_evidence(y: Tensor, phi: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
    """Return `log p(y | phi, s, r)` of each unit, summed over rows, `(..., units)`.

    Args:
        y: Series, `(rows, time, units)`.
        phi: Coefficients, broadcastable to `(..., units)`, as are the others.
        scale: Innovation scales `s`.
        noise: Observation scales `r`.

    Example:
        >>> log_evidence(torch.zeros(1, 1, 1), *torch.tensor([[0.6], [0.8], [1.0]]))
        tensor([-1.2655])
    """
    phi, scale, noise = (value.unsqueeze(-2) for value in (phi, scale, noise))
    variance = scale.square() / (1 - phi.square())
    mean = torch.zeros_like(y[:, 0])
    total = torch.zeros_like(y[:, 0])
    for seen in y.unbind(1):  # (rows, units)
        spread = variance + noise.square()
        error = seen - mean
        total = total - 0.5 * (math.log(2 * math.pi) + spread.log() + error.square() / spread)
        gain = variance / spread
        mean = phi * (mean + gain * error)
        variance = phi.square() * variance * (1 - gain) + scale.square()
    return total.sum(-2)


class Curvature(NamedTuple):
    """What the evidence says around an estimate, for each parameter and unit.

    Args:
        standard_error: From the inverse of the observed information, `(parameters, units)`.
        to_maximum: What a Newton step adds: the distance to the maximum likelihood.

    Example:
        >>> Curvature(torch.ones(2, 4), torch.zeros(2, 4)).to_maximum.shape
        torch.Size([2, 4])
    """

    standard_error: Tensor
    to_maximum: Tensor


def curvature(
    y: Tensor, phi: Tensor, scale: Tensor, noise: Tensor, *, learn_noise: bool = False
) -> Curvature:
    """Return standard errors of `phi`, `s` and, where it is learned, `r`.

    Args:
        y: Series, `(rows, time, units)`.
        phi: Estimated coefficients, `(units,)`, as the others.
        scale: Estimated innovation scales.
        noise: Observation scales.
        learn_noise: Whether they are estimated as well.
    """
    count = 3 if learn_noise else 2
    values = torch.stack([phi, scale, noise]).detach()
    free = values[:count].clone().requires_grad_()
    total = log_evidence(y, *free, *values[count:]).sum()
    (slope,) = torch.autograd.grad(total, free, create_graph=True)
    rows = [torch.autograd.grad(one.sum(), free, retain_graph=True)[0] for one in slope]
    information = -torch.stack(rows).movedim(-1, 0)  # (units, parameters, parameters)
    covariance = torch.linalg.inv(information)
    step = (covariance @ slope.detach().mT.unsqueeze(-1)).squeeze(-1)
    return Curvature(covariance.diagonal(dim1=-2, dim2=-1).sqrt().mT, step.mT)


class ExactPosterior(NamedTuple):
    """The posterior of `phi` and `s` under hyper-priors, integrated on a grid.

    Args:
        log_evidence: `log p(y)` with the parameters integrated out, all units together.
        phi: Ends of the central interval, `(2, units)`.
        scale: The same of `s`.

    Example:
        >>> ExactPosterior(-3.0, torch.zeros(2, 4), torch.ones(2, 4)).log_evidence
        -3.0
    """

    log_evidence: float
    phi: Tensor
    scale: Tensor


def exact_posterior(
    y: Tensor,
    phi: tuple[Tensor, Tensor],
    scale: tuple[Tensor, Tensor],
    noise: Tensor,
    *,
    level: float = 0.9,
    points: int = 120,
) -> ExactPosterior:
    """Integrate the posterior under `phi ~ Uniform(-1, 1)` and `s ~ LogNormal(-1, 1)`.

    Args:
        y: Series, `(rows, time, units)`.
        phi: Centre and width of a standard error of each unit, `(units,)`; the grid has eight of
            these on either side, within the support.
        scale: The same of `s`.
        noise: Observation scales, `(units,)`.
        level: Of the central intervals.
        points: Of the grid in each direction.
    """
    phis = _grid(*phi, points, -0.9999, 0.9999)  # (points, units)
    scales = _grid(*scale, points, 1e-3, math.inf)
    joint = log_evidence(y, phis.unsqueeze(1), scales, noise.expand_as(scales)) - math.log(2)
    joint = joint + dist.LogNormal(-1.0, 1.0).log_prob(scales)
    cells = ((phis[1] - phis[0]) * (scales[1] - scales[0])).log()
    evidence = joint.flatten(0, 1).logsumexp(0) + cells
    weights = (joint + cells - evidence).exp()
    ends = torch.tensor([0.5 * (1 - level), 0.5 * (1 + level)], dtype=y.dtype)
    return ExactPosterior(
        float(evidence.sum()),
        _quantiles(phis, weights.sum(1), ends),
        _quantiles(scales, weights.sum(0), ends),
    )


def _grid(centre: Tensor, width: Tensor, points: int, low: float, high: float) -> Tensor:
    start = (centre - 8 * width).clamp(min=low)
    end = (centre + 8 * width).clamp(max=high)
    steps = torch.linspace(0, 1, points, dtype=centre.dtype).unsqueeze(-1)
    return start + steps * (end - start)


def _quantiles(grid: Tensor, weights: Tensor, levels: Tensor) -> Tensor:
    """Return quantiles of distributions on grids, `(levels, units)`, between points linearly."""
    below = weights.cumsum(0) - 0.5 * weights
    sought = levels.repeat(grid.shape[-1], 1)  # (units, levels)
    place = torch.searchsorted(below.mT.contiguous(), sought).mT
    place = place.clamp(1, len(grid) - 1)
    low, high = below.gather(0, place - 1), below.gather(0, place)
    share = ((levels.unsqueeze(-1) - low) / (high - low)).clamp(0, 1)
    start, end = grid.gather(0, place - 1), grid.gather(0, place)
    return start + share * (end - start)
