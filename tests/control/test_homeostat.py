"""The homeostat against tables worked by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_vdn.control import Band, Homeostat, homeostatic_gain
from pyro_vdn.control.controller import Seen
from pyro_vdn.errors import InputError
from pyro_vdn.nn import NormalPosterior, VariationalNeurons
from pyro_vdn.testing import NeuronStack

Stack = Callable[..., NeuronStack]
See = Callable[..., Seen]
Drive = Callable[..., None]


def band_of(units: int) -> Band:
    """Low 0.5, high 2 and target 1."""
    return Band(*(torch.full((units,), value) for value in (0.5, 2.0, 1.0)))


@pytest.mark.parametrize(
    ("energies", "eta", "largest", "gains"),
    [
        ([1.0], 0.25, 2.0, [1.0]),
        ([0.5], 0.5, 2.0, [1.189207115]),  # at the lower bound: nobody out, 2^(1/4)
        ([2.0], 0.5, 2.0, [0.8408964153]),  # at the upper bound
        ([0.5], 0.25, 2.0, [1.0905077327]),  # 2^(1/8)
        ([16.0], 0.125, 4.0, [0.5946035575]),  # out: rate 3/8, 2^(-4 * 3/16)
        ([16.0], 0.25, 4.0, [0.5]),  # rate 0.75, but at most 0.5: 2^(-4/4)
        ([16.0], 1.0, 4.0, [0.5]),
        ([256.0], 0.25, 4.0, [0.25]),  # at the largest factor
        ([256.0], 0.25, 3.0, [1 / 3]),
        ([1 / 256], 0.25, 4.0, [4.0]),
        ([1 / 256], 0.25, 3.0, [3.0]),
        ([0.0], 0.25, 3.0, [3.0]),
        ([1.0, 1.0, 1.0, 16.0], 0.2, 4.0, [1.0, 1.0, 1.0, 0.6597539554]),  # a quarter out: 0.3
        ([16.0, 16.0, 1.0, 1 / 16], 0.1, 4.0, [0.7071067812, 0.7071067812, 1.0, 1.4142135624]),
    ],
)
def test_homeostatic_gain(
    energies: list[float], eta: float, largest: float, gains: list[float]
) -> None:
    band = band_of(len(energies))
    mine = homeostatic_gain(torch.tensor(energies), band, eta=eta, largest=largest)
    torch.testing.assert_close(mine, torch.tensor(gains), rtol=1e-9, atol=0)


def parameters(model: NeuronStack, layer: int = 0) -> dict[str, Tensor]:
    values = model.neuron_layers[layer].posterior.named_parameters()
    return {name: value.detach().clone() for name, value in values}


@pytest.mark.parametrize("latent_dim", [1, 3])
def test_it_rescales_rows_and_remembers_that(
    latent_dim: int, stack: Stack, see: See, drive: Drive
) -> None:
    model = stack(latent_dim=latent_dim)
    homeostat = Homeostat(
        model, lambda units: band_of(units), eta=0.25, largest=4.0, every=2, warmup=2
    )
    before = parameters(model)
    seen = see(energy=[16.0, 16.0, 1 / 16])
    drive(homeostat, seen, steps=3)
    assert parameters(model)["loc.weight"].equal(before["loc.weight"])
    drive(homeostat, seen)
    gains = torch.tensor([0.5, 0.5, 2.0])  # all out: rate 0.5
    rows = gains.repeat_interleave(latent_dim)
    after = parameters(model)
    torch.testing.assert_close(after["loc.weight"], rows[:, None] * before["loc.weight"])
    torch.testing.assert_close(after["loc.bias"], rows * before["loc.bias"])
    torch.testing.assert_close(after["raw_scale.value"], before["raw_scale.value"])
    mu2 = homeostat.recall("mu2", "layers.0")
    assert mu2 is not None
    assert mu2.tolist() == pytest.approx([4.0, 4.0, 0.25])  # as if seen with the new rows


def test_the_next_act_continues_from_the_rescaled_average(
    stack: Stack, see: See, drive: Drive
) -> None:
    model = stack()
    homeostat = Homeostat(model, band_of, eta=0.25, largest=4.0, every=1, warmup=0, momentum=0.5)
    drive(homeostat, see(energy=[16.0, 16.0, 16.0]))  # gains 1/2, average 16 -> 4
    before = parameters(model)["loc.weight"]
    drive(homeostat, see(energy=[4.0, 28.0, 4.0]))  # averages 4, 16, 4: all out
    gains = torch.tensor([0.7071067812, 0.5, 0.7071067812])
    torch.testing.assert_close(parameters(model)["loc.weight"], gains[:, None] * before)


@pytest.mark.parametrize(("compensated", "scale"), [(False, 0.5), (True, 0.25)])
def test_compensated_it_remembers_the_scales_as_well(
    compensated: bool, scale: float, stack: Stack, see: See, drive: Drive
) -> None:
    model = stack()
    readers = {"layers.0": model.readout} if compensated else None
    homeostat = Homeostat(
        model, band_of, eta=0.25, largest=4.0, every=1, warmup=0, compensate=readers
    )
    drive(homeostat, see(energy=[16.0] * 3, scale=[0.5] * 3))
    remembered = homeostat.recall("scale", "layers.0")
    assert remembered is not None
    assert remembered.tolist() == pytest.approx([scale] * 3)


@pytest.mark.parametrize(
    ("compensated", "mu2", "scale"), [(False, 16 / 256, 0.5), (True, 4 / 256, 1.0)]
)
def test_the_averages_follow_the_gain_that_was_applied(
    compensated: bool, mu2: float, scale: float, stack: Stack, see: See, drive: Drive
) -> None:
    model = stack()
    readers = {"layers.0": model.readout} if compensated else None
    homeostat = Homeostat(
        model, band_of, eta=0.25, largest=4.0, every=1, warmup=0, compensate=readers
    )
    before = parameters(model)["loc.weight"]
    drive(homeostat, see(energy=[1 / 256] * 3, scale=[0.5] * 3))  # 4 asked for, 2 to the prior
    remembered = [homeostat.recall(name, "layers.0") for name in ("mu2", "scale")]
    assert [one.tolist() for one in remembered if one is not None] == [
        pytest.approx([mu2] * 3),
        pytest.approx([scale] * 3),
    ]
    applied = (mu2 * 256) ** 0.5
    torch.testing.assert_close(parameters(model)["loc.weight"], applied * before)


def test_layers_are_rescaled_apart(stack: Stack, see: See, drive: Drive) -> None:
    model = stack(num_layers=2)
    homeostat = Homeostat(model, band_of, every=1, warmup=0)
    before = parameters(model, 1)["loc.weight"]
    drive(homeostat, see(energy=[16.0] * 3) | see("layers.1", energy=[1.0] * 3))
    torch.testing.assert_close(parameters(model, 1)["loc.weight"], before)


def test_act_without_observation_moves_nothing(stack: Stack) -> None:
    model = stack()
    before = parameters(model)
    Homeostat(model, every=1, warmup=0).act()
    assert parameters(model)["loc.weight"].equal(before["loc.weight"])


def test_it_brings_energies_to_their_targets(stack: Stack, see: See, drive: Drive) -> None:
    model = stack()
    layer, h = model.neuron_layers[0], torch.randn(32, 3)
    homeostat = Homeostat(model, 0.3, every=1, warmup=0)
    for _ in range(100):
        with torch.no_grad():
            mu2 = layer.posterior(h).mean.square().mean(0)
        drive(homeostat, see(energy=mu2.tolist()))
    assert mu2.tolist() == pytest.approx([0.3] * 3, rel=1e-2)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"eta": 0.0}, "eta: expected a number above 0 and at most 1, got 0.0"),
        ({"eta": 1.1}, "eta: expected a number above 0 and at most 1, got 1.1"),
        ({"largest": 1.0}, "largest: expected a number above 1, got 1.0"),
        ({"band": -1.0}, "target: expected a number above 0, got -1.0"),
        ({"warmup": -1}, "warmup: expected a number of at least 0, got -1"),
    ],
)
def test_bad_settings(settings: dict[str, Any], text: str, stack: Stack) -> None:
    with pytest.raises(InputError, match=f"^{text}"):
        Homeostat(stack(), **settings)


def test_a_location_without_rows_is_refused() -> None:
    layer = VariationalNeurons(3, 3, posterior=NormalPosterior(loc="identity"))
    with pytest.raises(InputError, match=r"layer 'a': expected a NormalPosterior whose location"):
        Homeostat({"a": layer})
