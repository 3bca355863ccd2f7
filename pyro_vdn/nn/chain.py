"""Linear-Gaussian Markov chains over time, one per unit: all steps as one distribution."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_vdn.errors import InputError
from pyro_vdn.nn.lags import carried, covariances, solved
from pyro_vdn.nn.normals import ShiftedNormal, unexpanded


class GaussianChain(TorchDistribution):
    r"""The chain `z_t ~ Normal(sum_k a_tk z_{t-k} + b_t, c_t^2)` of every unit, all steps at once.

    Time is the batch dimension -2 and units are -1; steps before the first count as 0, so that
    `c_0` and `b_0` say how a chain starts. The log density is that of each step given the steps
    before it, so it sums to the joint one, and each step and unit can be scaled or masked. Draws
    and moments solve a recurrence by `scan`, without a loop over time.

    Args:
        coefficients: `a`, `(..., time or 1, units, order)`.
        offset: `b`, broadcastable to `(..., time, units)`, or None for 0.
        scale: `c`, positive, `(..., time, units)`.

        batch_shape: A larger batch shape, `(..., time, units)`, of independent copies.
        validate_args: Whether to check that scales are positive.

    Shape:
        Batch shape `(..., time, units)`, event shape `()`.

    Raises:
        InputError: For coefficients without a place for time.

    Example:
        >>> chain = GaussianChain(torch.full((1, 2, 1), 0.5), None, torch.ones(3, 2))
        >>> chain.variance[:, 0]
        tensor([1.0000, 1.2500, 1.3125])
        >>> chain.log_prob(torch.zeros(5, 3, 2)).shape
        torch.Size([5, 3, 2])
    """

    has_rsample = True
    arg_constraints = {"scale": constraints.positive}  # noqa: RUF012 - torch's
    support = constraints.real

    def __init__(
        self,
        coefficients: Tensor,
        offset: Tensor | None,
        scale: Tensor,
        *,
        batch_shape: torch.Size | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.coefficients = coefficients
        self.is_centred = offset is None
        self.offset = scale.new_zeros(()) if offset is None else offset
        if batch_shape is None:
            batch_shape = torch.broadcast_shapes(  # type: ignore[no-untyped-call]
                coefficients.shape[:-1], self.offset.shape, scale.shape
            )
        if len(batch_shape) < 2:
            raise InputError(
                "GaussianChain",
                expected="coefficients (..., time or 1, units, order)",
                got=f"shape {tuple(coefficients.shape)}",
                hint="`phi.unsqueeze(-1)` for `phi` of shape (1, units)",
            )
        # Recurrences run along the scale's own time, which may not be left to broadcasting.
        self.scale = scale.expand(*scale.shape[:-2], *batch_shape[-2:])
        super().__init__(batch_shape, torch.Size(), validate_args=validate_args)

    @property
    def order(self) -> int:
        """Number of earlier steps that a step depends on."""
        return int(self.coefficients.shape[-1])

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> GaussianChain:
        """Return independent copies of the chain over a larger batch; time and units stay."""
        shape = torch.Size(batch_shape)
        offset = None if self.is_centred else self.offset
        return GaussianChain(
            self.coefficients, offset, self.scale, batch_shape=shape, validate_args=False
        )

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 - torch's
        """Draw all steps of all chains, with a gradient to all parameters."""
        shape = self._extended_shape(sample_shape)
        innovations = ShiftedNormal(self.offset, self.scale, validate_args=False).expand(shape)
        return solved(self.coefficients, innovations.rsample())

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 - torch's
        """Draw without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of each step given those before it, `(..., time, units)`."""
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)  # type: ignore[no-untyped-call]
        value = value.expand(shape)
        error = value - carried(self.coefficients, value)
        if not self.is_centred:
            error = error - self.offset
        # What the scale alone decides is small where rows share it.
        constant = -self.scale.log() - 0.5 * math.log(2 * math.pi)
        return torch.addcmul(constant, error.square(), -0.5 / self.scale.square())

    @property
    def mean(self) -> Tensor:
        """Mean of each step, `(..., time, units)`."""
        return solved(self.coefficients, self.offset.expand(self.batch_shape))

    @property
    def variance(self) -> Tensor:
        """Variance of each step, `(..., time, units)`."""
        variance = covariances(self.coefficients, self.scale)[..., 0, 0]
        return variance.expand(self.batch_shape)


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
            "prior or posterior of neurons that run step by step or miss input",
            expected="a Normal or a GaussianChain",
            got=type(distribution).__name__,
            hint='NormalPosterior() or one of pyro_vdn.guides.markov; or steps="parallel", no mask',
        )
    nothing = distribution.loc.new_zeros((1, distribution.batch_shape[-1], 1))
    scale = unexpanded(distribution.scale)
    shape = torch.Size(distribution.batch_shape)
    return GaussianChain(nothing, distribution.loc, scale, batch_shape=shape, validate_args=False)
