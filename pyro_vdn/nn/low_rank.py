"""A Student-t over several outputs whose shape matrix is low rank plus diagonal."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor


class LowRankStudentT(TorchDistribution):
    r"""The multivariate Student-t `t_nu(loc, S)` with `S = F F^T + diag(d^2)`.

    `log p(y) = log Gamma((nu + H) / 2) - log Gamma(nu / 2) - H/2 log(nu pi) - 1/2 log det S
    - (nu + H)/2 log(1 + m / nu)`, with `m = (y - loc)^T S^{-1} (y - loc)`. Determinant and distance
    cost `O(H R min(H, R))` by the matrix determinant lemma and the Woodbury identity. Where `df` is
    None it is the multivariate normal.

    Args:
        df: Degrees of freedom `nu > 0`, broadcastable to the batch shape, or None for the normal
            limit.
        loc: Location, `(..., H)`.
        factor: `F`, `(..., H, R)`.
        scale: `d`, `(..., H)`, positive.

    Example:
        >>> df, loc = torch.tensor(5.0), torch.zeros(2, 3)
        >>> d = LowRankStudentT(df, loc, torch.ones(3, 1), torch.ones(3))
        >>> d.batch_shape, d.event_shape, d.log_prob(torch.zeros(2, 3)).shape
        (torch.Size([2]), torch.Size([3]), torch.Size([2]))

    Source:
        Kotz, Nadarajah, *Multivariate t Distributions and Their Applications*, 2004, eq. 1.1.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - torch's own name and type
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, df: Tensor | None, loc: Tensor, factor: Tensor, scale: Tensor) -> None:
        if loc.dtype in (torch.bfloat16, torch.float16):
            loc = loc.float()  # there are no factorisations and gamma draws in half precision
        factor, scale = factor.to(loc.dtype), scale.to(loc.dtype)
        shape = _broadcast(loc.shape, factor.shape[:-1], scale.shape)
        if df is not None:
            df = df.to(loc.dtype)
            shape = _broadcast(shape, torch.Size((*df.shape, 1)))
        self.df = df
        self.loc = loc.expand(shape)
        self.factor = factor
        self.scale = scale.expand(*scale.shape[:-1], shape[-1])  # one scale stands for every output
        super().__init__(shape[:-1], shape[-1:], validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> LowRankStudentT:
        """Return the same distribution over a larger batch."""
        loc = self.loc.expand(torch.Size(batch_shape) + self.event_shape)
        return LowRankStudentT(self.df, loc, self.factor, self.scale)

    def per_output(self) -> dist.Distribution:
        """Return the exact marginal of each output: univariate, batch shape `(..., H)`."""
        scale = (self.scale.square() + self.factor.square().sum(-1)).sqrt()
        if self.df is None:
            return dist.Normal(self.loc, scale)
        return dist.StudentT(self.df.unsqueeze(-1), self.loc, scale)

    @property
    def mean(self) -> Tensor:
        """The location, `(..., H)`; infinite tails (`nu <= 1`) have none."""
        return self.loc

    @property
    def covariance(self) -> Tensor:
        """Covariance matrix `nu / (nu - 2) S`, `(..., H, H)`."""
        shape = self.factor @ self.factor.mT + torch.diag_embed(self.scale.square())
        return shape if self.df is None else shape * (self.df / (self.df - 2))[..., None, None]

    @property
    def variance(self) -> Tensor:
        """Variance of each output, `(..., H)`."""
        shape = self.scale.square() + self.factor.square().sum(-1)
        variance = shape if self.df is None else shape * (self.df / (self.df - 2)).unsqueeze(-1)
        return variance.expand(self.loc.shape)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Draw with gradients; one chi-square draw per row is shared by all its outputs."""
        shape = self._extended_shape(sample_shape)
        own = self.scale * self.loc.new_empty(shape).normal_()
        draw = own + self._shared_noise(torch.Size(sample_shape), shape)
        if self.df is not None:
            df = self.df.expand(shape[:-1])
            chi2 = dist.Chi2(df, validate_args=False).rsample()
            draw = draw * (df / chi2).sqrt().unsqueeze(-1)
        return self.loc + draw

    def _shared_noise(self, sample_shape: torch.Size, shape: torch.Size) -> Tensor:
        """Return `F e` for standard normal `e`, one matrix product for all draws of a row."""
        draws, rank = sample_shape.numel(), self.factor.shape[-1]
        noise = self.loc.new_empty((*self.batch_shape, rank, draws)).normal_()
        shared = (self.factor @ noise).movedim(-1, 0)  # (..., H, draws) -> (draws, ..., H)
        return shared.reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the joint log density, `(...)`, of `value` of shape `(..., H)`."""
        outputs: int = self.event_shape[0]
        distance, log_det = self._distance_and_log_det(value - self.loc)
        if self.df is None:
            return -0.5 * (distance + log_det + outputs * math.log(2 * math.pi))
        nu = self.df
        normaliser = (
            torch.lgamma(0.5 * (nu + outputs))
            - torch.lgamma(0.5 * nu)
            - 0.5 * outputs * (nu * math.pi).log()
        )
        return normaliser - 0.5 * log_det - 0.5 * (nu + outputs) * torch.log1p(distance / nu)

    def _distance_and_log_det(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        whitened = residual / self.scale
        factor = self.factor / self.scale.unsqueeze(-1)  # D^-1/2 F: (..., H, R)
        log_det = 2 * self.scale.log().sum(-1)
        outputs, rank = factor.shape[-2:]
        if rank == 0:
            return whitened.square().sum(-1), log_det
        if rank < outputs:
            tril = _cholesky_of_identity_plus(factor.mT @ factor)
            projected = torch.linalg.solve_triangular(
                tril, factor.mT @ whitened.unsqueeze(-1), upper=False
            )
            distance = whitened.square().sum(-1) - projected.square().sum((-2, -1))
        else:
            tril = _cholesky_of_identity_plus(factor @ factor.mT)
            solved = torch.linalg.solve_triangular(tril, whitened.unsqueeze(-1), upper=False)
            distance = solved.square().sum((-2, -1))
        diagonal = tril.diagonal(dim1=-2, dim2=-1)
        return distance, log_det + 2 * diagonal.log().sum(-1)


def _broadcast(*shapes: torch.Size) -> torch.Size:
    shape: torch.Size = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    return shape


def _cholesky_of_identity_plus(gram: Tensor) -> Tensor:
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    tril: Tensor = torch.linalg.cholesky(gram + identity)
    return tril
