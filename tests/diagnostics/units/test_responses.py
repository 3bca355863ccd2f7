from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import DeepRegression, Regression
from torch import Tensor

from pyro_vdn.diagnostics import unit_responses
from pyro_vdn.nn import VariationalNeurons

ROWS, FEATURES, UNITS = 41, 3, 5


@pytest.fixture
def data(double: None) -> tuple[Tensor, Tensor]:
    return 20.0 + torch.randn(ROWS, FEATURES), torch.randn(ROWS, 1)


def by_hand(loc: Tensor, x: Tensor) -> Any:
    both = np.corrcoef(np.concatenate([loc.detach().numpy(), x.numpy()], -1).T)
    return both[: loc.shape[1], loc.shape[1] :]


@pytest.mark.parametrize("batch_size", [1, 10, ROWS])
def test_responses_equal_correlations_of_all_rows(batch_size: int, data: Any) -> None:
    model = Regression(FEATURES, num_units=UNITS)
    batches = [
        tuple(value[start : start + batch_size] for value in data)
        for start in range(0, ROWS, batch_size)
    ]
    found = unit_responses(model, NeuronGuide(model), batches)["neurons"]
    expected = by_hand(model.neurons.posterior(model.encoder(data[0])).loc, data[0])
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_unit_answers_to_the_feature_it_reads(data: Any) -> None:
    model = Regression(FEATURES, num_units=2)
    with torch.no_grad():
        weight = torch.tensor([[0.0, -3.0, 0.0], [0.0, 0.0, 0.0]])
        model.neurons.posterior.loc.weight.copy_(weight)
        model.neurons.posterior.loc.bias.fill_(0.7)
    found = unit_responses(model, NeuronGuide(model), data)["neurons"]
    assert found[0, 1] == pytest.approx(-1.0)
    np.testing.assert_array_equal(found[1], 0.0)


def test_a_constant_feature_is_answered_by_nobody(data: Any) -> None:
    data[0][:, 2] = 3.7
    model = Regression(FEATURES, num_units=UNITS)
    found = unit_responses(model, NeuronGuide(model), [tuple(v[:20] for v in data), data])
    np.testing.assert_array_equal(found["neurons"][:, 2], 0.0)
    assert (found["neurons"][:, :2] != 0).all()


def test_every_layer_of_a_stack_answers(data: Any) -> None:
    model = DeepRegression(FEATURES, num_units=(4, 2))
    found = unit_responses(model, NeuronGuide(model), data)
    assert {path: values.shape for path, values in found.items()} == {
        "layers.0": (4, FEATURES),
        "layers.1": (2, FEATURES),
    }


class Sequence(pyro.nn.PyroModule):  # type: ignore[misc]
    """Neurons of several latent dimensions at every place of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(3, UNITS, latent_dim=2)

    def forward(self, x: Tensor, other: Tensor, y: Tensor | None = None) -> Any:
        with pyro.plate("data", len(x), dim=-3), pyro.plate("places", x.shape[1], dim=-2):
            z = self.neurons(x + other.unsqueeze(1))
        with pyro.plate("rows", len(x), dim=-2):
            return pyro.sample("y", dist.Normal(z.mean((-2, -1)).unsqueeze(-1), 1.0), obs=y)


def test_places_are_averaged_and_the_strongest_latent_answers(double: None) -> None:
    model, x, other = Sequence(), torch.randn(ROWS, 4, 3), torch.randn(ROWS, 3)
    found = unit_responses(model, NeuronGuide(model), (x, other, torch.zeros(ROWS, 1)))["neurons"]
    loc = model.neurons.posterior(x + other.unsqueeze(1)).base_dist.loc.mean(1)
    features = torch.cat([x.flatten(1), other], -1)
    first, second = (by_hand(loc[..., latent], features) for latent in (0, 1))
    expected = np.where(np.abs(first) > np.abs(second), first, second)
    np.testing.assert_allclose(found, expected, atol=1e-9)
