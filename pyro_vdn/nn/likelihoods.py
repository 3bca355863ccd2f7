"""Likelihoods as modules: each returns a distribution for a location.

Those of continuous outcomes can also integrate the last neurons out.
"""

from __future__ import annotations

from typing import Literal, get_args

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.nn.integrated import Integrated, LinearMoments
from pyro_vdn.nn.low_rank import LowRankStudentT
from pyro_vdn.nn.shapes import check_positive, inverse_softplus

LikelihoodScale = Literal["shared", "output", "low_rank"]


class OutputScale(nn.Module):
    r"""The scale of a likelihood: one number, one per output, or low rank in features.

    The low-rank scale is `softplus(U tanh(V f) + b)`, of rank r in features `f`.

    Args:
        num_outputs: Number of outputs.
        mode: ``"shared"``, ``"output"`` or ``"low_rank"``.
        in_features: Size of the features that a low-rank scale reads.
        rank: Rank r of a low-rank scale.
        initial_scale: Scale at the start, positive.
        min_scale: Floor under the scale.

    Raises:
        InputError: For an unknown mode, or a low-rank scale without `in_features`.

    Example:
        >>> OutputScale(2, "low_rank", in_features=3)(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        num_outputs: int,
        mode: LikelihoodScale = "output",
        *,
        in_features: int | None = None,
        rank: int = 8,
        initial_scale: float = 1.0,
        min_scale: float = 1e-3,
    ) -> None:
        super().__init__()
        check_positive(num_outputs=num_outputs, rank=rank)
        if mode not in get_args(LikelihoodScale):
            raise InputError(
                "scale",
                expected=f"one of {get_args(LikelihoodScale)}",
                got=repr(mode),
                hint="scale='output'",
            )
        self.num_outputs = num_outputs
        self.min_scale = min_scale
        raw = inverse_softplus(initial_scale - min_scale)
        self.head: nn.Sequential | None = None
        if mode == "low_rank":
            if in_features is None:
                raise InputError(
                    "in_features",
                    expected="the size of the features",
                    got="None",
                    hint="in_features=h.shape[-1]",
                )
            last = nn.Linear(rank, num_outputs)
            nn.init.normal_(last.weight, std=1e-3)
            nn.init.constant_(last.bias, raw)
            self.head = nn.Sequential(nn.Linear(in_features, rank), nn.Tanh(), last)
        else:
            size = (1,) if mode == "shared" else (num_outputs,)
            self.raw = nn.Parameter(torch.full(size, raw))

    def forward(self, features: Tensor | None) -> Tensor:
        """Return the scale for features of shape `(..., in_features)`.

        Its shape is `(1,)`, `(num_outputs,)` or, for a low-rank scale, `(..., num_outputs)`.
        """
        if self.head is None:
            return self.min_scale + F.softplus(self.raw)
        if features is None:
            raise InputError(
                "features",
                expected="the features that the scale reads",
                got="None",
                hint="likelihood(loc, h)",
            )
        return self.min_scale + F.softplus(self.head(features))


class DegreesOfFreedom(nn.Module):
    r"""Learned degrees of freedom `nu = 2 + exp(raw)`: above 2, so that the variance exists.

    Args:
        initial: Value at the start, above 2.

    Raises:
        InputError: For an initial value of 2 or less.

    Example:
        >>> round(DegreesOfFreedom(5.0)().item(), 4)
        5.0
    """

    def __init__(self, initial: float) -> None:
        super().__init__()
        if not initial > 2:
            raise InputError(
                "initial_df",
                expected="more than 2 degrees of freedom",
                got=str(initial),
                hint="initial_df=6.0",
            )
        self.raw = nn.Parameter(torch.tensor(initial - 2.0).log())

    def forward(self) -> Tensor:
        """Return the degrees of freedom, a scalar."""
        return 2.0 + self.raw.clamp(-6.0, 6.0).exp()


class NormalLikelihood(nn.Module):
    r"""The likelihood `y_j ~ Normal(loc_j, s_j^2)`, independent outputs.

    Args:
        scale: The scale of the outputs.

    Shape:
        `loc` is `(..., num_outputs)`; so is the batch shape of the distribution.

    Example:
        >>> NormalLikelihood(OutputScale(2))(torch.zeros(5, 2)).batch_shape
        torch.Size([5, 2])
    """

    def __init__(self, scale: OutputScale) -> None:
        super().__init__()
        self.scale = scale

    def forward(
        self, loc: Tensor, features: Tensor | None = None, *, spread: Tensor | float = 1.0
    ) -> dist.Distribution:
        """Return the distribution of the outputs.

        Args:
            loc: Location, `(..., num_outputs)`.
            features: What the scale reads, `(..., in_features)`.
            spread: Factor on the scale, broadcastable to `(..., 1)`.

        Returns:
            A distribution of batch shape `(..., num_outputs)`.
        """
        return dist.Normal(loc, self.scale(features) * spread, validate_args=False)

    def integrate(self, moments: LinearMoments, features: Tensor | None = None) -> Integrated:
        """Return the predictive distribution of the outputs for the moments of a linear readout."""
        return Integrated(moments, self.scale(features) * moments.spread)


class StudentTLikelihood(nn.Module):
    r"""The likelihood `y_j ~ StudentT(nu, loc_j, s_j)`, independent outputs, with learned `nu > 2`.

    Args:
        scale: The scale of the outputs.
        initial_df: Degrees of freedom `nu` at the start, above 2.

    Shape:
        `loc` is `(..., num_outputs)`; so is the batch shape of the distribution.

    Example:
        >>> StudentTLikelihood(OutputScale(2), initial_df=5.0)(torch.zeros(5, 2)).batch_shape
        torch.Size([5, 2])
    """

    def __init__(self, scale: OutputScale, *, initial_df: float = 6.0) -> None:
        super().__init__()
        self.scale = scale
        self.df = DegreesOfFreedom(initial_df)

    def forward(
        self, loc: Tensor, features: Tensor | None = None, *, spread: Tensor | float = 1.0
    ) -> dist.Distribution:
        """Return the distribution of the outputs; arguments and shapes as in `NormalLikelihood`."""
        return dist.StudentT(self.df(), loc, self.scale(features) * spread, validate_args=False)

    def integrate(self, moments: LinearMoments, features: Tensor | None = None) -> Integrated:
        """Return the predictive distribution of the outputs for the moments of a linear readout."""
        return Integrated(moments, self.scale(features) * moments.spread, df=self.df())


class MultivariateNormalLikelihood(nn.Module):
    r"""The likelihood `y ~ Normal(loc, L L^T + diag(s^2))` over all outputs jointly.

    The outputs are an event dimension; the batch keeps a dimension of size 1 in their place, so
    that rows stay at -2.

    Args:
        scale: The diagonal scale of the outputs.
        covariance_rank: Rank of `L`; 0 for a diagonal covariance.

    Shape:
        `loc` is `(..., num_outputs)`; the distribution has batch shape `(..., 1)` and event shape
        `(num_outputs,)`.

    Example:
        >>> d = MultivariateNormalLikelihood(OutputScale(3), covariance_rank=1)(torch.zeros(5, 3))
        >>> d.batch_shape, d.event_shape
        (torch.Size([5, 1]), torch.Size([3]))
    """

    factor: nn.Parameter | None

    def __init__(self, scale: OutputScale, *, covariance_rank: int = 0) -> None:
        super().__init__()
        self.scale = scale
        factor = 0.01 * torch.randn(scale.num_outputs, covariance_rank) if covariance_rank else None
        self.register_parameter("factor", None if factor is None else nn.Parameter(factor))

    def degrees_of_freedom(self) -> Tensor | None:
        """Return None: the normal has none."""
        return None

    def forward(
        self, loc: Tensor, features: Tensor | None = None, *, spread: Tensor | float = 1.0
    ) -> LowRankStudentT:
        """Return the joint distribution of the outputs, batch shape `(..., 1)`.

        Args:
            loc: Location, `(..., num_outputs)`.
            features: What the scale reads, `(..., in_features)`.
            spread: Factor on scale and factor, broadcastable to `(..., 1)`.
        """
        scale = (self.scale(features) * spread).expand(loc.shape).unsqueeze(-2)
        factor = loc.new_zeros(loc.shape[-1], 0) if self.factor is None else self.factor
        stretch = torch.as_tensor(spread, dtype=loc.dtype, device=loc.device).unsqueeze(-1)
        factor = (factor * stretch).expand(*loc.shape, -1).unsqueeze(-3)
        return LowRankStudentT(self.degrees_of_freedom(), loc.unsqueeze(-2), factor, scale)

    def integrate(self, moments: LinearMoments, features: Tensor | None = None) -> Integrated:
        """Return the predictive distribution of the outputs for the moments of a linear readout."""
        scale = self.scale(features) * moments.spread
        return Integrated(moments, scale, df=self.degrees_of_freedom(), own_factor=self.factor)


class MultivariateStudentTLikelihood(MultivariateNormalLikelihood):
    r"""The likelihood `y ~ t_nu(loc, L L^T + diag(s^2))` over all outputs jointly.

    The degrees of freedom `nu > 2` are learned. One chi-square draw scales all outputs of a row
    together: a row is calm or wild as a whole.

    Args:
        scale: The diagonal scale of the outputs.
        covariance_rank: Rank of `L`; 0 for a diagonal shape matrix.
        initial_df: Degrees of freedom `nu` at the start, above 2.

    Shape:
        `loc` is `(..., num_outputs)`; the distribution has batch shape `(..., 1)` and event shape
        `(num_outputs,)`.

    Example:
        >>> MultivariateStudentTLikelihood(OutputScale(3))(torch.zeros(5, 3)).batch_shape
        torch.Size([5, 1])
    """

    def __init__(
        self, scale: OutputScale, *, covariance_rank: int = 0, initial_df: float = 6.0
    ) -> None:
        super().__init__(scale, covariance_rank=covariance_rank)
        self.df = DegreesOfFreedom(initial_df)

    def degrees_of_freedom(self) -> Tensor:
        """Return the degrees of freedom, a scalar above 2."""
        df: Tensor = self.df()
        return df


class CategoricalLikelihood(nn.Module):
    """The likelihood `y ~ Categorical(softmax(logits))`.

    The classes are no batch dimension; a dimension of size 1 keeps their place, so that rows stay
    at -2.

    Shape:
        `logits` is `(..., classes)`; the distribution has batch shape `(..., 1)`.

    Example:
        >>> CategoricalLikelihood()(torch.zeros(5, 10)).batch_shape
        torch.Size([5, 1])
    """

    def __init__(self) -> None:
        super().__init__()

    def forward(self, logits: Tensor) -> dist.Distribution:
        """Return the distribution of the class, for `logits` of shape `(..., classes)`."""
        return dist.Categorical(logits=logits.unsqueeze(-2))
