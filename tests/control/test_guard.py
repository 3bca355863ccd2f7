"""The scale guard against tables worked by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_vdn.control import ScaleGuard, guarded_scale
from pyro_vdn.control.controller import Seen
from pyro_vdn.errors import InputError
from pyro_vdn.nn import NormalPosterior, VariationalNeurons
from pyro_vdn.testing import NeuronStack

Stack = Callable[..., NeuronStack]
See = Callable[..., Seen]
Drive = Callable[..., None]


@pytest.mark.parametrize(
    ("scale", "kl", "kick", "wanted"),
    [
        (0.15, 4.0, 0.02, 0.15),  # at the floor
        (0.1499, 4.0, 0.02, 0.15),
        (0.001, 4.0, 0.02, 0.15),
        (1.0, 0.5, 0.02, 1.0),
        (5.0, 9.0, 0.02, 5.0),  # at the ceiling
        (5.1, 9.0, 0.02, 5.0),
        (1.0, 0.0, 0.02, 1.0202013400),  # exp(0.02)
        (1.0, 0.99e-4, 0.02, 1.0202013400),
        (1.0, 1e-4, 0.02, 1.0),  # at the threshold, not dead
        (1.0, 0.0, 0.0, 1.0),
        (1.0, 0.0, -0.5, 0.6065306597),
        (4.95, 0.0, 0.02, 5.0),
        (0.15, 0.0, -0.5, 0.15),
        (0.1, 0.0, 0.5, 0.1648721271),  # 0.1 exp(0.5), above the floor by itself
    ],
)
def test_guarded_scale(scale: float, kl: float, kick: float, wanted: float) -> None:
    mine = guarded_scale(
        torch.tensor([scale]), torch.tensor([kl]), floor=0.15, ceiling=5.0, kick=kick, dead=1e-4
    )
    torch.testing.assert_close(mine, torch.tensor([wanted]), rtol=1e-9, atol=0)


def layer_with(scales: list[float], mode: str = "unit", latent_dim: int = 1) -> dict[str, Any]:
    """A layer whose scales are these for an input of zeros, by its path."""
    posterior = NormalPosterior(mode)  # type: ignore[arg-type]
    layer = VariationalNeurons(3, 3, latent_dim=latent_dim, posterior=posterior)
    raw = torch.expm1(torch.tensor(scales) - posterior.min_scale).log()
    with torch.no_grad():
        if mode == "shared":
            posterior.raw_scale.value.copy_(raw[0])
        elif mode == "unit":
            posterior.raw_scale.value.copy_(raw[:, None] if latent_dim > 1 else raw)
        else:
            posterior.raw_scale.bias.copy_(raw.repeat_interleave(latent_dim))
    return {"layers.0": layer}


def scales_of(layers: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        scale: Tensor = layers["layers.0"].posterior(torch.zeros(1, 3)).variance.sqrt()[0]
    return scale


@pytest.mark.parametrize("mode", ["unit", "input"])
@pytest.mark.parametrize("latent_dim", [1, 3])
def test_scales_come_within_the_guards(mode: str, latent_dim: int, see: See, drive: Drive) -> None:
    layers = layer_with([0.02, 0.7, 9.0], mode, latent_dim)
    guard = ScaleGuard(layers, floor=0.15, ceiling=5.0, every=2)
    seen = see(kl=[1.0, 1.0, 1.0], scale=[0.02, 0.7, 9.0])
    drive(guard, seen)
    assert scales_of(layers).flatten()[0].item() == pytest.approx(0.02)
    drive(guard, seen)
    expected = torch.tensor([0.15, 0.7, 5.0])
    expected = expected[:, None].expand(3, 3) if latent_dim > 1 else expected
    torch.testing.assert_close(scales_of(layers), expected, rtol=1e-10, atol=0)


def test_each_latent_comes_within_the_guards(see: See, drive: Drive) -> None:
    layers = layer_with([0.02, 0.7, 9.0], latent_dim=2)
    posterior = layers["layers.0"].posterior
    posterior.multiply_scale_(torch.tensor([[1.0, 50.0], [1.0, 10.0], [0.1, 1.0]]), torch.ones(3))
    before = torch.tensor([[0.02, 1.0], [0.7, 7.0], [0.9, 9.0]])
    torch.testing.assert_close(scales_of(layers), before)
    drive(ScaleGuard(layers, floor=0.15, ceiling=5.0, every=1), see(scale=before.mean(-1).tolist()))
    expected = torch.tensor([[0.15, 1.0], [0.7, 5.0], [0.9, 5.0]])
    torch.testing.assert_close(scales_of(layers), expected, rtol=1e-10, atol=0)


def test_all_latents_of_a_dead_unit_are_kicked(see: See, drive: Drive) -> None:
    layers = layer_with([1.0, 1.0, 1.0], latent_dim=2)
    guard = ScaleGuard(layers, kick=0.1, dead=0.25, every=1)
    drive(guard, see(kl=[0.0, 1.0, 0.2], scale=[1.0] * 3))
    once = torch.tensor([1.1051709181, 1.0, 1.1051709181])
    torch.testing.assert_close(scales_of(layers), once[:, None].expand(3, 2))


@pytest.mark.parametrize("mode", ["unit", "input"])
def test_dead_units_are_kicked_by_their_running_average(mode: str, see: See, drive: Drive) -> None:
    layers = layer_with([1.0, 1.0, 1.0], mode)
    guard = ScaleGuard(layers, kick=0.1, dead=0.25, every=1, momentum=0.5)
    drive(guard, see(kl=[0.0, 0.25, 0.2], scale=[1.0] * 3))
    once = 1.1051709181
    assert scales_of(layers).tolist() == pytest.approx([once, 1.0, once])
    drive(guard, see(kl=[0.6, 0.0, 0.2], scale=[once, 1.0, once]))  # averages 0.3, 0.125, 0.2
    assert scales_of(layers).tolist() == pytest.approx([once, once, once**2])


def test_a_unit_that_is_in_order_is_not_touched_at_all(see: See, drive: Drive) -> None:
    layers = layer_with([0.02, 0.7, 9.0])
    raw = layers["layers.0"].posterior.raw_scale.value
    middle = raw[1].item()
    drive(ScaleGuard(layers, every=1), see(), steps=5)
    assert raw[1].item() == pytest.approx(middle, rel=1e-14)
    version = raw._version
    drive(ScaleGuard(layers, floor=0.1, every=1), see())
    assert raw._version == version


def test_a_scale_per_unit_is_read_when_it_acts(see: See, drive: Drive) -> None:
    layers = layer_with([0.02, 0.7, 9.0])
    guard = ScaleGuard(layers, every=1)
    drive(guard, see(scale=[1.0, 9.0, 0.01]))  # what was seen before another changed it
    assert scales_of(layers).tolist() == pytest.approx([0.15, 0.7, 5.0])


def test_a_shared_scale_is_guarded_as_one(see: See, drive: Drive) -> None:
    layers = layer_with([0.02] * 3, "shared")
    drive(ScaleGuard(layers, every=1), see(scale=[0.02] * 3))
    assert scales_of(layers).tolist() == pytest.approx([0.15] * 3)


def test_layers_are_guarded_apart(stack: Stack, see: See, drive: Drive) -> None:
    model = stack(num_layers=2)
    before = model.neuron_layers[1].posterior.raw_scale.value.clone()
    guard = ScaleGuard(model, floor=0.01, dead=0.5, kick=0.1, every=1)
    drive(guard, see(kl=[0.0] * 3) | see("layers.1", kl=[1.0] * 3))
    assert model.neuron_layers[1].posterior.raw_scale.value.equal(before)


def test_act_without_observation_moves_nothing() -> None:
    layers = layer_with([0.02] * 3)
    ScaleGuard(layers, every=1).act()
    assert scales_of(layers).tolist() == pytest.approx([0.02] * 3)


class Mine(nn.Module):
    def forward(self, h: Tensor) -> dist.Distribution:
        return dist.Normal(torch.zeros(3), 1.0)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"floor": 0.0}, "floor: expected a number above 0, got 0.0"),
        ({"floor": 5.0}, "floor: expected less than ceiling = 5, got 5"),
        ({"dead": -1.0}, "dead: expected a number of at least 0, got -1.0"),
        ({"kick": 1.5}, "kick: expected a number of at least -1 and at most 1, got 1.5"),
        ({"kick": -1.5}, "kick: expected a number of at least -1 and at most 1, got -1.5"),
        ({"momentum": 0.0}, "momentum: expected a number above 0"),
        (
            {"floor": 1e-4, "ceiling": 1e-3},
            "ceiling: expected more than the floor 0.001 built into layer 'layers.0', got 0.001. "
            "Try: ceiling=5.0",
        ),
    ],
)
def test_bad_settings(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=f"^{text}"):
        ScaleGuard(layer_with([1.0] * 3), **settings)


def test_a_posterior_of_another_kind_is_refused() -> None:
    layer = VariationalNeurons(3, 3, posterior=Mine())
    with pytest.raises(InputError, match=r"^layer 'a': expected a NormalPosterior, whose scale ca"):
        ScaleGuard({"a": layer})
