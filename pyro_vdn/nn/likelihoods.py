"""Likelihoods as modules: each returns a distribution for a location.

Those of continuous outcomes can also integrate the last neurons out.
"""

from __future__ import annotations

from typing import Literal, get_args

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_vdn.nn.integrated import Integrated, LinearMoments
from pyro_vdn.nn.low_rank import LowRankStudentT
from pyro_vdn.nn.scales import DegreesOfFreedom, OutputScale
from pyro_vdn.nn.shapes import check_choice
from pyro_vdn.nn.unit_measures import precise

CountLink = Literal["exp", "softplus"]


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


class NegativeBinomialLikelihood(nn.Module):
    r"""The likelihood of counts `y_j ~ NegativeBinomial(mean m_j, dispersion a_j)`.

    `m = exp(loc)`, or `softplus(loc)`, and the variance is `m + a m^2`: above a Poisson's by the
    share `a m`, and a Poisson's in the limit `a = 0`. Outputs are independent.

    Args:
        dispersion: The dispersion `a` of the outputs, positive.
        link: ``"exp"``, by which units multiply the mean, or ``"softplus"``, by which they add to
            it where it is large.

    Shape:
        `loc` is `(..., num_outputs)`; so is the batch shape of the distribution. Draws are floats
        that hold integers.

    Raises:
        InputError: For an unknown link.

    Example:
        >>> likelihood = NegativeBinomialLikelihood(OutputScale(2, initial_scale=0.5))
        >>> counts = likelihood(torch.zeros(5, 2))
        >>> counts.mean[0].detach(), counts.variance[0].detach()
        (tensor([1., 1.]), tensor([1.5000, 1.5000]))
    """

    def __init__(self, dispersion: OutputScale, *, link: CountLink = "exp") -> None:
        super().__init__()
        check_choice("link", link, get_args(CountLink))
        self.dispersion = dispersion
        self.link = link

    def forward(self, loc: Tensor, features: Tensor | None = None) -> dist.Distribution:
        """Return the distribution of the counts.

        Args:
            loc: Mean before the link, `(..., num_outputs)`.
            features: What the dispersion reads, `(..., in_features)`.

        Returns:
            A distribution of batch shape `(..., num_outputs)`.
        """
        log_mean = loc if self.link == "exp" else F.softplus(loc).log()
        dispersion = self.dispersion(features)
        # In torch's terms the mean is `total_count * exp(logits)`.
        return dist.NegativeBinomial(
            dispersion.reciprocal(), logits=log_mean + dispersion.log(), validate_args=False
        )


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
        """Return the distribution of the class, for `logits` of shape `(..., classes)`.

        Half precision, such as that of mixed precision, is left here: probabilities that it holds
        add up to 1 only to some percent.
        """
        return dist.Categorical(logits=precise(logits).unsqueeze(-2))
