"""Changing a posterior's location and scale in place, unit by unit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.nn import NormalPosterior, VariationalNeurons
from pyro_vdn.testing import posterior_by_hand, randomise

GAIN = torch.tensor([0.3, 1.0, 3.0], dtype=torch.float64)


def make_layer(scale: Any = "unit", latent_dim: int = 1, **kwargs: Any) -> VariationalNeurons:
    posterior = NormalPosterior(scale, rank=2, **kwargs)
    layer = VariationalNeurons(4, 3, latent_dim=latent_dim, posterior=posterior)
    randomise(layer)
    return layer


def by_units(values: Tensor, latent_dim: int) -> Tensor:
    """Shape values per unit so that they stand beside latents."""
    return values[:, None] if latent_dim > 1 else values


def parts_of(layer: VariationalNeurons, x: Tensor) -> tuple[Tensor, Tensor]:
    loc, scale = posterior_by_hand(layer, x)
    return loc.detach(), scale.detach()


# --- location ---


@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize("scale", ["shared", "unit", "input", "low_rank"])
def test_locations_are_multiplied_and_scales_left(scale: str, latent_dim: int) -> None:
    layer, x = make_layer(scale, latent_dim), torch.randn(7, 4)
    loc, sigma = parts_of(layer, x)
    layer.posterior.multiply_loc_(GAIN)
    after = parts_of(layer, x)
    torch.testing.assert_close(after[0], by_units(GAIN, latent_dim) * loc, rtol=1e-12, atol=1e-14)
    assert torch.equal(after[1], sigma)


def test_an_identity_has_no_location_to_multiply() -> None:
    layer = VariationalNeurons(3, 3, posterior=NormalPosterior(loc="identity"))
    with pytest.raises(
        InputError, match=r"^loc: expected a location that is linear in its parameters"
    ):
        layer.posterior.multiply_loc_(GAIN)


# --- scale ---


@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize("scale", ["shared", "unit"])
def test_scales_of_units(scale: str, latent_dim: int) -> None:
    layer = make_layer(scale, latent_dim)
    _, sigma = parts_of(layer, torch.zeros(1, 4))
    found = layer.posterior.scale_of_units()
    assert found.shape == ((3, latent_dim) if latent_dim > 1 else (3,))
    assert not found.requires_grad
    torch.testing.assert_close(found, sigma[0].expand(found.shape))


@pytest.mark.parametrize("scale", ["input", "low_rank"])
def test_scales_that_depend_on_the_input_are_none_of_the_units(scale: str) -> None:
    assert make_layer(scale).posterior.scale_of_units() is None


@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize("initial_scale", [0.01, 0.3, 5.0, 40.0])
def test_a_scale_per_unit_is_multiplied_exactly(initial_scale: float, latent_dim: int) -> None:
    layer, x = make_layer("unit", latent_dim, initial_scale=initial_scale), torch.randn(7, 4)
    loc, sigma = parts_of(layer, x)
    layer.posterior.multiply_scale_(GAIN, torch.full((3,), torch.nan))  # the mean is not read
    after = parts_of(layer, x)
    torch.testing.assert_close(after[1], by_units(GAIN, latent_dim) * sigma, rtol=1e-10, atol=0)
    assert torch.equal(after[0], loc)


def test_a_scale_per_unit_is_multiplied_latent_by_latent() -> None:
    layer, x = make_layer("unit", latent_dim=2), torch.randn(7, 4)
    _, sigma = parts_of(layer, x)
    gain = torch.tensor([[0.3, 2.0], [1.0, 1.0], [3.0, 0.5]])
    layer.posterior.multiply_scale_(gain, torch.full((3,), torch.nan))
    torch.testing.assert_close(parts_of(layer, x)[1], gain * sigma, rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    ("gain", "factor"), [([2.0, 2.0, 2.0], 2.0), ([1.0, 2.0, 6.0], 3.0)], ids=["equal", "mean"]
)
def test_a_shared_scale_takes_the_mean_of_the_gains(gain: list[float], factor: float) -> None:
    layer, x = make_layer("shared"), torch.randn(7, 4)
    _, sigma = parts_of(layer, x)
    layer.posterior.multiply_scale_(torch.tensor(gain), torch.ones(3))
    torch.testing.assert_close(parts_of(layer, x)[1], factor * sigma, rtol=1e-10, atol=0)


@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize("scale", ["input", "low_rank"])
def test_a_scale_that_depends_on_the_input_is_exact_where_it_has_its_mean(
    scale: str, latent_dim: int
) -> None:
    layer, x = make_layer(scale, latent_dim), torch.randn(1, 4)
    _, sigma = parts_of(layer, x)
    if latent_dim > 1:  # one mean per unit stands for all its latents: look at the first
        sigma = sigma[..., 0]
    layer.posterior.multiply_scale_(GAIN, sigma[0])
    after = parts_of(layer, x)[1]
    after = after[..., 0] if latent_dim > 1 else after
    torch.testing.assert_close(after, GAIN * sigma, rtol=1e-10, atol=0)


@pytest.mark.parametrize("scale", ["input", "low_rank"])
def test_elsewhere_it_is_close(scale: str) -> None:
    layer, x = make_layer(scale), torch.randn(200, 4)
    _, sigma = parts_of(layer, x)
    layer.posterior.multiply_scale_(GAIN, sigma.mean(0))
    ratio = parts_of(layer, x)[1].mean(0) / (GAIN * sigma.mean(0))
    assert ((ratio - 1).abs() < 0.1).all()
    assert ratio[1].item() == pytest.approx(1.0, rel=1e-12)


def test_scales_go_down_to_the_floor_and_come_up_again() -> None:
    layer = make_layer(min_scale=0.1)
    layer.posterior.multiply_scale_(torch.full((3,), 1e-3), torch.ones(3))
    scale = layer.posterior.scale_of_units()
    torch.testing.assert_close(scale, torch.full((3,), 0.1 + 1e-6), rtol=1e-9, atol=0)
    layer.posterior.multiply_scale_(torch.full((3,), 5.0), torch.ones(3))
    torch.testing.assert_close(layer.posterior.scale_of_units(), 5 * scale, rtol=1e-10, atol=0)


@pytest.mark.parametrize("scale", ["unit", "input"])
def test_in_single_precision(scale: str) -> None:
    layer, x = make_layer(scale).float(), torch.randn(1, 4, dtype=torch.float32)
    _, sigma = parts_of(layer, x)
    gain = GAIN.float()
    layer.posterior.multiply_scale_(gain, sigma[0])
    torch.testing.assert_close(parts_of(layer, x)[1], gain * sigma, rtol=2e-5, atol=0)


@pytest.mark.parametrize("scale", ["shared", "unit", "input", "low_rank"])
def test_parameters_stay_the_same_objects_and_trainable(scale: str) -> None:
    layer, x = make_layer(scale), torch.randn(7, 4)
    before = list(layer.parameters())
    layer.posterior.multiply_loc_(GAIN)
    layer.posterior.multiply_scale_(GAIN, torch.ones(3))
    assert all(mine is theirs for mine, theirs in zip(layer.parameters(), before, strict=True))
    posterior = layer.posterior(x)
    (posterior.mean.square() + posterior.variance).sum().backward()
    assert all(value.grad is not None for value in layer.parameters())


# --- relative ---


def relative_by_hand(layer: VariationalNeurons, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return `mu = W h + b` and `sigma = floor + softplus(raw) |mu|`."""
    weights = {name: p.detach() for name, p in layer.posterior.named_parameters()}
    loc = x @ weights["loc.weight"].T + weights["loc.bias"]
    loc = loc.reshape(*x.shape[:-1], *layer.shape.latent)
    share = torch.nn.functional.softplus(weights["raw_scale.value"])
    return loc, layer.posterior.min_scale + share * loc.abs()


