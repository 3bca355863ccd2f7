"""A unit of which nothing finite is ever seen: it stays as it is, and the others go on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_vdn.control import (
    Band,
    BandCalibration,
    Controller,
    EnergyBand,
    Homeostat,
    Projection,
    ScaleGuard,
    Thermostat,
)
from pyro_vdn.control.controller import Seen
from pyro_vdn.testing import NeuronStack

Stack = Callable[..., NeuronStack]
See = Callable[..., Seen]
Drive = Callable[..., None]

LOST = pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf])
WIDTHS = pytest.mark.parametrize("scale", ["unit", "input", "low_rank"])


def unknown(see: See, lost: float, energy: float = 1e-4, scale: float = 0.05) -> Seen:
    """A quiet layer with a KL of 9; of its middle unit nothing is known, not even the prior."""
    values = {"energy": energy, "kl": 9.0, "scale": scale, "prior_variance": 1.0}
    return see(**{name: [value, lost, value] for name, value in values.items()})


def rows_of(model: NeuronStack) -> dict[str, Tensor]:
    """Every parameter that controllers may move, one row or column per unit."""
    posterior = dict(model.neuron_layers[0].posterior.named_parameters())
    rows = {name: posterior[name] for name in posterior if "raw_scale.0" not in name}
    rows["readout"] = model.readout.weight.T
    return {name: value.detach().clone() for name, value in rows.items()}


MAKERS: dict[str, Callable[..., Controller]] = {
    "Homeostat": lambda model, **more: Homeostat(model, 0.1, every=1, warmup=0, **more),
    "Projection": lambda model, **more: Projection(model, 1, 0.1, **more),
    "ScaleGuard": lambda model: ScaleGuard(model, floor=0.15, every=1),
}


@LOST
@WIDTHS
@pytest.mark.parametrize(
    ("name", "compensated"),
    [
        ("Homeostat", False),
        ("Homeostat", True),
        ("Projection", False),
        ("Projection", True),
        ("ScaleGuard", False),
    ],
)
def test_its_row_stays(
    name: str, compensated: bool, scale: Any, lost: float, stack: Stack, see: See, drive: Drive
) -> None:
    model = stack(scale=scale)
    more = {"compensate": {"layers.0": model.readout}} if compensated else {}
    controller = MAKERS[name](model, **more)
    if scale == "unit":
        model.neuron_layers[0].posterior.raw_scale.value.data[[0, 2]] = -4.0  # below the floor
    before = rows_of(model)
    drive(controller, unknown(see, lost), steps=3)
    after = rows_of(model)
    assert all(one.isfinite().all() for one in after.values())
    assert all(after[part][1].equal(before[part][1]) for part in before)
    others = [(after[part] != before[part])[[0, 2]] for part in before]
    assert any(moved.all() for moved in others)


@LOST
def test_its_kl_weight_stays(lost: float, stack: Stack, see: See, drive: Drive) -> None:
    thermostat = Thermostat(stack(), initial_weight=0.5, every=1)
    drive(thermostat, unknown(see, lost), steps=2)
    risen = 0.5 * math.exp(0.4)
    assert thermostat.weights["layers.0"].tolist() == pytest.approx([risen, 0.5, risen])


@LOST
def test_it_does_not_count_among_a_crowd(lost: float, stack: Stack, see: See, drive: Drive) -> None:
    band = EnergyBand(stack(), 0.1, crowd=0.5, crowd_high_weight=0.25, every=1)
    drive(band, unknown(see, lost))
    assert band.memory["high_weight"]["layers.0"].item() == 0.25
    drive(band, unknown(see, lost, energy=0.1), steps=1)
    assert band.memory["high_weight"]["layers.0"].item() == 1.0


@LOST
def test_a_band_follows_the_others(lost: float, stack: Stack, see: See, drive: Drive) -> None:
    model = stack()
    band = EnergyBand(model, Band(*(torch.full((3,), value) for value in (1.0, 4.0, 2.0))))
    calibration = BandCalibration(model, band, largest=10.0, every=1)
    drive(calibration, unknown(see, lost, energy=4.0))  # sqrt(4/1 * 4/4) = 2
    assert band.bands["layers.0"].target.tolist() == pytest.approx([4.0] * 3)


def test_once_it_is_seen_it_is_controlled(stack: Stack, see: See, drive: Drive) -> None:
    model = stack()
    homeostat = MAKERS["Homeostat"](model, compensate={"layers.0": model.readout})
    drive(homeostat, unknown(see, math.nan))
    before = rows_of(model)["loc.bias"][1]
    drive(homeostat, see(energy=[1e-4] * 3, scale=[0.05] * 3))
    assert (rows_of(model)["loc.bias"][1] / before).item() == pytest.approx(1.6)  # the largest gain
