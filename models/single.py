"""One neuron under the microscope."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn

from pyro_vdn.nn import VariationalNeurons
from pyro_vdn.nn.shapes import check_rows_at, check_targets


class SingleNeuron(PyroModule):
    r"""The smallest model with a neuron: `z ~ p(z)` and `y | z ~ Normal(w z + b, s^2)`.

    The posterior is `q(z | x) = Normal(m x + c, t^2)`. With the default prior everything is linear
    and Gaussian: given `x = y` the exact posterior and the evidence are known (`pyro_vdn.testing`),
    so each part of the neuron can be compared with the truth.

    Args:
        in_features: Number of inputs that the posterior reads.
        prior: Prior of the neuron; default `StandardNormal()`.
        posterior: Posterior of the neuron; default `NormalPosterior(scale="unit")`.
        local_reconstruction: Whether the neuron also reconstructs its own projection of the input.

    Shape:
        `x` is `(..., rows, in_features)`, `y` is `(..., rows, 1)`; sites ``neuron.z`` and ``y``.

    Example:
        >>> SingleNeuron()(torch.zeros(5, 1)).shape
        torch.Size([5, 1])
    """

    def __init__(
        self,
        in_features: int = 1,
        *,
        prior: nn.Module | None = None,
        posterior: nn.Module | None = None,
        local_reconstruction: bool = False,
    ) -> None:
        super().__init__()
        self.neuron = VariationalNeurons(
            in_features,
            1,
            prior=prior,
            posterior=posterior,
            local_reconstruction=local_reconstruction,
        )
        self.readout = nn.Linear(1, 1)
        self.noise = PyroParam(torch.tensor(0.5), constraint=constraints.positive)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Sample or observe the outcome of `x`, shape `(..., rows, 1)`."""
        check_rows_at("x", x, self.neuron.shape.in_features)
        check_targets("y", y, x, 1)
        with pyro.plate("data", x.shape[-2], dim=-2):
            z = self.neuron(x)
            sampled: Tensor = pyro.sample("y", dist.Normal(self.readout(z), self.noise), obs=y)
        return sampled
