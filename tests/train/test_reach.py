from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.poutine.runtime import _PYRO_STACK
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import Regression
from torch import Tensor

from pyro_vdn.control import (
    Composed,
    Controller,
    EnergyBand,
    FreeBits,
    Homeostat,
    KLSchedule,
    ScaleGuard,
    Thermostat,
    linear_warmup,
)
from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO
from pyro_vdn.poutine import clamp, kl_weight
from pyro_vdn.testing import NeuronStack
from pyro_vdn.train.reach import ReachMessenger

WITH_EFFECTS = [
    Thermostat,
    EnergyBand,
    FreeBits,
    partial(KLSchedule, schedule=partial(linear_warmup, steps=10)),
]
X, Y = torch.zeros(6, 3, dtype=torch.float64), torch.zeros(6, 1, dtype=torch.float64)


def looked_at(program: Callable[..., Any], *args: Any) -> ReachMessenger:
    with ReachMessenger() as reach:
        program(*args)
    return reach


def refused(reach: ReachMessenger, controller: Controller) -> bool:
    try:
        reach.check(controller)
    except InputError:
        return True
    return False


@pytest.mark.parametrize("make", WITH_EFFECTS)
def test_wrapped_reaches_and_bare_does_not(make: Callable[[Any], Controller]) -> None:
    model = Regression(3)
    controller = make(model)
    assert not refused(looked_at(controller.wrap(model), X), controller)
    assert not refused(
        looked_at(clamp(controller.wrap(model), {"neurons": {0: 0.0}}), X), controller
    )
    assert refused(looked_at(model, X), controller)
    assert not _PYRO_STACK


@pytest.mark.parametrize("make", [Homeostat, ScaleGuard])
def test_who_has_no_effects_needs_none(make: Callable[[Any], Controller]) -> None:
    model = Regression(3)
    assert not refused(looked_at(model, X), make(model))


def test_each_of_several_must_reach() -> None:
    model = Regression(3)
    thermostat, band, bits = Thermostat(model), EnergyBand(model), FreeBits(model)
    nested = Composed(Composed(thermostat, ScaleGuard(model)), band, bits)
    assert not refused(looked_at(nested.wrap(model), X), nested)
    reach = looked_at(bits.wrap(thermostat.wrap(model)), X)
    with pytest.raises(InputError, match="here EnergyBand, got layer 'neurons' without them"):
        reach.check(nested)


@pytest.mark.parametrize("make", [Thermostat, EnergyBand])
def test_another_instance_does_not_count(make: Callable[[Any], Controller]) -> None:
    model = Regression(3)
    assert refused(looked_at(make(model).wrap(model), X), make(model))


def test_free_bits_are_known_by_their_number() -> None:
    model = Regression(3)
    reach = looked_at(FreeBits(model, 0.2).wrap(model), X)
    assert not refused(reach, FreeBits(model, 0.2))
    assert refused(reach, FreeBits(model, 0.1))


def test_copied_weights_are_dead() -> None:
    model = Regression(3)
    thermostat = Thermostat(model)
    alive = kl_weight(model, dict(thermostat.weights))
    dead = kl_weight(model, {path: one.clone() for path, one in thermostat.weights.items()})
    assert not refused(looked_at(alive, X), thermostat)
    assert refused(looked_at(dead, X), thermostat)


def test_effects_may_stand_anywhere() -> None:
    model = Regression(3)
    thermostat = Thermostat(model)

    def inside(x: Tensor) -> Tensor:
        with kl_weight(weight=thermostat.weights):
            return model(x)

    assert not refused(looked_at(inside, X), thermostat)
    with kl_weight(weight=thermostat.weights):
        assert not refused(looked_at(model, X), thermostat)


def test_weights_survive_loading_and_moving() -> None:
    model = Regression(3)
    thermostat = Thermostat(model)
    controlled = thermostat.wrap(model)
    thermostat.load_state_dict(Thermostat(model, initial_weight=0.5).state_dict())
    thermostat.to("cpu")
    assert not refused(looked_at(controlled, X), thermostat)


def test_every_layer_must_be_reached() -> None:
    model = NeuronStack(3, num_layers=2)
    thermostat = Thermostat(model)
    assert not refused(looked_at(thermostat.wrap(model), X), thermostat)
    last = {"layers.1": thermostat.weights["layers.1"]}
    assert refused(looked_at(kl_weight(model, last), X), thermostat)


def test_layers_of_others_need_no_effects() -> None:
    model = NeuronStack(3, num_layers=2)
    thermostat = Thermostat({"layers.1": model.layers[1]})
    assert not refused(looked_at(thermostat.wrap(model), X), thermostat)


@pytest.mark.parametrize("loss", [LocalELBO(), Trace_ELBO()])
def test_the_model_of_a_step_is_what_counts(loss: Any) -> None:
    model = Regression(3)
    band = EnergyBand(model, 0.1)
    wrapped = band.wrap(model)
    step = partial(loss.differentiable_loss)
    assert not refused(looked_at(step, wrapped, NeuronGuide(wrapped), X, Y), band)
    assert not refused(looked_at(step, wrapped, NeuronGuide(model), X, Y), band)
    assert refused(looked_at(step, model, NeuronGuide(model), X, Y), band)
    pyro.clear_param_store()


def test_a_penalty_on_the_guide_alone_does_not_count() -> None:
    model = Regression(3)
    band = EnergyBand(model, 0.1)
    guide = NeuronGuide(band.wrap(model))
    assert refused(looked_at(Trace_ELBO().differentiable_loss, model, guide, X, Y), band)
