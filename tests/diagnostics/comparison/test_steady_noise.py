from __future__ import annotations

from typing import Any

import pyro
import pytest
import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_vdn.diagnostics.comparison._steady_noise import SteadyNoise
from pyro_vdn.nn import NormalPosterior, VariationalNeurons
from pyro_vdn.poutine import PosteriorMessenger, clamp

pytestmark = pytest.mark.usefixtures("double")


class Two(PyroModule):  # type: ignore[misc]
    """Two layers of one size, the second of which reads the first."""

    def __init__(self, latent_dim: int = 1) -> None:
        super().__init__()
        sizes: dict[str, Any] = {"latent_dim": latent_dim, "pool": "flatten"}
        self.low = VariationalNeurons(3, 3, posterior=NormalPosterior("input"), **sizes)
        self.high = VariationalNeurons(3 * latent_dim, 3, **sizes)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.high(self.low(x))
        return z


def draw(model: Two, x: Tensor, *effects: Any, seed: int = 0, turned: Any = None) -> Any:
    """Trace a model with its units drawn from their posterior, 6 draws."""
    for effect in effects:
        model = effect(model)
    steady = SteadyNoise(seed, turned)
    with torch.no_grad(), steady, pyro.plate("draws", 6, dim=-3), PosteriorMessenger():
        return pyro.poutine.trace(model).get_trace(x).nodes


def noise(node: Any) -> Tensor:
    """The noise of a site, over its own mean and scale."""
    eps: Tensor = (node["value"] - node["fn"].mean) / node["fn"].variance.sqrt()
    return eps


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_noise_has_the_exact_moments_and_each_site_its_own(latent_dim: int) -> None:
    nodes = draw(Two(latent_dim), torch.randn(4, 3))
    low, high = noise(nodes["low.z"]), noise(nodes["high.z"])
    for eps in (low, high):
        assert eps.mean(0) == pytest.approx(torch.zeros_like(eps[0]), abs=1e-9)
        assert eps.var(0) == pytest.approx(torch.ones_like(eps[0]))
    correlation = (low * high).mean().abs()
    assert float(correlation) < 0.3


@pytest.mark.parametrize("latent_dim", [2, 5])
def test_latent_dimensions_of_a_unit_are_uncorrelated(latent_dim: int) -> None:
    eps = noise(draw(Two(latent_dim), torch.randn(4, 3))["low.z"])
    covariance = torch.einsum("srui,sruj->ruij", eps, eps) / (len(eps) - 1)
    assert covariance == pytest.approx(torch.eye(latent_dim).expand_as(covariance), abs=1e-9)


def test_more_latent_dimensions_than_draws_keep_their_variance() -> None:
    eps = noise(draw(Two(6), torch.randn(4, 3))["low.z"])
    assert eps.var(0) == pytest.approx(torch.ones_like(eps[0]))


def test_noise_stays_whatever_is_held_and_changes_with_the_seed() -> None:
    model, x = Two(), torch.randn(4, 3)
    free = draw(model, x)
    held = draw(model, x, lambda program: clamp(program, {"low": {1: "mean"}}))
    assert noise(held["high.z"]) == pytest.approx(noise(free["high.z"]))
    assert torch.equal(held["low.z"]["value"][..., 0], free["low.z"]["value"][..., 0])
    assert held["low.z"]["value"][..., 1].var(0).max() < 1e-20
    assert not torch.allclose(noise(draw(model, x, seed=1)["low.z"]), noise(free["low.z"]))


def test_noise_that_is_kept_is_that_which_would_be_drawn() -> None:
    model, x = Two(), torch.randn(4, 3)
    kept: dict[str, Tensor] = {}
    for _ in range(2):
        with torch.no_grad(), SteadyNoise(0, None, kept), pyro.plate("draws", 6, dim=-3):
            z = PosteriorMessenger()(model)(x)
    assert set(kept) == {"low.z", "high.z"}
    assert z == pytest.approx(draw(model, x)["high.z"]["value"])


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_turned_units_take_the_other_sign(latent_dim: int) -> None:
    model, x = Two(latent_dim), torch.randn(4, 3)
    turned = {"high": torch.tensor([False, True, False])}
    free, other = (noise(draw(model, x, turned=t)["high.z"]) for t in (None, turned))
    sign = torch.tensor([1.0, -1.0, 1.0]).reshape(3, *[1] * (latent_dim > 1))
    assert other == pytest.approx(sign * free)
