"""Moments of independent normal units through an activation."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Mean and variance of independent units.

    Args:
        mean: `(..., units)`.
        variance: `(..., units)`, zero for a unit that is held fixed.

    Example:
        >>> Moments(torch.zeros(2), torch.ones(2)).variance
        tensor([1., 1.])
    """

    mean: Tensor
    variance: Tensor


def relu_moments(moments: Moments) -> Moments:
    r"""Return the exact moments of `max(z, 0)` for `z ~ Normal(mu, sigma^2)`.

    With `u = mu / sigma`: mean `m = mu Phi(u) + sigma phi(u)` and variance
    `(mu^2 + sigma^2) Phi(u) + mu sigma phi(u) - m^2`.

    Args:
        moments: Mean and variance of `z`, each `(..., units)`; a variance of zero gives
            `max(mean, 0)` with variance 0.

    Returns:
        Mean and variance of the rectified units, each `(..., units)`.

    Example:
        >>> mean, variance = relu_moments(Moments(torch.tensor([0.0]), torch.tensor([1.0])))
        >>> round(mean.item(), 4), round(variance.item(), 4)
        (0.3989, 0.3408)

    Source:
        Hernandez-Lobato, Adams, *Probabilistic Backpropagation*, ICML 2015, eqs. 16 and 17.
    """
    mu, variance = moments
    tiny = torch.finfo(mu.dtype).tiny ** 0.5
    # A floor keeps the gradient finite where a unit is held fixed.
    sigma = variance.clamp_min(tiny).sqrt()
    # Beyond these bounds the density underflows and its gradient would be inf * 0.
    u = (mu / sigma).clamp(-30.0, 30.0)
    cdf = torch.special.ndtr(u)
    density = torch.exp(-0.5 * u * u) / math.sqrt(2.0 * math.pi)
    mean = mu * cdf + sigma * density
    # The variance, arranged so that nothing cancels: Phi (1 - Phi) in place of a difference.
    tail = torch.special.ndtr(-u)
    cross = mu * sigma * density * (tail - cdf)
    rectified = variance * (cdf - density * density) + mu * mu * cdf * tail + cross
    return Moments(mean, rectified.clamp_min(0.0))
