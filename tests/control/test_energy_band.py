"""The energy band as a penalty, driven by hand-made records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from torch import Tensor

from pyro_vdn.control import Band, EnergyBand
from pyro_vdn.control.controller import Seen
from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO
from pyro_vdn.testing import NeuronStack, posterior_by_hand

Stack = Callable[..., NeuronStack]
See = Callable[..., Seen]
Drive = Callable[..., None]

#: low, high and target of three units.
BAND = Band(torch.full((3,), 1.0), torch.full((3,), 4.0), torch.full((3,), 2.0))
PRIOR = dist.Normal(0.0, 1.0)


def energies(*values: float) -> dist.Distribution:
    """A posterior of one row with these energies."""
    return dist.Normal(torch.tensor([values]).sqrt(), 1.0)


def cost(band: EnergyBand, *values: float, path: str = "layers.0") -> list[float]:
    paid: list[float] = band.cost(path, energies(*values), PRIOR).tolist()
    return paid


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1.2 * 0.25, 0.0, 1.2 * 1.0]),
        ({"weight": 3.0}, [0.75, 0.0, 3.0]),
        ({"weight": 0.0}, [0.0, 0.0, 0.0]),
        ({"weight": 1.0, "relative": False}, [0.25, 0.0, 16.0]),
        ({"weight": 1.0, "low_weight": 2.0, "high_weight": 0.5}, [0.5, 0.0, 0.5]),
    ],
)
def test_cost(settings: dict[str, Any], expected: list[float], stack: Stack) -> None:
    band = EnergyBand(stack(), {"layers.0": BAND}, **settings)
    assert cost(band, 0.5, 2.0, 8.0) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ramp", "step", "share"),
    [(0, 0, 1.0), (4, 0, 0.0), (4, 1, 0.25), (4, 3, 0.75), (4, 4, 1.0), (4, 5, 1.0), (4, 99, 1.0)],
)
def test_ramp(ramp: int, step: int, share: float, stack: Stack, see: See, drive: Drive) -> None:
    band = EnergyBand(stack(), {"layers.0": BAND}, weight=1.0, ramp=ramp)
    drive(band, see(), steps=step)
    assert cost(band, 8.0, 8.0, 0.5) == pytest.approx([share, share, share * 0.25])


@pytest.mark.parametrize(
    ("seen", "crowd", "factor"),
    [
        ([0.5, 0.5, 0.5], 0.35, 0.25),
        ([0.5, 2.0, 2.0], 0.35, 1.0),  # a third is no crowd
        ([0.5, 0.5, 2.0], 0.35, 0.25),
        ([0.5, 0.5, 2.0], 2 / 3, 1.0),  # as many as allowed
        ([1.0, 1.0, 1.0], 0.0, 1.0),  # at the bound is inside
        ([0.5, 9.0, 9.0], 0.0, 0.25),
        ([9.0, 9.0, 9.0], 0.0, 1.0),
    ],
)
def test_while_units_crowd_below_loud_ones_cost_less(
    seen: list[float], crowd: float, factor: float, stack: Stack, see: See, drive: Drive
) -> None:
    band = EnergyBand(stack(), {"layers.0": BAND}, weight=1.0, high_weight=2.0, crowd=crowd)
    drive(band, see(energy=seen), steps=9)
    assert cost(band, 8.0, 0.5, 2.0) == pytest.approx([2.0, 0.25, 0.0])
    drive(band, see(energy=seen))
    assert cost(band, 8.0, 0.5, 2.0) == pytest.approx([2.0 * factor, 0.25, 0.0])
    drive(band, see(energy=[2.0, 2.0, 2.0]), steps=10)
    assert cost(band, 8.0, 0.5, 2.0) == pytest.approx([2.0, 0.25, 0.0])


def test_layers_crowd_apart(stack: Stack, see: See, drive: Drive) -> None:
    band = EnergyBand(stack(num_layers=2), lambda _: BAND, weight=1.0, every=1)
    low, fine = see(energy=[0.5] * 3), see("layers.1", energy=[2.0] * 3)
    drive(band, low | fine)
    assert cost(band, 8.0, 8.0, 8.0) == pytest.approx([0.25] * 3)
    assert cost(band, 8.0, 8.0, 8.0, path="layers.1") == pytest.approx([1.0] * 3)


@pytest.mark.parametrize("latent_dim", [1, 3])
def test_the_loss_pays_the_penalty_of_each_row(latent_dim: int, stack: Stack) -> None:
    model, data = stack(latent_dim=latent_dim), (torch.randn(6, 4), torch.randn(6, 2))
    band = EnergyBand(model, 5.0, weight=2.0)
    controlled = band.wrap(model)
    terms = LocalELBO().terms(controlled, NeuronGuide(controlled), *data)
    loc = posterior_by_hand(model.neuron_layers[0], model.encode(data[0])).loc
    mu2 = loc.square().mean(0) if latent_dim == 1 else loc.square().mean((0, 2))
    below = (4.0 - mu2).clamp(min=0) / 4.0
    above = (mu2 - 8.0).clamp(min=0) / 8.0
    expected = 6 * 2.0 * (below.square() + above.square())
    assert (expected > 0).all()
    torch.testing.assert_close(terms.penalty["layers.0"], expected)


def test_the_site_is_named_after_the_band(stack: Stack) -> None:
    model = stack(num_layers=2)
    trace = pyro.poutine.trace(EnergyBand(model).wrap(model)).get_trace(torch.zeros(5, 4))
    assert {"layers.0.band", "layers.1.band"} <= set(trace.nodes)


def test_gradient_steps_carry_energies_into_the_band(stack: Stack) -> None:
    model, data = stack(), (torch.randn(64, 4), torch.randn(64, 2))
    controlled = EnergyBand(model, 3.0, weight=30.0).wrap(model)
    guide, loss = NeuronGuide(controlled), LocalELBO()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(300):
        optimiser.zero_grad()
        loss.loss_and_grads(controlled, guide, *data)
        optimiser.step()

    def energy() -> Tensor:
        mu = posterior_by_hand(model.neuron_layers[0], model.encode(data[0])).loc
        return mu.square().mean(0)

    assert ((energy() > 0.95 * 2.4) & (energy() < 1.05 * 4.8)).all()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"weight": -1.0}, "weight: expected a number of at least 0, got -1.0"),
        ({"low_weight": float("nan")}, "low_weight: expected a number of at least 0, got nan"),
        ({"high_weight": -0.1}, "high_weight: expected a number of at least 0, got -0.1"),
        ({"crowd_high_weight": -0.1}, "crowd_high_weight: expected a number of at least 0"),
        ({"ramp": -1}, "ramp: expected a number of at least 0, got -1"),
        ({"crowd": 1.1}, "crowd: expected a number of at least 0 and at most 1, got 1.1"),
        ({"every": 0}, "every: expected a positive integer"),
    ],
)
def test_bad_settings(settings: dict[str, Any], text: str, stack: Stack) -> None:
    with pytest.raises(InputError, match=f"^{text}"):
        EnergyBand(stack(), **settings)
