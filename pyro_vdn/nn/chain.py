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

    Shape:
        Batch shape `(..., time, units)`, event shape `()`.

    Example:
        >>> chain = GaussianChain(torch.full((1, 2, 1), 0.5), None, torch.ones(3, 2))
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
        offset: Tensor | None,
        scale: Tensor,
        *,
        batch_shape: torch.Size | None = None,
    ) -> None:
        self.coefficients = coefficients
        self.is_centred = offset is None
        self._means: dict[bool, Tensor] = {}
        self.offset = scale.new_zeros(()) if offset is None else offset
        self.scale = scale
        shape: torch.Size = (
            batch_shape
            or torch.broadcast_shapes(  # type: ignore[no-untyped-call]
                coefficients.shape[:-1], self.offset.shape, scale.shape
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
        offset = None if self.is_centred else self.offset
        return GaussianChain(self.coefficients, offset, self.scale, batch_shape=shape)

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
        loc = carried(self.coefficients, value) + self.offset
        residual = (value - loc) / self.scale
        return -0.5 * residual.square() - self.scale.log() - 0.5 * math.log(2 * math.pi)

    @property
    def mean(self) -> Tensor:
        """Mean of each step, `(..., time, units)`; the chain remembers it for whoever asks next."""
        grad = torch.is_grad_enabled()
        if grad not in self._means:
            self._means[grad] = solved(self.coefficients, self.offset.expand(self.batch_shape))
        return self._means[grad]

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
            "posterior of neurons with memory",
            expected="a Normal or a GaussianChain",
            got=type(distribution).__name__,
            hint="NormalPosterior(), or a guide of pyro_vdn.guides.markov",
        )
    nothing = distribution.loc.new_zeros((1, distribution.batch_shape[-1], 1))
    scale = unexpanded(distribution.scale)
    scale = scale.expand(*scale.shape[:-2], *distribution.batch_shape[-2:])
    return GaussianChain(
        nothing, distribution.loc, scale, batch_shape=torch.Size(distribution.batch_shape)
    )
