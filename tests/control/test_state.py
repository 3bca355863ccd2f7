"""A controller that continues from a checkpoint acts as one that was never interrupted."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from torch import Tensor

from pyro_vdn.control import (
    BandCalibration,
    Controller,
    EnergyBand,
    FreeBits,
    Homeostat,
    KLSchedule,
    Projection,
    ScaleGuard,
    Thermostat,
    compose,
    cyclical_warmup,
    homeostatic,
    projection_off,
    projection_on,
    watch,
)
from pyro_vdn.infer import LocalELBO
from pyro_vdn.testing import NeuronStack, same_state

Stack = Callable[..., NeuronStack]


def everything(model: NeuronStack) -> Controller:
    band = EnergyBand(model, 0.3, ramp=9, every=3, weight=0.5)
    readers = {"layers.0": model.neuron_layers[1], "layers.1": model.readout}
    return compose(
        KLSchedule(model, partial(cyclical_warmup, period=7)),
        Thermostat(model, every=2),
        FreeBits(model, 0.2),
        band,
        BandCalibration(model, band, every=5),
        Homeostat(model, band, every=4, warmup=3, compensate=readers),
        ScaleGuard(model, floor=0.25, every=3),
    )


#: Each at a pace at which step 8, where they are interrupted, lies between two acts.
MAKERS: dict[str, Callable[[NeuronStack], Controller]] = {
    "Thermostat": lambda m: Thermostat(m, every=3),
    "EnergyBand": lambda m: EnergyBand(m, 0.5, weight=0.1, ramp=12, every=3, crowd=0.1),
    "BandCalibration": lambda m: (lambda band: compose(band, BandCalibration(m, band, every=3)))(
        EnergyBand(m, 0.3)
    ),
    "Homeostat": lambda m: Homeostat(m, 0.3, every=3, warmup=2),
    "Projection": lambda m: Projection(m, 5, 0.3, batches=4),
    "ScaleGuard": lambda m: ScaleGuard(m, floor=0.28, dead=1.0, every=3),
    "FreeBits": lambda m: FreeBits(m, 0.5),
    "KLSchedule": lambda m: KLSchedule(m, partial(cyclical_warmup, period=5)),
    "projection off": projection_off,
    "projection on": lambda m: projection_on(m, 5),
    "homeostatic": homeostatic,
    "everything": everything,
}


def train(
    model: NeuronStack, controller: Controller, batches: Tensor, seed: int
) -> list[list[Tensor]]:
    """Take a step of plain gradient descent per batch and keep all parameters after each."""
    controlled = controller.wrap(model)
    guide, loss = NeuronGuide(controlled), LocalELBO()
    pyro.clear_param_store()  # each model its own parameters
    pyro.set_rng_seed(seed)
    after = []
    for batch in batches:
        with watch(controller):
            model.zero_grad()
            loss.loss_and_grads(controlled, guide, batch[:, :4], batch[:, 4:])
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        parameter.sub_(1e-3 * parameter.grad)
        after.append([parameter.detach().clone() for parameter in model.parameters()])
    return after


@pytest.mark.parametrize("name", MAKERS)
def test_a_resumed_controller_acts_bit_for_bit(name: str, stack: Stack) -> None:
    batches = torch.randn(20, 6, 6)
    model = stack(num_layers=2)
    controller = MAKERS[name](model)
    train(model, controller, batches[:8], seed=1)
    saved, state = copy.deepcopy(model.state_dict()), controller.state_dict()
    straight = train(model, controller, batches[8:], seed=2)

    other = stack(num_layers=2)
    fresh = MAKERS[name](other)
    other.load_state_dict(saved)
    fresh.load_state_dict(state)
    assert same_state(train(other, fresh, batches[8:], seed=2), straight)
    assert same_state(controller.state_dict(), fresh.state_dict())

    forgetful = stack(num_layers=2)  # and the state is what makes the difference
    amnesiac = MAKERS[name](forgetful)
    forgetful.load_state_dict(saved)
    without = train(forgetful, amnesiac, batches[8:], seed=2)
    assert same_state(without, straight) == (name == "FreeBits")


@pytest.mark.parametrize("name", ["Thermostat", "KLSchedule", "EnergyBand", "BandCalibration"])
def test_live_tensors_stay_the_same_objects(name: str, stack: Stack) -> None:
    model = stack(num_layers=2)
    controller = MAKERS[name](model)
    train(model, controller, torch.randn(7, 6, 6), seed=1)
    fresh = MAKERS[name](model)
    parts = getattr(fresh, "controllers", (fresh,))
    live = [value for part in parts for values in part.memory.values() for value in values.values()]
    before = [value.clone() for value in live]
    fresh.load_state_dict(controller.state_dict())
    now = [value for part in parts for values in part.memory.values() for value in values.values()]
    assert {id(value) for value in live} <= {id(value) for value in now}
    assert not all(torch.equal(*pair) for pair in zip(live, before, strict=True))


def test_weights_handed_out_before_loading_are_the_loaded_ones(stack: Stack) -> None:
    model, data = stack(), (torch.randn(6, 4), torch.randn(6, 2))
    old = Thermostat(model, initial_weight=0.5)
    fresh = Thermostat(model, initial_weight=0.1)
    controlled = fresh.wrap(model)
    handed_out = fresh.weights["layers.0"]
    fresh.load_state_dict(old.state_dict())
    assert fresh.weights["layers.0"] is handed_out
    pyro.set_rng_seed(0)
    weighted = LocalELBO().terms(controlled, NeuronGuide(controlled), *data).kl["layers.0"]
    pyro.set_rng_seed(0)
    plain = LocalELBO().terms(model, NeuronGuide(model), *data).kl["layers.0"]
    torch.testing.assert_close(weighted, 0.5 * plain)


def test_a_calibrated_band_is_restored_for_all_who_share_it(stack: Stack) -> None:
    model = stack()

    def make() -> tuple[EnergyBand, Homeostat, Controller]:
        band = EnergyBand(model, 0.3)
        homeostat = Homeostat(model, band)
        return (
            band,
            homeostat,
            compose(band, BandCalibration(model, band, every=1), homeostat),
        )

    _, _, first = make()
    train(model, first, torch.randn(4, 6, 6), seed=0)
    band, homeostat, second = make()
    second.load_state_dict(first.state_dict())
    assert band.bands["layers.0"].low is homeostat.bands["layers.0"].low
    assert not torch.allclose(band.bands["layers.0"].target, torch.tensor(0.3))


def test_a_state_is_made_of_plain_parts(stack: Stack) -> None:
    model = stack(num_layers=2)
    controller = everything(model)
    train(model, controller, torch.randn(9, 6, 6), seed=0)

    def check(part: Any) -> None:
        if isinstance(part, dict):
            assert all(isinstance(key, str) for key in part)
            for value in part.values():
                check(value)
        elif isinstance(part, list):
            for value in part:
                check(value)
        else:
            assert type(part) in (Tensor, int, str)

    check(controller.state_dict())
