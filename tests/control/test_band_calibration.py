"""Bands that follow their layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from pyro_vdn.control import Band, BandCalibration, EnergyBand, Homeostat, heterogeneous_band
from pyro_vdn.control.controller import Seen
from pyro_vdn.errors import InputError
from pyro_vdn.testing import NeuronStack

Stack = Callable[..., NeuronStack]
See = Callable[..., Seen]
Drive = Callable[..., None]

#: low, high and target of three units.
BAND = Band(torch.full((3,), 1.0), torch.full((3,), 4.0), torch.full((3,), 2.0))


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
    model = stack()
    band = EnergyBand(model, BAND)
    bands = band.bands
    calibration = BandCalibration(
        model, band, low_share=0.0, high_share=0.0, largest=10.0, every=1, momentum=0.25
    )
    drive(calibration, see(energy=[2.0, 2.0, 2.0]))  # sqrt(2/1 * 2/4) = 1
    assert bands["layers.0"].low.tolist() == pytest.approx([1.0] * 3)
    drive(calibration, see(energy=[10.0, 10.0, 10.0]))  # average 4: sqrt(4/1 * 4/4) = 2
    assert bands["layers.0"].low.tolist() == pytest.approx([2.0] * 3)
    assert bands["layers.0"].high.tolist() == pytest.approx([8.0] * 3)
    assert bands["layers.0"].target.tolist() == pytest.approx([4.0] * 3)


def test_calibration_of_what_was_never_seen_moves_nothing(stack: Stack) -> None:
    model = stack()
    band = EnergyBand(model, BAND)
    BandCalibration(model, band, every=1).act()
    assert band.bands["layers.0"].low.tolist() == [1.0] * 3


def test_calibration_of_what_is_not_known_moves_nothing(
    stack: Stack, see: See, drive: Drive
) -> None:
    model = stack()
    band = EnergyBand(model, BAND)
    drive(BandCalibration(model, band, every=1), see(energy=[float("nan")] * 3), steps=2)
    assert band.bands["layers.0"].low.tolist() == [1.0] * 3


def test_whoever_shares_the_bands_follows(stack: Stack, see: See, drive: Drive) -> None:
    model = stack()
    band = EnergyBand(model, BAND)
    homeostat = Homeostat(model, band)
    drive(BandCalibration(model, homeostat, every=1), see(energy=[99.0] * 3))
    assert band.bands["layers.0"].low.tolist() == pytest.approx([1.1] * 3)
    assert homeostat.bands["layers.0"].low.tolist() == pytest.approx([1.1] * 3)


@pytest.mark.parametrize(
    ("energy", "limit", "share"),
    [(1e-9, 3.0, 1 / 3), (1e9, 3.0, 3.0), (1e-9, 100.0, 1.5**-5), (1e9, 100.0, 1.5**5)],
)
def test_a_band_stays_within_the_limit_of_where_it_began(
    energy: float, limit: float, share: float, stack: Stack, see: See, drive: Drive
) -> None:
    model = stack()
    band = EnergyBand(model, BAND)
    calibration = BandCalibration(model, band, largest=1.5, limit=limit, every=1)
    drive(calibration, see(energy=[energy] * 3), steps=5)
    for now, began in zip(band.bands["layers.0"], BAND, strict=True):
        torch.testing.assert_close(now, began.double() * share)


def test_a_band_at_its_limit_can_come_back(stack: Stack, see: See, drive: Drive) -> None:
    model = stack()
    band = EnergyBand(model, BAND)
    calibration = BandCalibration(
        model, band, largest=1.5, limit=1.2, every=1, low_share=0.0, high_share=0.0, momentum=1.0
    )
    drive(calibration, see(energy=[1e-9] * 3))
    drive(calibration, see(energy=[2.0] * 3))
    torch.testing.assert_close(band.bands["layers.0"].target, BAND.target.double())


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"low_share": 1.0}, "low_share: expected less than 1 - high_share"),
        ({"high_share": -0.5}, "high_share: expected a number of at least 0"),
        ({"largest": 0.9}, "largest: expected a number above 1, got 0.9"),
        ({"limit": 1.0}, "limit: expected a number above 1, got 1.0"),
        ({"momentum": 0.0}, "momentum: expected a number above 0"),
    ],
)
def test_bad_calibration(settings: dict[str, Any], text: str, stack: Stack) -> None:
    model = stack()
    with pytest.raises(InputError, match=f"^{text}"):
        BandCalibration(model, EnergyBand(model, BAND), **settings)


@pytest.mark.parametrize(
    ("band", "got"),
    [({"layers.0": BAND}, "dict"), (BAND, "Band"), (0.1, "float")],
)
def test_what_is_no_controller_is_refused(band: Any, got: str, stack: Stack) -> None:
    text = f"^band: expected the controller whose bands are to move, got a {got}. Try: band = Ene"
    with pytest.raises(InputError, match=text):
        BandCalibration(stack(), band)


@pytest.mark.parametrize(
    ("others", "text"),
    [({"num_layers": 1}, "layers.1': .*got none"), ({"num_units": 4}, r"got shapes \[\(4,\)")],
)
def test_a_controller_of_other_layers_is_refused(
    others: dict[str, int], text: str, stack: Stack
) -> None:
    with pytest.raises(InputError, match=text):
        BandCalibration(stack(num_layers=2), EnergyBand(stack(**{"num_layers": 2, **others})))
