"""Checks of settings: what they refuse, and that what they suggest is taken."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from pyro_vdn.control import (
    BandCalibration,
    EnergyBand,
    FreeBits,
    Homeostat,
    Projection,
    ScaleGuard,
    Thermostat,
    heterogeneous_band,
)
from pyro_vdn.control.checks import check_order, check_paths, check_range
from pyro_vdn.errors import InputError
from pyro_vdn.testing import NeuronStack


@pytest.mark.parametrize(
    ("value", "low", "high", "above"),
    [
        (0.0, 0.0, 1.0, False),
        (1.0, 0.0, 1.0, False),
        (1.0, 0.0, 1.0, True),
        (1e-300, 0.0, 1.0, True),
        (1e300, 0.0, math.inf, True),
        (-2.0, -3.0, -2.0, False),
    ],
)
def test_a_value_in_range_is_taken(value: float, low: float, high: float, above: bool) -> None:
    check_range("a", value, low, high, above=above)


@pytest.mark.parametrize(
    ("value", "low", "high", "above", "text"),
    [
        (-0.1, 0.0, math.inf, False, "a number of at least 0, got -0.1. Try: a=0"),
        (0.9, 1.0, math.inf, False, "a number of at least 1, got 0.9. Try: a=1"),
        (0.0, 0.0, math.inf, True, "a number above 0, got 0.0. Try: a=0.1"),
        (1.0, 1.0, math.inf, True, "a number above 1, got 1.0. Try: a=1.1"),
        (1.1, 0.0, 1.0, True, "a number above 0 and at most 1, got 1.1. Try: a=0.5"),
        (-2.0, -1.0, 1.0, False, "a number of at least -1 and at most 1, got -2.0. Try: a=0"),
        (math.nan, 0.0, 1.0, False, "got nan. Try: a=0.5"),
        (math.inf, 0.0, math.inf, False, "got inf. Try: a=0"),
    ],
)
def test_a_value_out_of_range_is_refused(
    value: float, low: float, high: float, above: bool, text: str
) -> None:
    with pytest.raises(InputError, match=f"^a: expected .*{text}$"):
        check_range("a", value, low, high, above=above)


def test_a_hint_of_one_s_own() -> None:
    with pytest.raises(InputError, match=r"Try: a larger one$"):
        check_range("a", -1.0, 0.0, hint="a larger one")


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (2.0, 1.0, "less than b = 1, got 2. Try: a=0.5, or a larger b"),
        (1.0, 1.0, "less than b = 1, got 1. Try: a=0.5, or a larger b"),
        (0.1, -1.0, "less than b = -1, got 0.1. Try: a larger b"),
        (math.nan, 1.0, "got nan. Try: a=0.5"),
    ],
)
def test_bounds_in_the_wrong_order_are_refused(low: float, high: float, text: str) -> None:
    with pytest.raises(InputError, match=f"^a: expected .*{text}"):
        check_order("a", low, "b", high)


def test_bounds_in_order_are_taken() -> None:
    check_order("a", 0.0, "b", 1e-9)


def test_a_path_without_a_layer_is_refused() -> None:
    with pytest.raises(InputError, match=r"^a: expected .* among \['x', 'y'\], got 'w'. Try: a la"):
        check_paths("a", {"x": 1, "z": 1, "w": 1}, {"y": 1, "x": 1})


def test_paths_of_some_layers_are_taken() -> None:
    check_paths("a", {"x": 1}, {"y": 1, "x": 1})


MAKERS: dict[str, Callable[..., Any]] = {
    "Thermostat": Thermostat,
    "EnergyBand": EnergyBand,
    "BandCalibration": lambda model, **one: BandCalibration(model, EnergyBand(model), **one),
    "FreeBits": FreeBits,
    "Homeostat": Homeostat,
    "Projection": lambda model, **one: Projection(model, 5, **one),
    "ScaleGuard": ScaleGuard,
    "band": lambda model, **one: heterogeneous_band(3, **{"target": 0.1, **one}),
}
BAD = [
    ("Thermostat", {"low": 0.0}),
    ("Thermostat", {"dead": 1.0}),
    ("Thermostat", {"margin": 0.5}),
    ("Thermostat", {"rate": -1.0}),
    ("Thermostat", {"release": 2.0}),
    ("Thermostat", {"initial_weight": 20.0}),
    ("Thermostat", {"momentum": 0.0}),
    ("Thermostat", {"warmup": -1}),
    ("EnergyBand", {"weight": -1.0}),
    ("EnergyBand", {"crowd": 2.0}),
    ("EnergyBand", {"ramp": -2}),
    ("EnergyBand", {"band": -0.1}),
    ("BandCalibration", {"low_share": 1.5}),
    ("BandCalibration", {"high_share": -0.5}),
    ("BandCalibration", {"largest": 1.0}),
    ("BandCalibration", {"limit": 0.5}),
    ("FreeBits", {"bits": 0.0}),
    ("Homeostat", {"eta": 0.0}),
    ("Homeostat", {"largest": 1.0}),
    ("Projection", {"largest": 0.5}),
    ("ScaleGuard", {"floor": 0.0}),
    ("ScaleGuard", {"floor": 9.0}),
    ("ScaleGuard", {"kick": -9.0}),
    ("ScaleGuard", {"dead": -1.0}),
    ("band", {"spread": 0.5}),
    ("band", {"low": 0.0}),
    ("band", {"high": 0.5}),
]


@pytest.mark.parametrize(("name", "setting"), BAD, ids=str)
def test_what_is_suggested_is_taken(
    name: str, setting: dict[str, Any], stack: Callable[..., NeuronStack]
) -> None:
    model, (argument,) = stack(), setting
    with pytest.raises(InputError, match=r"Try: \w+=") as caught:
        MAKERS[name](model, **setting)
    hint = str(caught.value).partition("Try: ")[2].partition(",")[0]
    key, _, value = hint.partition("=")
    assert key == (argument if argument != "band" else "target")
    MAKERS[name](model, **{argument: float(value)})
