"""The energy band as a penalty, and its calibration, driven by hand-made records."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from torch import Tensor

from pyro_vdn.control import (
    Band,
    BandCalibration,
    EnergyBand,
    heterogeneous_band,
    homogeneous_band,
)
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


# --- which band ---


@pytest.mark.parametrize(
    ("choice", "target"),
    [
        (0.2, [0.2, 0.2, 0.2]),
        (1, [1.0, 1.0, 1.0]),
        (partial(heterogeneous_band, target=1.0, spread=10.0), [0.1, 1.0, 10.0]),
        ({"layers.0": BAND, "unused": BAND}, [2.0, 2.0, 2.0]),
    ],
    ids=["target", "whole number", "function", "mapping"],
)
def test_bands_are_chosen(choice: Any, target: list[float], stack: Stack) -> None:
    chosen = EnergyBand(stack(), choice).bands["layers.0"].target
    torch.testing.assert_close(chosen, torch.tensor(target))
    assert chosen.dtype == torch.float64  # as the layer's parameters are


def test_each_layer_has_its_own_band(stack: Stack) -> None:
    other = homogeneous_band(3, 7.0)
    band = EnergyBand(stack(num_layers=2), {"layers.0": BAND, "layers.1": other})
    assert band.bands["layers.0"].target.tolist() == [2.0] * 3
    assert band.bands["layers.1"].target.tolist() == pytest.approx([7.0] * 3)


def three(low: float, high: float, target: float) -> Band:
    ends = torch.tensor([[1.0, 4.0, 2.0]] * 2 + [[low, high, target]])
    return Band(*ends.T)


MISFITS = [
    ({}, r"band of layer 'layers.0': expected .* of shape \(3,\).*, got none. Try: homogen"),
    ({"layers.0": homogeneous_band(2)}, r"got shapes \[\(2,\), \(2,\), \(2,\)\]"),
    ({"layers.0": three(4.0, 1.0, 2.0)}, "0 < low <= target <= high, got 4, 1 and 2 at unit 2"),
    ({"layers.0": three(0.0, 4.0, 2.0)}, "got 0, 4 and 2 at unit 2"),
    ({"layers.0": three(1.0, 4.0, 5.0)}, "got 1, 4 and 5 at unit 2"),
    ({"layers.0": three(2.0, 4.0, 1.0)}, "got 2, 4 and 1 at unit 2"),
    ({"layers.0": three(2.0, 2.0, 2.0)}, "got 2, 2 and 2 at unit 2"),
    ({"layers.0": three(1.0, float("inf"), 2.0)}, "got 1, inf and 2 at unit 2"),
    ({"layers.0": three(float("nan"), 4.0, 2.0)}, "got nan, 4 and 2 at unit 2"),
]
NO_CHOICES = [
    (lambda units: homogeneous_band(units + 1), r"got shapes \[\(4,\), \(4,\), \(4,\)\]"),
    (BAND, r"^band: expected bands by layer path.*, got a Band. Try: band=\{\"layers.0\""),
    (None, "^band: expected bands by layer path.*, got a NoneType"),
    (0.0, "target: expected a number above 0, got 0.0"),
]


@pytest.mark.parametrize(("choice", "text"), MISFITS + NO_CHOICES)
def test_a_band_that_does_not_fit_is_refused(choice: Any, text: str, stack: Stack) -> None:
    with pytest.raises(InputError, match=text):
        EnergyBand(stack(), choice)


@pytest.mark.parametrize(("bands", "text"), MISFITS)
def test_a_calibration_refuses_it_too(bands: Any, text: str, stack: Stack) -> None:
    with pytest.raises(InputError, match=text):
        BandCalibration(stack(), bands)


# --- the penalty ---


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


# --- calibration ---


def test_calibration_moves_the_band_in_bounded_steps(stack: Stack, see: See, drive: Drive) -> None:
    model = stack()
    band = EnergyBand(model, partial(heterogeneous_band, target=1.0, spread=2.0))
    calibration = BandCalibration(
        model, band, low_share=0.0, high_share=0.0, largest=1.5, every=4, momentum=0.5
    )
    before = Band(*(part.clone() for part in band.bands["layers.0"]))
    high = see(energy=[8.0, 16.0, 32.0])  # 16 times the targets: two bounds of 20 and 10
    drive(calibration, high, steps=3)
    torch.testing.assert_close(band.bands["layers.0"].target, before.target)
    drive(calibration, high)
    for now, then in zip(band.bands["layers.0"], before, strict=True):
        torch.testing.assert_close(now, 1.5 * then)


def test_calibration_takes_the_running_average(stack: Stack, see: See, drive: Drive) -> None:
    bands = {"layers.0": Band(*(part.clone() for part in BAND))}
    calibration = BandCalibration(
        stack(), bands, low_share=0.0, high_share=0.0, largest=10.0, every=1, momentum=0.25
    )
    drive(calibration, see(energy=[2.0, 2.0, 2.0]))  # sqrt(2/1 * 2/4) = 1
    assert bands["layers.0"].low.tolist() == pytest.approx([1.0] * 3)
    drive(calibration, see(energy=[10.0, 10.0, 10.0]))  # average 4: sqrt(4/1 * 4/4) = 2
    assert bands["layers.0"].low.tolist() == pytest.approx([2.0] * 3)
    assert bands["layers.0"].high.tolist() == pytest.approx([8.0] * 3)
    assert bands["layers.0"].target.tolist() == pytest.approx([4.0] * 3)


def test_calibration_of_what_was_never_seen_moves_nothing(stack: Stack) -> None:
    bands = {"layers.0": Band(*(part.clone() for part in BAND))}
    calibration = BandCalibration(stack(), bands, every=1)
    calibration.act()
    assert bands["layers.0"].low.tolist() == [1.0] * 3


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"low_share": 1.0}, "low_share: expected less than 1 - high_share"),
        ({"high_share": -0.5}, "high_share: expected a number of at least 0"),
        ({"largest": 0.9}, "largest: expected a number above 1, got 0.9"),
        ({"momentum": 0.0}, "momentum: expected a number above 0"),
    ],
)
def test_bad_calibration(settings: dict[str, Any], text: str, stack: Stack) -> None:
    with pytest.raises(InputError, match=f"^{text}"):
        BandCalibration(stack(), {"layers.0": BAND}, **settings)
