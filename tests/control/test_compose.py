"""Several controllers as one: order, pace, effects, and the contradictions that are refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pytest
import torch
from pyro_vdn.guides import NeuronGuide

from pyro_vdn.control import (
    BandCalibration,
    Composed,
    Controller,
    EnergyBand,
    FreeBits,
    Homeostat,
    KLSchedule,
    Projection,
    ScaleGuard,
    Thermostat,
    compose,
    linear_warmup,
)
from pyro_vdn.control.controller import Seen
from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO
from pyro_vdn.nn import LearnedNormal
from pyro_vdn.testing import NeuronStack

Stack = Callable[..., NeuronStack]
See = Callable[..., Seen]
Drive = Callable[..., None]


class Diary(Controller):
    """Writes what it does into a book that several may share."""

    def __init__(self, model: Any, name: str, book: list[str], **timing: Any) -> None:
        super().__init__(model, **timing)
        self.name, self.book = name, book

    def observe(self, seen: Seen) -> None:
        self.book.append(f"{self.name} sees")

    def change(self, path: str) -> None:
        self.book.append(f"{self.name} acts on {path}")


def test_all_observe_a_step_before_each_acts_in_order(stack: Stack, see: See, drive: Drive) -> None:
    book: list[str] = []
    model = stack()
    both = compose(Diary(model, "first", book), Diary(model, "second", book))
    drive(both, see())
    acts = ["first acts on layers.0", "second acts on layers.0"]
    assert book == ["first sees", "second sees", *acts]


def test_each_keeps_its_own_pace(stack: Stack, see: See, drive: Drive) -> None:
    book: list[str] = []
    model = stack()
    both = compose(Diary(model, "a", book, every=2), Diary(model, "b", book, every=3, warmup=3))
    due = []
    for _ in range(6):
        due.append(both.due)
        drive(both, see())
    assert due == [False, True, False, True, False, True]
    assert book.count("a sees") == book.count("a acts on layers.0") == 3
    assert book.count("b sees") == book.count("b acts on layers.0") == 1
    assert both.step == 6


def test_composed_controllers_lie_flat(stack: Stack) -> None:
    model = stack(num_layers=2)
    thermostat, guard, band = Thermostat(model), ScaleGuard(model), EnergyBand(model)
    assert compose(compose(thermostat, guard), band).controllers == (thermostat, guard, band)
    assert list(compose(thermostat).layers) == ["layers.0", "layers.1"]


def test_its_effects_are_those_of_all(stack: Stack) -> None:
    model, data = stack(), (torch.randn(6, 4), torch.randn(6, 2))
    schedule = KLSchedule(model, lambda step: 0.5)
    thermostat = Thermostat(model, high=9.0, initial_weight=0.1)
    free, band = FreeBits(model, 1.4), EnergyBand(model, 5.0)
    together = compose(schedule, thermostat, free, band).wrap(model)
    by_hand = band.wrap(free.wrap(thermostat.wrap(schedule.wrap(model))))

    def terms(program: Any) -> Any:
        pyro.set_rng_seed(1)
        return LocalELBO().terms(program, NeuronGuide(program), *data)

    mine, theirs, plain = terms(together), terms(by_hand), terms(model)
    torch.testing.assert_close(mine.kl, theirs.kl)
    torch.testing.assert_close(mine.penalty, theirs.penalty)
    torch.testing.assert_close(mine.kl["layers.0"], 0.05 * plain.kl["layers.0"])
    alone = terms(band.wrap(model)).penalty["layers.0"]
    bits = 0.05 * (6 * 1.4 - plain.kl["layers.0"]).clamp(min=0)
    assert (bits > 0).any()
    torch.testing.assert_close(mine.penalty["layers.0"], alone + bits)


def test_two_homeostats_of_two_layers_are_fine(stack: Stack) -> None:
    model = stack(num_layers=2)
    parts = [{f"layers.{i}": layer} for i, layer in enumerate(model.neuron_layers)]
    assert len(compose(*(Homeostat(part) for part in parts)).controllers) == 2


MAKERS: dict[str, Callable[[Any], Controller]] = {
    "Homeostat": Homeostat,
    "Projection": lambda model: Projection(model, 10),
    "Thermostat": Thermostat,
    "EnergyBand": EnergyBand,
    "BandCalibration": lambda model: BandCalibration(model, EnergyBand(model)),
    "FreeBits": FreeBits,
    "ScaleGuard": ScaleGuard,
}


@pytest.mark.parametrize(
    ("first", "second", "deed"),
    [
        ("Homeostat", "Projection", "rescales the rows"),
        ("Projection", "Homeostat", "rescales the rows"),
        ("Homeostat", "Homeostat", "rescales the rows"),
        ("Thermostat", "Thermostat", "regulates the KL weights"),
        ("EnergyBand", "EnergyBand", "penalises the energies"),
        ("BandCalibration", "BandCalibration", "moves the band"),
        ("FreeBits", "FreeBits", "frees the bits"),
        ("ScaleGuard", "ScaleGuard", "guards the scales"),
    ],
)
def test_two_of_one_deed_are_refused(first: str, second: str, deed: str, stack: Stack) -> None:
    model = stack(num_layers=3)
    one, between, other = model.neuron_layers
    text = rf"^controllers: expected one controller that {deed} of layer 'layers.2', got "
    with pytest.raises(InputError, match=text + f"{first} and {second}. Try: keep one"):
        compose(
            MAKERS[first]({"layers.0": one, "layers.2": other}),
            MAKERS[first]({"layers.1": between}),  # stands between them, and in nobody's way
            MAKERS[second]({"layers.2": other}),
        )


def test_schedules_multiply(stack: Stack) -> None:
    model = stack()
    schedule = partial(linear_warmup, steps=10)
    assert len(compose(KLSchedule(model, schedule), KLSchedule(model, schedule)).controllers) == 2


def test_nothing_to_compose_is_refused() -> None:
    with pytest.raises(InputError, match=r"^controllers: expected at least one, got none. Try"):
        compose()


# --- contradictions: a ceiling of the KL below what another controller asks for ---


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("make", "least", "what"),
    [
        (lambda m: EnergyBand(m, 5.0), 2.0, "the lower bound 4 of its energy band costs"),
        (lambda m: Homeostat(m, 5.0), 2.0, "the lower bound 4 of its energy band costs"),
        (lambda m: Projection(m, 10, 5.0), 2.0, "the lower bound 4 of its energy band costs"),
        (lambda m: ScaleGuard(m, floor=0.01, ceiling=0.1), 1.8076, "the scale 0.1 inside the g"),
        (lambda m: ScaleGuard(m, floor=2.5, ceiling=5.0), 1.7087, "the scale 2.5 inside the g"),
        (lambda m: FreeBits(m, 2.0), 2.0, "the free bits are"),
    ],
    ids=["band", "homeostat", "projection", "ceiling", "floor", "bits"],
)
def test_a_ceiling_that_another_controller_contradicts_is_refused(
    make: Callable[[Any], Controller], least: float, what: str, order: int, stack: Stack
) -> None:
    model = stack()
    compose(Thermostat(model, high=1.001 * least), make(model))
    low = Thermostat(model, high=0.999 * least)
    text = (
        f"^controllers: expected a thermostat with high of at least {least:.3g} nats at layer "
        f"'layers.0', since .*{what}.* that much, got high={0.999 * least:g}. Try: Thermostat"
    )
    with pytest.raises(InputError, match=text):
        compose(*[low, make(model)][::order])


def test_a_unit_of_several_latents_pays_for_each(stack: Stack) -> None:
    model = stack(latent_dim=3)
    compose(Thermostat(model, high=6.01), EnergyBand(model, 5.0))
    with pytest.raises(InputError, match="at least 6 nats"):
        compose(Thermostat(model, high=5.99), EnergyBand(model, 5.0))


def test_other_layers_and_priors_that_move_are_no_contradiction(stack: Stack) -> None:
    model = stack(num_layers=2)
    first, second = ({f"layers.{i}": model.neuron_layers[i]} for i in range(2))
    assert compose(Thermostat(first, high=1.0), EnergyBand(second, 5.0))
    learned = stack(make_prior=LearnedNormal)
    assert compose(Thermostat(learned, high=1.0), EnergyBand(learned, 5.0))


# --- state ---


def test_state_is_that_of_all(stack: Stack, see: See, drive: Drive) -> None:
    model = stack()

    def make() -> Composed:
        return compose(Thermostat(model, every=1), ScaleGuard(model, every=1))

    one, fresh = make(), make()
    drive(one, see(kl=[0.0, 0.5, 9.0]), steps=3)
    fresh.load_state_dict(one.state_dict())
    assert fresh.step == 3
    for mine, theirs in zip(fresh.controllers, one.controllers, strict=True):
        assert mine.step == theirs.step == 3
        torch.testing.assert_close(mine.memory, theirs.memory)


@pytest.mark.parametrize(
    ("others", "text"),
    [
        (("Thermostat",), "expected the states of 2 controllers, got 1"),
        (("ScaleGuard", "Thermostat"), "expected that of a Thermostat .*, got that of a ScaleGua"),
        (("Thermostat", "FreeBits"), "expected that of a ScaleGuard .*, got that of a FreeBits"),
    ],
)
def test_states_of_others_are_refused_before_any_is_taken(
    others: tuple[str, ...], text: str, stack: Stack, see: See, drive: Drive
) -> None:
    model = stack()
    foreign = compose(*(MAKERS[name](model) for name in others))
    drive(foreign, see(), steps=7)
    mine = compose(Thermostat(model), ScaleGuard(model))
    with pytest.raises(InputError, match=f"^state: {text}"):
        mine.load_state_dict(foreign.state_dict())
    assert [mine.step, *(one.step for one in mine.controllers)] == [0, 0, 0]
    with pytest.raises(InputError, match="expected the states of 2 controllers, got 0"):
        mine.load_state_dict(Thermostat(model).state_dict())


def test_it_changes_nothing_by_itself(stack: Stack) -> None:
    model = stack()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    compose(Thermostat(model)).change("layers.0")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
