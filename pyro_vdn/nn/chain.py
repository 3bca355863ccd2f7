"""Linear-Gaussian Markov chains over time, one per unit: all steps as one distribution."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints, register_kl

from pyro_vdn.errors import InputError
from pyro_vdn.nn.lags import carried, covariances, lagged, solved, widened
from pyro_vdn.nn.normals import unexpanded


class GaussianChain(TorchDistribution):
    r"""The chain `z_t ~ Normal(sum_k a_tk z_{t-k} + b_t, c_t^2)` of every unit, all steps at once.

    Time is the batch dimension -2 and units are -1; steps before the first count as 0, so that
    `c_0` and `b_0` say how a chain starts. The log density is that of each step given the steps
    before it, so it sums to the joint one, and each step and unit can be scaled or masked. Draws
    and moments solve a recurrence by `scan`, without a loop over time.

    Args:
        coefficients: `a`, `(..., time or 1, units, order)`.
        offset: `b`, broadcastable to `(..., time, units)`.
        scale: `c`, positive, `(..., time, units)`.

    Shape:
        Batch shape `(..., time, units)`, event shape `()`.

    Example:
        >>> chain = GaussianChain(torch.full((1, 2, 1), 0.5), torch.zeros(()), torch.ones(3, 2))
        >>> chain.variance[:, 0]
        tensor([1.0000, 1.2500, 1.3125])
        >>> chain.log_prob(torch.zeros(5, 3, 2)).shape
        torch.Size([5, 3, 2])
    """

    has_rsample = True
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - torch's
    support = constraints.real

    def __init__(
        self,
        coefficients: Tensor,
        offset: Tensor,
        scale: Tensor,
        *,
        batch_shape: torch.Size | None = None,
    ) -> None:
        self.coefficients = coefficients
        self.offset = offset
        self.scale = scale
        shape: torch.Size = (
            batch_shape
            or torch.broadcast_shapes(  # type: ignore[no-untyped-call]
                coefficients.shape[:-1], offset.shape, scale.shape
            )
        )
        super().__init__(shape, torch.Size(), validate_args=False)

    @property
    def order(self) -> int:
        """Number of earlier steps that a step depends on."""
        return int(self.coefficients.shape[-1])

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> GaussianChain:
        """Return independent copies of the chain over a larger batch; time and units stay."""
        shape = torch.Size(batch_shape)
        return GaussianChain(self.coefficients, self.offset, self.scale, batch_shape=shape)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 - torch's
        """Draw all steps of all chains, with a gradient to all parameters."""
        noise = self.scale.new_empty(self._extended_shape(sample_shape)).normal_()
        return solved(self.coefficients, self.offset + self.scale * noise)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 - torch's
        """Draw without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of each step given those before it, `(..., time, units)`."""
        loc = carried(self.coefficients, value) + self.offset
        residual = (value - loc) / self.scale
        return -0.5 * residual.square() - self.scale.log() - 0.5 * math.log(2 * math.pi)

    @property
    def mean(self) -> Tensor:
        """Mean of each step, `(..., time, units)`."""
        return solved(self.coefficients, self.offset.expand(self.batch_shape))

    @property
    def variance(self) -> Tensor:
        """Variance of each step, `(..., time, units)`."""
        variance = covariances(self.coefficients, self.scale)[..., 0, 0]
        return variance.expand(self.batch_shape)


def _past_spread(q: GaussianChain, weights: Tensor) -> Tensor:
    """Return the variance of `sum_k w_tk z_{t-k}` under a chain, `(..., time, units)`."""
    order = max(q.order, weights.shape[-1])
    after = covariances(widened(q.coefficients, order), q.scale)  # (..., time, units, order, order)
    if order == 1:
        return weights.squeeze(-1).square() * lagged(after[..., 0, 0], 1)
    before = torch.cat([torch.zeros_like(after[..., :1, :, :, :]), after[..., :-1, :, :, :]], -4)
    weights = widened(weights, order).unsqueeze(-1)
    return (weights.mT @ before @ weights)[..., 0, 0]


@register_kl(GaussianChain, GaussianChain)
def _chain_kl(q: GaussianChain, p: GaussianChain) -> Tensor:
    r"""Return `E_q KL(q(z_t | past) || p(z_t | past))` of each step; the sum is `KL(q || p)`.

    `log(c_p / c_q) - 1/2 + (c_q^2 + d_t^2 + w^T Cov(past) w) / (2 c_p^2)`, with `w = a_q - a_p` and
    `d_t = w^T E[past] + b_q - b_p`.
    """
    order = max(q.order, p.order)
    weights = widened(q.coefficients, order) - widened(p.coefficients, order)
    distance = carried(weights, q.mean) + q.offset - p.offset
    spread = _past_spread(q, weights) + q.scale.square()
    return _expected_kl(distance, spread, q.scale, p.scale).expand(q.batch_shape)


@register_kl(dist.Normal, GaussianChain)
def _independent_kl(q: dist.Normal, p: GaussianChain) -> Tensor:
    """Return the same for steps that are independent under `q`."""
    loc, scale = unexpanded(q.loc), unexpanded(q.scale)
    loc = loc.expand(q.batch_shape)
    variance = scale.square()
    over_time = variance.expand(torch.broadcast_shapes(variance.shape, p.batch_shape[-2:]))  # type: ignore[no-untyped-call]
    distance = loc - carried(p.coefficients, loc) - p.offset
    spread = variance + carried(p.coefficients.square(), over_time)
    return _expected_kl(distance, spread, scale, p.scale).expand(q.batch_shape)


def _expected_kl(distance: Tensor, spread: Tensor, q_scale: Tensor, p_scale: Tensor) -> Tensor:
    precision = 0.5 / p_scale.square()
    constant = spread * precision + (p_scale / q_scale).log() - 0.5
    return distance.square() * precision + constant


def as_chain(distribution: dist.Distribution) -> GaussianChain:
    """Return a chain, or a normal of independent steps as a chain that carries nothing on.

    Args:
        distribution: A chain or a normal of batch shape `(..., time, units)`.

    Raises:
        InputError: For any other distribution.
    """
    if isinstance(distribution, GaussianChain):
        return distribution
    if not isinstance(distribution, dist.Normal):
        raise InputError(
            "posterior of neurons with memory",
            expected="a Normal or a GaussianChain",
            got=type(distribution).__name__,
            hint="NormalPosterior(), or a guide of pyro_vdn.guides.markov",
        )
    nothing = distribution.loc.new_zeros((1, distribution.batch_shape[-1], 1))
    scale = unexpanded(distribution.scale)
    return GaussianChain(
        nothing, distribution.loc, scale, batch_shape=torch.Size(distribution.batch_shape)
    )


def following(
    prior: dist.Distribution, posterior: dist.Distribution, mask: Tensor
) -> dist.Distribution:
    """Return the posterior where there is input and, elsewhere, what the prior says given the past.

    Args:
        prior: A chain or a normal, which broadcasts to `(..., time, units)`.
        posterior: The same of batch shape `(..., time, units)`.
        mask: Boolean, `(..., time)`: whether a step has input.

    Returns:
        A normal where both are, else a chain.

    Raises:
        InputError: Where either is neither a chain nor a normal.
    """
    where = mask.unsqueeze(-1)
    if isinstance(posterior, dist.Normal) and isinstance(prior, dist.Normal):
        loc = torch.where(where, posterior.loc, prior.loc)
        return dist.Normal(loc, torch.where(where, posterior.scale, prior.scale))
    q, p = as_chain(posterior), as_chain(prior)
    order = max(q.order, p.order)
    return GaussianChain(
        torch.where(
            where.unsqueeze(-1), widened(q.coefficients, order), widened(p.coefficients, order)
        ),
        torch.where(where, q.offset, p.offset),
        torch.where(where, q.scale, p.scale),
        batch_shape=torch.Size(posterior.batch_shape),
    )
