"""The layers of a model, and what a scale costs alone."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from pyro_vdn.models import DeepRegression, Regression
from torch import Tensor, nn

from pyro_vdn.control import initial_scale_cost, neuron_layers, scale_cost
from pyro_vdn.errors import InputError
from pyro_vdn.nn import LearnedNormal, NormalPosterior, VariationalNeurons
from pyro_vdn.poutine import kl_weight, record


@pytest.mark.parametrize(
    ("ratio", "cost"),
    [
        (1.0, 0.0),
        (0.5, 0.3181471806),  # (0.25 - 1) / 2 + log 2
        (2.0, 0.8068528194),  # (4 - 1) / 2 - log 2
        (0.3, 0.7489728043),
        (0.1, 1.8075850930),
        (math.e, 2.1945280495),  # (e^2 - 1) / 2 - 1
    ],
)
def test_scale_cost(ratio: float, cost: float) -> None:
    mine = scale_cost(torch.tensor([ratio]))
    torch.testing.assert_close(mine, torch.tensor([cost]), rtol=0, atol=1e-10)


class TwoScales(nn.Module):
    """A prior whose units differ: scales 1 and 2."""

    def forward(self, h: Tensor) -> dist.Distribution:
        return dist.Normal(torch.zeros(2), torch.tensor([1.0, 2.0]))


class StudentT(nn.Module):
    def forward(self, h: Tensor) -> dist.Distribution:
        return dist.StudentT(torch.tensor(1.5), torch.zeros(()), 1.0)  # its variance is infinite


@pytest.mark.parametrize(
    ("prior", "latent_dim", "scale", "cost"),
    [
        (None, 1, 1.0, 0.0),
        (None, 1, 0.5, 0.3181471806),
        (None, 3, 0.5, 3 * 0.3181471806),
        (LearnedNormal(initial_scale=2.0), 1, 1.0, 0.3181471806),
        (LearnedNormal(initial_scale=2.0), 3, 4.0, 3 * 0.8068528194),
        (TwoScales(), 1, 1.0, 0.3181471806 / 2),  # the mean over units
    ],
)
def test_initial_scale_cost(
    prior: nn.Module | None, latent_dim: int, scale: float, cost: float
) -> None:
    posterior = NormalPosterior(initial_scale=scale)
    layer = VariationalNeurons(3, 2, latent_dim=latent_dim, prior=prior, posterior=posterior)
    assert initial_scale_cost(layer) == (scale, pytest.approx(cost, abs=1e-9))


class Fixed(nn.Module):
    def forward(self, h: Tensor) -> dist.Distribution:
        return dist.Normal(torch.zeros(2), 1.0)


@pytest.mark.parametrize("parts", [{"posterior": Fixed()}, {"prior": StudentT()}], ids=list)
def test_cost_of_a_scale_that_is_unknown(parts: dict[str, nn.Module]) -> None:
    assert initial_scale_cost(VariationalNeurons(3, 2, **parts)) is None


@pytest.mark.parametrize(
    ("model", "paths"),
    [
        (Regression(3), ["neurons"]),
        (kl_weight(pyro.poutine.scale(Regression(3), 0.5), 0.1), ["neurons"]),
        (DeepRegression(3, num_units=(4, 5, 6)), ["layers.0", "layers.1", "layers.2"]),
        (nn.Sequential(nn.Linear(3, 3), VariationalNeurons(3, 2)), ["1"]),
        (VariationalNeurons(3, 2), [""]),
        ({"mine": VariationalNeurons(3, 2)}, ["mine"]),
    ],
    ids=["bare", "wrapped", "deep", "sequential", "layer", "mapping"],
)
def test_layers_are_found(model: Any, paths: list[str]) -> None:
    assert list(neuron_layers(model)) == paths


class Nested(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"a": nn.Sequential(VariationalNeurons(3, 3), nn.ReLU())})
        self.last = VariationalNeurons(3, 2)

    def forward(self, x: Tensor) -> Any:
        with pyro.plate("data", len(x), dim=-2):
            return self.last(self.parts["a"](x))


@pytest.mark.parametrize(
    "model",
    [Regression(3), DeepRegression(3), Nested(), nn.Sequential(VariationalNeurons(3, 2))],
    ids=lambda model: type(model).__name__,
)
def test_names_are_those_of_record(model: nn.Module) -> None:
    with record() as seen:
        model.to(torch.float64)(torch.zeros(5, 3))
    assert list(neuron_layers(model)) == list(seen)


def test_a_mapping_of_something_else_is_refused() -> None:
    with pytest.raises(InputError, match=r"layer 'a': expected VariationalNeurons, got Linear"):
        neuron_layers({"a": nn.Linear(3, 2)})  # type: ignore[dict-item]
