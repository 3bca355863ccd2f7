"""What a single pass refuses."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO
from pyro_vdn.nn import VariationalNeurons

X, Y = torch.linspace(-1, 1, 18, dtype=torch.float64).reshape(6, 3), torch.zeros(6, 1)


def test_undeclared_rows_are_refused() -> None:
    neurons = VariationalNeurons(3, 1)

    def model(x: Tensor, y: Tensor) -> None:
        z = neurons(x)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("y", dist.Normal(z[..., 0], 1.0), obs=y[:, 0])

    with pytest.raises(InputError, match="site 'z': expected every batch dimension in a plate"):
        LocalELBO().loss(model, NeuronGuide(model), X, Y)


def test_latent_without_pathwise_gradient_is_refused() -> None:
    def model(x: Tensor, y: Tensor) -> None:
        heads = pyro.sample("heads", dist.Bernoulli(0.5))
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("y", dist.Normal(heads + torch.zeros(6, 1), 1.0), obs=y)

    with pytest.raises(InputError, match=r"site 'heads': .* without a pathwise gradient"):
        LocalELBO().differentiable_loss(model, NeuronGuide(model), X, Y)
