"""Readouts whose moments are known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor, nn

from pyro_vdn.nn.integrated import Integrated, LinearMoments
from pyro_vdn.nn.moments import Moments, relu_moments
from pyro_vdn.nn.shapes import check_choice
from pyro_vdn.nn.sites import MARGINAL

Activation = Literal["identity", "relu"]


class Units(NamedTuple):
    """The units in which outputs are observed: `shift + spread * readout`.

    Args:
        shift: Broadcastable to `(..., 1)`.
        spread: Positive, broadcastable to `(..., 1)`.

    Example:
        >>> Units(torch.tensor(1.0), torch.tensor(2.0)).restore(torch.tensor([3.0]))
        tensor([7.])
    """

    shift: Tensor
    spread: Tensor

    def restore(self, values: Tensor) -> Tensor:
        """Return values `(..., outputs)` in the units of the observations."""
        return self.shift + self.spread * values


class IntegrableLikelihood(Protocol):
    """A likelihood module that can integrate the moments of a linear readout.

    Example:
        >>> from pyro_vdn.nn import NormalLikelihood, OutputScale
        >>> likelihood: IntegrableLikelihood = NormalLikelihood(OutputScale(2))
        >>> moments = LinearReadout(3, 2).moments(Moments(torch.zeros(5, 3), torch.ones(5, 3)))
        >>> likelihood.integrate(moments).mean.shape
        torch.Size([5, 2])
    """

    def integrate(self, moments: LinearMoments, features: Tensor | None = None) -> Integrated:
        """Return the predictive distribution of the outputs.

        Args:
            moments: Moments of the readout, of outputs `(..., outputs)`.
            features: What the likelihood's scale reads, `(..., features)`, where it reads anything.

        Returns:
            The likelihood with the readout's units integrated out.
        """
        ...


class MarginalOffer(NamedTuple):
    """The offer of a likelihood site: which layer output it reads, and how to integrate it out.

    Args:
        reads: The tensor that a layer of neurons passed on.
        integrate: A function from the moments of that output to the predictive distribution.

    Example:
        >>> from pyro_vdn.nn import NormalLikelihood, OutputScale
        >>> readout = LinearReadout(3, 2)
        >>> z = torch.zeros(5, 3)
        >>> offer = readout.offer(z, NormalLikelihood(OutputScale(2)))[MARGINAL]
        >>> offer.integrate(Moments(z, torch.ones(5, 3))).mean.shape
        torch.Size([5, 2])
    """

    reads: Tensor
    integrate: Callable[[Moments], Integrated]


class LinearReadout(nn.Module):
    r"""The readout `W act(z) + b`, with mean and covariance in closed form for normal units.

    For `z_i ~ Normal(mu_i, sigma_i^2)` independent, with `m_i` and `v_i` the exact mean and
    variance of `act(z_i)`: mean `W m + b`, covariance `W diag(v) W^T`.

    Args:
        in_features: Number of units read.
        out_features: Number of outputs.
        activation: ``"identity"`` or ``"relu"``.

    Shape:
        Input `(..., in_features)`; output `(..., out_features)`.

    Raises:
        InputError: For an unknown activation.

    Example:
        >>> readout = LinearReadout(3, 2)
        >>> readout(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
        >>> readout.moments(Moments(torch.zeros(5, 3), torch.ones(5, 3))).output_variance.shape
        torch.Size([5, 2])
    """

    def __init__(
        self, in_features: int, out_features: int, *, activation: Activation = "identity"
    ) -> None:
        super().__init__()
        check_choice(
            "activation",
            activation,
            get_args(Activation),
            hint="apply other activations with torch and train with LocalELBO",
        )
        self.activation = activation
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, z: Tensor) -> Tensor:
        """Read the units `z` of shape `(..., in_features)`."""
        output: Tensor = self.linear(torch.relu(z) if self.activation == "relu" else z)
        return output

    def moments(self, units: Moments) -> LinearMoments:
        """Return the moments of the readout, given those of its units."""
        if self.activation == "relu":
            units = relu_moments(units)
        spread = units.mean.new_ones(())
        return LinearMoments(self.linear(units.mean), self.linear.weight, units.variance, spread)

    def offer(
        self,
        z: Tensor,
        likelihood: IntegrableLikelihood,
        features: Tensor | None = None,
        *,
        units: Units | None = None,
    ) -> dict[str, MarginalOffer]:
        """Return an `infer` dictionary that offers a likelihood with its neurons integrated out.

        Sampling programs ignore the offer; the closed form of `PACmELBO` and `predict` take it.

        Args:
            z: The output of a layer of neurons, as this readout reads it, `(..., in_features)`.
            likelihood: The likelihood that the site observes; it must depend on `z` through this
                readout alone.
            features: What the likelihood's scale depends on, `(..., features)`, where it depends on
                anything.
            units: The units of the observations, where the readout is restored to them.

        Returns:
            A dictionary for `pyro.sample(..., infer=...)`.
        """

        def integrate(moments: Moments) -> Integrated:
            read = self.moments(moments)
            if units is not None:
                read = read.affine(*units)
            return likelihood.integrate(read, features)

        return {MARGINAL: MarginalOffer(z, integrate)}
