"""Whether a controller's effects are in force, asked directly and by `watch`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
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
    compose,
    linear_warmup,
    watch,
)
from pyro_vdn.control.controller import Program, Seen
from pyro_vdn.control.reach import ReachMessenger, forget_reach, is_reached
from pyro_vdn.errors import InputError
from pyro_vdn.infer import SVI, LocalELBO, PACmELBO
from pyro_vdn.nn import VariationalNeurons
from pyro_vdn.poutine import clamp, kl_weight, record
from pyro_vdn.testing import NeuronStack

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


def test_one_run_with_the_effects_is_enough() -> None:
    model = Regression(3)
    band = EnergyBand(model)
    controlled, step = band.wrap(model), Trace_ELBO().differentiable_loss
    with ReachMessenger() as reach:
        step(model, NeuronGuide(model), X, Y)
        step(controlled, NeuronGuide(controlled), X, Y)
        model(X)
    reach.check(band)
    assert is_reached(band)


def test_runs_without_gradients_do_not_count() -> None:
    model = Regression(3)
    band = EnergyBand(model)
    with ReachMessenger() as reach, torch.no_grad():
        model(X)
    reach.check(band)
    assert not is_reached(band)
    with ReachMessenger() as reach:
        with torch.no_grad():
            band.wrap(model)(X)
        model(X)
    assert refused(reach, band)


def test_a_program_that_must_have_arguments_tells_nothing() -> None:
    class Own(ScaleGuard):
        def wrap(self, model: Program) -> Program:
            return lambda x: model(x)

    model = Regression(3)
    own = Own(model)
    looked_at(own.wrap(model), X).check(own)
    assert is_reached(own)


def test_what_was_seen_can_be_forgotten() -> None:
    model = NeuronStack(3, num_layers=2)
    both = compose(EnergyBand(model), FreeBits(model))
    assert not is_reached(both)
    looked_at(both.wrap(model), X).check(both)
    assert is_reached(both)
    forget_reach(both)
    assert not is_reached(both)
    assert both.controllers[1].unreached == {"layers.0", "layers.1"}


# --- in a loop written by hand ---

#: None of them is due in the first step, and two never are.
NOT_DUE: dict[str, Callable[[Any], Controller]] = {
    "Thermostat": partial(Thermostat, every=3),
    "EnergyBand": EnergyBand,
    "FreeBits": FreeBits,
    "KLSchedule": partial(KLSchedule, schedule=partial(linear_warmup, steps=10)),
    "composed": lambda model: compose(ScaleGuard(model), Thermostat(model, warmup=5)),
    "twice composed": lambda model: Composed(Composed(EnergyBand(model)), FreeBits(model)),
}
LOSSES: dict[str, Callable[[], Any]] = {
    "LocalELBO": LocalELBO,
    "LocalELBO, 3 draws": lambda: LocalELBO(3),
    "PACmELBO": lambda: PACmELBO(4),
    "PACmELBO, closed form": lambda: PACmELBO(closed_form=True),
    "Trace_ELBO": Trace_ELBO,
    "Trace_ELBO, 3 draws": lambda: Trace_ELBO(3),
    "TraceMeanField_ELBO": TraceMeanField_ELBO,
}
TEXT = (
    r"model: expected a model wrapped in the effects of its controller, here {name}, got layer "
    r"'neurons' without them, so that {name} would have no say in the loss\. Try: controlled = "
    r"controller\.wrap\(model\), then SVI\(controlled, NeuronGuide\(controlled\), \.\.\.\)"
)


def stepper(program: Program, loss: Any) -> Callable[[], None]:
    svi = SVI(program, NeuronGuide(program), pyro.optim.Adam({"lr": 1e-3}), loss)
    return lambda: svi.step(X, Y)


def watched(controller: Controller, step: Callable[[], object]) -> None:
    with watch(controller):
        step()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", NOT_DUE)
def test_a_bare_model_is_refused_after_its_first_step(name: str, loss: str) -> None:
    model = Regression(3)
    controller = NOT_DUE[name](model)
    assert not controller.due
    step = stepper(model, LOSSES[loss]())
    for _ in range(2):  # who goes on is told again
        with pytest.raises(InputError, match=TEXT.format(name=r"\w+")):
            watched(controller, step)
    assert controller.step == 0
    assert not _PYRO_STACK


def test_one_that_is_due_is_refused_before_it_observes() -> None:
    model = Regression(3)
    thermostat = Thermostat(model, low=2.0, high=5.0, every=1)
    assert thermostat.due
    with pytest.raises(InputError, match=TEXT.format(name="Thermostat")):
        watched(thermostat, stepper(model, LocalELBO()))
    assert thermostat.recall("kl", "neurons") is None
    assert thermostat.step == 0


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", NOT_DUE)
def test_a_wrapped_model_is_looked_at_once(name: str, loss: str) -> None:
    model = Regression(3)
    controller = NOT_DUE[name](model)
    step = stepper(controller.wrap(model), LOSSES[loss]())
    looking = []

    def looked() -> None:
        looking.append(any(isinstance(one, ReachMessenger) for one in _PYRO_STACK))
        step()

    for _ in range(7):
        watched(controller, looked)
    assert looking == [True] + [False] * 6
    assert controller.step == 7


@pytest.mark.parametrize("make", [ScaleGuard, partial(Homeostat, every=2)])
def test_who_has_no_effects_may_watch_a_bare_model(make: Callable[[Any], Controller]) -> None:
    model = Regression(3)
    controller = make(model)
    for _ in range(3):
        watched(controller, stepper(model, LocalELBO()))
    assert controller.step == 3
    assert is_reached(controller)


def test_a_step_that_runs_no_model_tells_nothing() -> None:
    model = Regression(3)
    band = EnergyBand(model)
    watched(band, lambda: None)
    watched(band, torch.no_grad()(lambda: model(X)))
    assert band.step == 2
    with pytest.raises(InputError, match=TEXT.format(name="EnergyBand")):
        watched(band, stepper(model, LocalELBO()))


def test_layers_may_run_in_different_steps() -> None:
    first, last = Regression(3).neurons, Regression(3).neurons
    bits = FreeBits({"first": first, "last": last})

    class Named(PyroModule):
        def __init__(self, name: str, layer: VariationalNeurons) -> None:
            super().__init__()
            setattr(self, name, layer)

        def forward(self) -> Tensor:
            (layer,) = self.children()
            z: Tensor = layer(torch.zeros(2, layer.shape.in_features))
            return z

    wrapped = FreeBits({"first": first}).wrap(Named("first", first))
    watched(bits, wrapped)
    assert bits.unreached == {"last"}
    with pytest.raises(InputError, match="here FreeBits, got layer 'last' without them"):
        watched(bits, Named("last", last))


def test_an_error_of_the_step_goes_first_and_the_next_step_is_looked_at() -> None:
    model = Regression(3)
    bits = FreeBits(model)

    def fails() -> None:
        model(X)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        watched(bits, fails)
    assert not _PYRO_STACK
    with pytest.raises(InputError, match=TEXT.format(name="FreeBits")):
        watched(bits, stepper(model, LocalELBO()))


def test_composing_anew_for_every_step_looks_once() -> None:
    model = Regression(3)
    parts = EnergyBand(model), FreeBits(model)
    controlled = compose(*parts).wrap(model)
    watched(compose(*parts), stepper(controlled, LocalELBO()))
    with watch(compose(*parts)):
        assert not _PYRO_STACK


def test_watching_inside_of_a_record_and_of_another_watch() -> None:
    model = Regression(3)
    outer, inner = Thermostat(model, every=1), EnergyBand(model, every=1)
    step = stepper(inner.wrap(outer.wrap(model)), Trace_ELBO())
    with record() as seen, watch(outer):
        watched(inner, step)
    assert seen["neurons"].kl.count == 6
    for controller, quantity in ((outer, "kl"), (inner, "mu2")):
        assert is_reached(controller)
        assert controller.recall(quantity, "neurons") is not None


def test_any_observer_will_do() -> None:
    class Rows:
        due = True
        rows, acts = 0, 0

        def observe(self, seen: Seen) -> None:
            self.rows += seen["neurons"].kl.count

        def act(self) -> None:
            self.acts += 1

    rows, model = Rows(), Regression(3)
    with watch(rows):
        model(X)
    assert (rows.rows, rows.acts) == (6, 1)