@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize("lead", [(7,), (2, 7)])
def test_a_relative_scale_is_a_share_of_the_location(
    lead: tuple[int, ...], latent_dim: int
) -> None:
    layer, x = make_layer("relative", latent_dim), torch.randn(*lead, 4)
    loc, sigma = relative_by_hand(layer, x)
    posterior = layer.posterior(x)
    torch.testing.assert_close(posterior.mean.detach(), loc)
    torch.testing.assert_close(posterior.stddev.detach(), sigma)
    assert posterior.event_dim == (latent_dim > 1)
    assert layer.posterior.scale_of_units() is None
    draw, start = posterior.rsample(), layer.posterior.raw_scale.value
    assert start.shape == layer.shape.latent
    (grad,) = torch.autograd.grad(draw.sum(), start)
    expected = (draw.detach() - loc) / sigma * loc.abs() * torch.sigmoid(start.detach())
    torch.testing.assert_close(grad, expected.sum(tuple(range(len(lead)))))


def test_a_relative_scale_starts_at_a_share_and_has_its_floor() -> None:
    posterior = NormalPosterior("relative", loc="identity", initial_scale=0.4, min_scale=0.01)
    layer = VariationalNeurons(3, 3, posterior=posterior)
    scale = layer.posterior(torch.tensor([[1.0, -1.0, 0.0]])).stddev[0]
    torch.testing.assert_close(scale.detach(), torch.tensor([0.4, 0.4, 0.01]))


def test_a_location_at_zero_has_a_finite_gradient() -> None:
    layer = VariationalNeurons(3, 3, posterior=NormalPosterior("relative", loc="identity"))
    h = torch.zeros(2, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(layer.posterior(h).rsample().sum(), h)
    assert torch.equal(grad, torch.ones(2, 3))


@pytest.mark.parametrize("latent_dim", [1, 3])
def test_location_and_relative_scale_are_multiplied_apart(latent_dim: int) -> None:
    layer = make_layer("relative", latent_dim, min_scale=0.0)
    x = torch.randn(7, 4)
    loc, sigma = relative_by_hand(layer, x)
    layer.posterior.multiply_loc_(GAIN)
    after = relative_by_hand(layer, x)
    torch.testing.assert_close(after[0], by_units(GAIN, latent_dim) * loc)
    torch.testing.assert_close(after[1], sigma)
    layer.posterior.multiply_scale_(GAIN, torch.full((3,), torch.nan))  # the mean is not read
    after = relative_by_hand(layer, x)
    torch.testing.assert_close(after[0], by_units(GAIN, latent_dim) * loc)
    torch.testing.assert_close(after[1], by_units(GAIN, latent_dim) * sigma)


def test_a_relative_scale_is_multiplied_above_its_floor() -> None:
    layer, x = make_layer("relative", min_scale=0.05), torch.randn(7, 4)
    _, sigma = relative_by_hand(layer, x)
    layer.posterior.multiply_scale_(GAIN, torch.ones(3))
    torch.testing.assert_close(relative_by_hand(layer, x)[1] - 0.05, GAIN * (sigma - 0.05))


def test_an_unknown_scale_is_refused() -> None:
    with pytest.raises(InputError, match=r"^scale: expected one of \('shared', 'unit', 'relative'"):
        NormalPosterior("row")  # type: ignore[arg-type]
