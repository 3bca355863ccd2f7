"""A stack of layers of distributional neurons."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.nn import (
    ConditionalNormal,
    LinearReadout,
    NormalPosterior,
    OutputScale,
    StudentTLikelihood,
    VariationalNeurons,
)
from pyro_vdn.nn.shapes import check_choice, check_rows_at, check_targets


class DeepRegression(PyroModule):
    r"""Regression through several layers of neurons, each fed by the samples of the layer below.

    `z_1 ~ p(z_1)`, `z_l ~ p(z_l | z_{l-1})`, `y | z_L ~ StudentT(nu, W relu(z_L) + b, s)`. With
    ``prior="conditional"`` the layers form a ladder: each prior is conditional on the sample below.
    The readout offers its closed form over the last layer, given draws of the others.

    Args:
        num_features: Number of features.
        num_outputs: Number of outputs.
        num_units: Number of neurons of each layer.
        prior: ``"standard"``, or ``"conditional"`` from the second layer on.
        initial_scale: Scale of every neuron at the start.

    Shape:
        `x` is `(..., rows, num_features)`, `y` is `(..., rows, num_outputs)`, standardised; sites
        ``layers.0.z``, ``layers.1.z``, ... and ``y``.

    Raises:
        InputError: For no layer at all, or an unknown prior.

    Example:
        >>> DeepRegression(8, num_units=(20, 20))(torch.zeros(5, 8)).shape
        torch.Size([5, 1])
    """

    def __init__(
        self,
        num_features: int,
        num_outputs: int = 1,
        *,
        num_units: Sequence[int] = (32, 32),
        prior: Literal["standard", "conditional"] = "standard",
        initial_scale: float = 0.1,
    ) -> None:
        super().__init__()
        if not num_units:
            raise InputError(
                "num_units", expected="at least one layer", got="none", hint="num_units=(32, 32)"
            )
        check_choice("prior", prior, ("standard", "conditional"))
        self.num_features = num_features
        sizes = [num_features, *num_units]
        self.layers = nn.ModuleList(
            VariationalNeurons(
                size,
                next_size,
                prior=ConditionalNormal() if prior == "conditional" and level > 0 else None,
                posterior=NormalPosterior("unit", initial_scale=initial_scale),
            )
            for level, (size, next_size) in enumerate(pairwise(sizes))
        )
        self.readout = LinearReadout(sizes[-1], num_outputs, activation="relu")
        self.likelihood = StudentTLikelihood(OutputScale(num_outputs, initial_scale=0.5))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Sample or observe the outputs of `x`, shape `(..., rows, num_outputs)`."""
        check_rows_at("x", x, self.num_features)
        check_targets("y", y, x, self.readout.linear.out_features)
        with pyro.plate("data", x.shape[-2], dim=-2):
            first, *rest = self.layers
            z = first(x)
            for layer in rest:
                z = layer(torch.relu(z))
            outcome = self.likelihood(self.readout(z))
            offer = self.readout.offer(z, self.likelihood)
            sampled: Tensor = pyro.sample("y", outcome, obs=y, infer=offer)
        return sampled
