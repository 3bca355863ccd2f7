"""Schedules against tables worked by hand, and the controller that follows one."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pytest
import torch
from pyro_vdn.guides import NeuronGuide

from pyro_vdn.control import KLSchedule, Thermostat, cyclical_warmup, linear_warmup
from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO
from pyro_vdn.testing import NeuronStack

Stack = Callable[..., NeuronStack]


@pytest.mark.parametrize(
    ("step", "settings", "weight"),
    [
        (0, {"steps": 100}, 0.0),
        (1, {"steps": 100}, 0.01),
        (50, {"steps": 100}, 0.5),
        (99, {"steps": 100}, 0.99),
        (100, {"steps": 100}, 1.0),
        (101, {"steps": 100}, 1.0),
        (10**9, {"steps": 100}, 1.0),
        (0, {"steps": 1}, 0.0),
        (1, {"steps": 1}, 1.0),
        (0, {"steps": 10, "start": 0.2, "end": 0.6}, 0.2),
        (5, {"steps": 10, "start": 0.2, "end": 0.6}, 0.4),
        (10, {"steps": 10, "start": 0.2, "end": 0.6}, 0.6),
        (5, {"steps": 10, "start": 2.0, "end": 1.0}, 1.5),  # downward
        (30, {"steps": 10, "start": 2.0, "end": 1.0}, 1.0),
    ],
)
def test_linear_warmup(step: int, settings: dict[str, Any], weight: float) -> None:
    assert linear_warmup(step, **settings) == pytest.approx(weight, rel=1e-12)


@pytest.mark.parametrize(
    ("step", "settings", "weight"),
    [
        (0, {"period": 10}, 0.0),
        (1, {"period": 10}, 0.2),
        (4, {"period": 10}, 0.8),
        (5, {"period": 10}, 1.0),
        (9, {"period": 10}, 1.0),
        (10, {"period": 10}, 0.0),
        (11, {"period": 10}, 0.2),
        (15, {"period": 10}, 1.0),
        (1003, {"period": 10}, 0.6),
        (9, {"period": 10, "rise": 1.0}, 0.9),
        (1, {"period": 10, "rise": 0.1}, 1.0),
        (0, {"period": 10, "rise": 0.1}, 0.0),
        (0, {"period": 1}, 0.0),
        (1, {"period": 1}, 0.0),
        (2, {"period": 8, "start": 0.5, "end": 1.5}, 1.0),
        (8, {"period": 8, "start": 0.5, "end": 1.5}, 0.5),
    ],
)
def test_cyclical_warmup(step: int, settings: dict[str, Any], weight: float) -> None:
    assert cyclical_warmup(step, **settings) == pytest.approx(weight, rel=1e-12)


@pytest.mark.parametrize(
    ("schedule", "settings", "text"),
    [
        (linear_warmup, {"steps": 0}, "steps: expected a positive integer, got 0"),
        (cyclical_warmup, {"period": 0}, "period: expected a positive integer, got 0"),
        (
            cyclical_warmup,
            {"period": 2, "rise": 0.0},
            "rise: expected a number above 0 and at most 1, got 0.0",
        ),
        (
            cyclical_warmup,
            {"period": 2, "rise": 1.1},
            "rise: expected a number above 0 and at most 1, got 1.1",
        ),
    ],
)
def test_bad_schedules(schedule: Callable[..., float], settings: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=f"^{text}"):
        schedule(0, **settings)


def test_the_weight_of_a_step_is_that_of_the_steps_before_it(stack: Stack) -> None:
    schedule = KLSchedule(stack(), partial(linear_warmup, steps=4))
    live, weights = schedule.weight, []
    for _ in range(6):
        weights.append(schedule.weight.item())
        assert not schedule.due
        schedule.observe({})
        schedule.act()
    assert weights == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert schedule.weight is live


def kl_of(model: Any, *data: torch.Tensor) -> dict[str, torch.Tensor]:
    pyro.set_rng_seed(1)
    return LocalELBO().terms(model, NeuronGuide(model), *data).kl


def test_the_weight_is_live_and_multiplies_others(stack: Stack) -> None:
    model, data = stack(num_layers=2), (torch.randn(6, 4), torch.randn(6, 2))
    schedule = KLSchedule(model, partial(linear_warmup, steps=4))
    thermostat = Thermostat(model, initial_weight=0.1)
    controlled = thermostat.wrap(schedule.wrap(model))
    schedule.act()
    kl, plain = kl_of(controlled, *data), kl_of(model, *data)
    torch.testing.assert_close(kl["layers.0"], 0.25 * 0.1 * plain["layers.0"])
    torch.testing.assert_close(kl["layers.1"], 0.25 * 0.1 * plain["layers.1"])
    schedule.act()
    torch.testing.assert_close(kl_of(controlled, *data)["layers.0"], 0.5 * 0.1 * plain["layers.0"])


def test_it_weights_its_own_layers_alone(stack: Stack) -> None:
    model, data = stack(num_layers=2), (torch.randn(6, 4), torch.randn(6, 2))
    schedule = KLSchedule({"layers.1": model.neuron_layers[1]}, lambda step: 0.5)
    kl, plain = kl_of(schedule.wrap(model), *data), kl_of(model, *data)
    torch.testing.assert_close(kl["layers.0"], plain["layers.0"])
    torch.testing.assert_close(kl["layers.1"], 0.5 * plain["layers.1"])


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("at", [0, 2])
def test_a_schedule_that_gives_no_weight_is_refused(weight: float, at: int, stack: Stack) -> None:
    def schedule(step: int) -> float:
        return weight if step == at else 1.0

    def two_steps() -> None:
        controller = KLSchedule(stack(), schedule)
        controller.act()
        controller.act()

    with pytest.raises(
        InputError, match=r"^schedule: expected a number of at least 0, got .*Try: clamp"
    ):
        two_steps()
