"""Controllers with bands: which they take, copy, share and refuse."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from pyro_vdn.control import (
    Band,
    BandCalibration,
    EnergyBand,
    Homeostat,
    Projection,
    heterogeneous_band,
    homogeneous_band,
)
from pyro_vdn.control.banded import Banded
from pyro_vdn.errors import InputError
from pyro_vdn.testing import NeuronStack

Stack = Callable[..., NeuronStack]

#: low, high and target of three units.
BAND = Band(torch.full((3,), 1.0), torch.full((3,), 4.0), torch.full((3,), 2.0))

MAKERS: dict[str, Callable[..., Banded]] = {
    "EnergyBand": EnergyBand,
    "Homeostat": Homeostat,
    "Projection": lambda model, band: Projection(model, 5, band),
}


@pytest.mark.parametrize(
    ("choice", "target"),
    [
        (0.2, [0.2, 0.2, 0.2]),
        (1, [1.0, 1.0, 1.0]),
        (partial(heterogeneous_band, target=1.0, spread=10.0), [0.1, 1.0, 10.0]),
        ({"layers.0": BAND}, [2.0, 2.0, 2.0]),
        (BAND, [2.0, 2.0, 2.0]),
    ],
    ids=["target", "whole number", "function", "mapping", "band"],
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
    (homogeneous_band(2), r"^band of layer 'layers.0': .*got shapes \[\(2,\), \(2,\), \(2,\)\]"),
    (None, r"^band: expected bands by layer path.*, got a NoneType. Try: band=\{\"layers.0\""),
    ("0.1", "^band: expected bands by layer path.*, got a str"),
    (
        {"layers.0": BAND, "layers.1": BAND},
        r"^band: expected paths of layers among \['layers.0'\], got 'layers.1'. Try: a layer",
    ),
    ({"layer.0": BAND}, "got 'layer.0'"),
    (0.0, "target: expected a number above 0, got 0.0"),
]


@pytest.mark.parametrize(("choice", "text"), MISFITS + NO_CHOICES)
def test_a_band_that_does_not_fit_is_refused(choice: Any, text: str, stack: Stack) -> None:
    with pytest.raises(InputError, match=text):
        EnergyBand(stack(), choice)


# --- whose they are ---


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(
    "choose",
    [lambda band: {"layers.0": band}, lambda band: band, lambda band: lambda units: band],
    ids=["mapping", "band", "function"],
)
def test_bands_that_are_given_stay_as_they_are(
    choose: Callable[[Band], Any], name: str, stack: Stack
) -> None:
    given, model = homogeneous_band(3, 1.0), stack()
    banded = MAKERS[name](model, choose(given))
    calibration = BandCalibration(model, banded, every=1)
    calibration.memory["mu2"] = {"layers.0": torch.full((3,), 100.0)}
    calibration.act()
    torch.testing.assert_close(banded.bands["layers.0"].target, torch.full((3,), 1.1))
    assert given.target.tolist() == [1.0] * 3


def test_one_band_for_two_layers_moves_in_one_of_them(stack: Stack) -> None:
    model = stack(num_layers=2)
    band = EnergyBand(model, homogeneous_band(3, 1.0))
    band.bands["layers.0"].target.mul_(2.0)
    assert band.bands["layers.1"].target.tolist() == [1.0] * 3


@pytest.mark.parametrize("second", MAKERS)
@pytest.mark.parametrize("first", MAKERS)
def test_another_controller_s_bands_are_shared(first: str, second: str, stack: Stack) -> None:
    model = stack()
    one = MAKERS[first](model, 1.0)
    two = MAKERS[second](model, one)
    one.bands["layers.0"].low.mul_(0.5)
    assert two.bands["layers.0"].low.tolist() == pytest.approx([0.4] * 3)


@pytest.mark.parametrize("name", MAKERS)
def test_a_controller_of_other_layers_is_refused(name: str, stack: Stack) -> None:
    model = stack(num_layers=2)
    one = EnergyBand({"layers.0": model.neuron_layers[0]})
    with pytest.raises(InputError, match=r"^band of layer 'layers.1': expected .*, got none"):
        MAKERS[name](model, one)


@pytest.mark.parametrize("name", MAKERS)
def test_a_controller_of_layers_of_another_size_is_refused(name: str, stack: Stack) -> None:
    with pytest.raises(InputError, match=r"^band of layer 'layers.0': .*got shapes \[\(4,\)"):
        MAKERS[name](stack(), EnergyBand(stack(num_units=4)))
