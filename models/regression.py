"""Regression with a layer of distributional neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pyro
from pyro.nn import PyroModule
from torch import Tensor

from pyro_vdn.nn import (
    LinearReadout,
    MLPEncoder,
    NormalLikelihood,
    NormalPosterior,
    OutputScale,
    StudentTLikelihood,
    VariationalNeurons,
)
from pyro_vdn.nn.shapes import check_choice, check_rows_at, check_targets


class Regression(PyroModule):
    r"""Regression whose hidden units are random: `z ~ p(z)`, `y | z ~ likelihood(W relu(z) + b)`.

    The neurons are the pre-activations of the last hidden layer, with posterior
    `Normal(mu(h), sigma^2)` for `h = encoder(x)`, and the readout offers its closed form. Its twin,
    `deterministic(model)`, is the ordinary network with one hidden layer more than `hidden` has
    sizes.

    Args:
        num_features: Number of features.
        num_outputs: Number of outputs.
        num_units: Number of neurons.
        hidden: Sizes of deterministic hidden layers before the neurons.
        likelihood: ``"student_t"`` or ``"normal"``.
        initial_scale: Scale of every neuron at the start.

    Shape:
        `x` is `(..., rows, num_features)`, `y` is `(..., rows, num_outputs)`, standardised; sites
        ``neurons.z`` and ``y``.

    Example:
        >>> import torch
        >>> Regression(8)(torch.zeros(5, 8)).shape
        torch.Size([5, 1])
    """

    def __init__(
        self,
        num_features: int,
        num_outputs: int = 1,
        *,
        num_units: int = 50,
        hidden: Sequence[int] = (),
        likelihood: Literal["student_t", "normal"] = "student_t",
        initial_scale: float = 0.3,
    ) -> None:
        super().__init__()
        check_choice("likelihood", likelihood, ("student_t", "normal"))
        self.encoder = MLPEncoder(num_features, hidden)
        self.neurons = VariationalNeurons(
            self.encoder.out_features,
            num_units,
            posterior=NormalPosterior("unit", initial_scale=initial_scale),
        )
        self.readout = LinearReadout(num_units, num_outputs, activation="relu")
        scale = OutputScale(num_outputs, initial_scale=0.5)
        self.likelihood = (
            StudentTLikelihood(scale) if likelihood == "student_t" else NormalLikelihood(scale)
        )

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Sample or observe the outputs of `x`, shape `(..., rows, num_outputs)`."""
        check_rows_at("x", x, self.encoder.in_features)
        check_targets("y", y, x, self.readout.linear.out_features)
        with pyro.plate("data", x.shape[-2], dim=-2):
            z = self.neurons(self.encoder(x))
            outcome = self.likelihood(self.readout(z))
            offer = self.readout.offer(z, self.likelihood)
            sampled: Tensor = pyro.sample("y", outcome, obs=y, infer=offer)
        return sampled
