"""A likelihood with the last neurons integrated out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vdn.nn.low_rank import LowRankStudentT


@dataclass(frozen=True)
class LinearMoments:
    """Moments of a linear readout of independent units: mean, and covariance `W diag(v) W^T`.

    Args:
        loc: Mean, `(..., outputs)`.
        weight: `W`, `(outputs, units)`.
        variance: Variance `v` of the units, `(..., units)`.
        spread: Factor by which the outputs are stretched, broadcastable to `(..., 1)`.

    Example:
        >>> weight, variance = torch.ones(2, 3), torch.ones(5, 3)
        >>> moments = LinearMoments(torch.zeros(5, 2), weight, variance, torch.ones(()))
        >>> moments.output_variance[0]
        tensor([3., 3.])
    """

    loc: Tensor
    weight: Tensor
    variance: Tensor
    spread: Tensor

    @property
    def output_variance(self) -> Tensor:
        """Variance of each output, `(..., outputs)`."""
        return self.variance @ self.weight.square().mT * self.spread.square()

    @property
    def factor(self) -> Tensor:
        """`F` with covariance `F F^T`, `(..., outputs, units)`."""
        tiny = torch.finfo(self.variance.dtype).tiny
        deviation = self.variance.clamp_min(tiny).sqrt()
        return self.weight * (deviation * self.spread).unsqueeze(-2)

    def affine(self, shift: Tensor, spread: Tensor) -> LinearMoments:
        """Return the moments of `shift + spread * output`, both broadcastable to `(..., 1)`."""
        return replace(self, loc=shift + spread * self.loc, spread=self.spread * spread)


@dataclass(frozen=True)
class Integrated:
    r"""The predictive distribution `p(y | h) = E_{q(z | h)}[p(y | z)]`.

    It is exact or by matched moments.
    For a normal likelihood after a linear readout it is exactly normal. Otherwise mean and
    covariance are matched: after a relu by the exact moments of the rectified units, and for a
    Student-t likelihood, of covariance `nu / (nu - 2) diag(s^2)`, by a Student-t of the same `nu`
    whose shape matrix is `diag(s^2) + (nu - 2) / nu W diag(v) W^T`.

    The joint distribution of several outputs is a multivariate t, exact without noise in the
    neurons for the multivariate likelihood. Independent Student-t outputs have no such density:
    there too the joint is the multivariate t of the right mean and covariance.

    Args:
        moments: Moments of the readout.
        scale: Scale `s` of the likelihood, broadcastable to `(..., outputs)`.
        df: Degrees of freedom `nu > 2` of a Student-t likelihood, a scalar, or None for a normal
            one.
        own_factor: Low-rank factor of the likelihood itself, `(outputs, rank)`, or None.

    Example:
        >>> weight, variance = torch.ones(2, 3), torch.ones(5, 3)
        >>> moments = LinearMoments(torch.zeros(5, 2), weight, variance, torch.ones(()))
        >>> predictive = Integrated(moments, torch.ones(2))
        >>> predictive.per_output().scale[0], predictive.joint().batch_shape
        (tensor([2., 2.]), torch.Size([5]))
    """

    moments: LinearMoments
    scale: Tensor
    df: Tensor | None = None
    own_factor: Tensor | None = None

    @property
    def mean(self) -> Tensor:
        """Mean of each output, `(..., outputs)`."""
        return self.moments.loc

    @property
    def variance(self) -> Tensor:
        """Variance of each output, `(..., outputs)`."""
        return self.shape_diagonal / self._shrink

    @property
    def shape_diagonal(self) -> Tensor:
        """Squared scale of each output's marginal, `(..., outputs)`."""
        diagonal = self.scale.square() + self._shrink * self.moments.output_variance
        if self.own_factor is not None:
            diagonal = diagonal + self._stretched_own_factor().square().sum(-1)
        return diagonal

    def per_output(self) -> dist.Distribution:
        """Return the marginal of each output, batch shape `(..., outputs)`."""
        scale = self.shape_diagonal.sqrt()
        if self.df is None:
            return dist.Normal(self.mean, scale, validate_args=False)
        return dist.StudentT(self.df, self.mean, scale, validate_args=False)

    def joint(self) -> LowRankStudentT:
        """Return the joint distribution, batch shape `(...)`, event shape `(outputs,)`."""
        factor = self.moments.factor * self._shrink**0.5
        if self.own_factor is not None:
            own = self._stretched_own_factor()
            factor = torch.cat([factor, own.expand(*factor.shape[:-1], own.shape[-1])], -1)
        return LowRankStudentT(self.df, self.mean, factor, self.scale)

    def inflated(self, share: float) -> Integrated:
        """Return the distribution with the units' variance enlarged by the factor `1 + share`."""
        moments = replace(self.moments, variance=self.moments.variance * (1.0 + share))
        return replace(self, moments=moments)

    @property
    def _shrink(self) -> Tensor | float:
        """Ratio of a Student-t's squared scale to its variance."""
        return 1.0 if self.df is None else (self.df - 2.0) / self.df

    def _stretched_own_factor(self) -> Tensor:
        assert self.own_factor is not None
        return self.own_factor * self.moments.spread.unsqueeze(-1)
