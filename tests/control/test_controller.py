"""What all controllers share: when they look and act, what they remember, what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pyro_vdn.control import Controller
from pyro_vdn.control.controller import Seen
from pyro_vdn.errors import InputError
from pyro_vdn.testing import NeuronStack


class Diary(Controller):
    """Notes at which steps, counted from 1, it observes and acts."""

    def __init__(self, model: Any, **timing: Any) -> None:
        super().__init__(model, **timing)
        self.observed: list[int] = []
        self.acted: list[tuple[int, str]] = []

    def observe(self, seen: Seen) -> None:
        self.observed.append(self.step + 1)
        for path, record in self.records(seen):
            self.average("kl", path, record.kl.mean)

    def change(self, path: str) -> None:
        self.acted.append((self.step, path))


@pytest.mark.parametrize(
    ("timing", "observed", "acted"),
    [
        ({}, [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]),
        ({"every": 3}, [3, 6], [3, 6]),
        ({"every": 4}, [4], [4]),
        ({"every": 7}, [], []),
        ({"every": 3, "batches": 2}, [2, 3, 5, 6], [3, 6]),
        ({"every": 3, "batches": 3}, [1, 2, 3, 4, 5, 6], [3, 6]),
        ({"every": 3, "batches": 9}, [1, 2, 3, 4, 5, 6], [3, 6]),
        ({"every": 3, "warmup": 2}, [3, 6], [3, 6]),
        ({"every": 3, "warmup": 3}, [6], [6]),  # the warm-up takes the step that would act
        ({"every": 3, "warmup": 4, "batches": 3}, [4, 5, 6], [6]),
        ({"every": 3, "warmup": 6}, [], []),
        ({"warmup": 2}, [3, 4, 5, 6], [3, 4, 5, 6]),
    ],
)
def test_timing(
    timing: dict[str, int],
    observed: list[int],
    acted: list[int],
    stack: Callable[..., NeuronStack],
    see: Callable[..., Seen],
    drive: Callable[..., None],
) -> None:
    diary = Diary(stack(), **timing)
    drive(diary, see(), steps=6)
    assert diary.observed == observed
    assert diary.acted == [(step, "layers.0") for step in acted]
    assert diary.step == 6


def test_every_layer_is_changed_in_order(
    stack: Callable[..., NeuronStack], see: Callable[..., Seen], drive: Callable[..., None]
) -> None:
    diary = Diary(stack(num_layers=2), every=2)
    drive(diary, {**see("layers.1"), **see("layers.0")}, steps=2)
    assert diary.acted == [(2, "layers.0"), (2, "layers.1")]


@pytest.mark.parametrize(
    ("momentum", "expected"),
    [(1.0, 7.0), (0.5, 4.5), (0.25, 2.875)],  # 1, then 3, then 7
)
def test_running_averages(
    momentum: float,
    expected: float,
    stack: Callable[..., NeuronStack],
    see: Callable[..., Seen],
    drive: Callable[..., None],
) -> None:
    diary = Diary(stack(), momentum=momentum)
    for value in (1.0, 3.0, 7.0):
        drive(diary, see(kl=[value, 2 * value, 0.0]))
    kl = diary.recall("kl", "layers.0")
    assert kl is not None
    torch.testing.assert_close(kl, torch.tensor([expected, 2 * expected, 0.0]))


def test_averages_do_not_change_what_was_seen(
    stack: Callable[..., NeuronStack], see: Callable[..., Seen]
) -> None:
    diary, seen = Diary(stack()), see(kl=[1.0, 2.0, 3.0])
    diary.observe(seen)
    diary.memory["kl"]["layers.0"].zero_()
    assert seen["layers.0"].kl.mean.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_leaves_the_average_as_it_is(
    bad: float, stack: Callable[..., NeuronStack], see: Callable[..., Seen]
) -> None:
    diary = Diary(stack(), momentum=0.5)
    diary.observe(see(kl=[bad, 1.0, 1.0]))
    first = diary.recall("kl", "layers.0")
    assert first is not None
    assert first.isnan().tolist() == [True, False, False]
    diary.observe(see(kl=[2.0, 3.0, 1.0]))
    diary.observe(see(kl=[bad, 4.0, 3.0]))
    kl = diary.recall("kl", "layers.0")
    assert kl is not None
    assert kl.tolist() == [2.0, 3.0, 2.0]


def test_memory_of_what_was_never_seen_is_none(stack: Callable[..., NeuronStack]) -> None:
    assert Diary(stack()).recall("kl", "layers.0") is None


def test_a_controller_without_effects_leaves_the_program_alone(
    stack: Callable[..., NeuronStack],
) -> None:
    model = stack()
    assert Diary(model).wrap(model) is model


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"every": 0}, "every: expected a positive integer, got 0"),
        ({"every": 1.5}, "every: expected a positive integer, got 1.5"),
        ({"batches": 0}, "batches: expected a positive integer, got 0"),
        ({"warmup": -1}, "warmup: expected a number of at least 0, got -1"),
        ({"momentum": 0.0}, "momentum: expected a number above 0 and at most 1, got 0.0"),
        ({"momentum": 1.1}, "momentum: expected a number above 0 and at most 1, got 1.1"),
    ],
)
def test_bad_timing(
    arguments: dict[str, Any], text: str, stack: Callable[..., NeuronStack]
) -> None:
    with pytest.raises(InputError, match=f"^{text}"):
        Diary(stack(), **arguments)


@pytest.mark.parametrize(
    "model", [nn.Linear(2, 2), {}, None, lambda x: x], ids=["module", "mapping", "none", "function"]
)
def test_a_model_without_neurons_is_refused(model: Any) -> None:
    with pytest.raises(InputError, match=r"model: expected a module with layers of Variational"):
        Diary(model)


def test_a_layer_of_which_nothing_was_seen_is_named(
    stack: Callable[..., NeuronStack], see: Callable[..., Seen]
) -> None:
    text = r"Diary: expected a record of layer 'layers.1', got records of \['layers.0'\]. Try: .*w"
    with pytest.raises(InputError, match=text):
        Diary(stack(num_layers=2)).observe(see())


# --- state ---


def test_state_goes_round(
    stack: Callable[..., NeuronStack], see: Callable[..., Seen], drive: Callable[..., None]
) -> None:
    diary, fresh = Diary(stack()), Diary(stack())
    drive(diary, see(kl=[1.0, 2.0, 3.0]), steps=4)
    state = diary.state_dict()
    drive(diary, see(kl=[5.0, 5.0, 5.0]))  # the state is a copy
    fresh.load_state_dict(state)
    assert fresh.step == 4
    assert fresh.memory["kl"]["layers.0"].tolist() == [1.0, 2.0, 3.0]
    fresh.memory["kl"]["layers.0"].zero_()
    assert state["memory"]["kl"]["layers.0"].tolist() == [1.0, 2.0, 3.0]


def test_an_older_state_forgets_what_came_later(
    stack: Callable[..., NeuronStack], see: Callable[..., Seen], drive: Callable[..., None]
) -> None:
    diary = Diary(stack())
    early = diary.state_dict()
    drive(diary, see())
    diary.load_state_dict(early)
    assert diary.recall("kl", "layers.0") is None
    assert diary.step == 0


class Other(Diary):
    pass


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda stack: Other(stack()).state_dict(), r"of a Diary .*, got that of a Other of"),
        (
            lambda stack: Diary(stack(num_units=4)).state_dict(),
            r"of layers with units \{'layers.0': 3\}, got that of a Diary of \{'layers.0': 4\}",
        ),
        (lambda stack: Diary(stack(num_layers=2)).state_dict(), "'layers.1': 3"),
        (lambda stack: {}, "got that of a None of None"),
    ],
    ids=["another controller", "another size", "another depth", "nothing"],
)
def test_a_foreign_state_is_refused_and_changes_nothing(
    make: Any,
    text: str,
    stack: Callable[..., NeuronStack],
    see: Callable[..., Seen],
    drive: Callable[..., None],
) -> None:
    diary = Diary(stack())
    drive(diary, see(kl=[1.0, 2.0, 3.0]))
    with pytest.raises(InputError, match=f"^state: expected .*{text}"):
        diary.load_state_dict(make(stack))
    assert diary.step == 1
    assert diary.memory["kl"]["layers.0"].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
def test_moving_keeps_live_tensors(
    stack: Callable[..., NeuronStack], see: Callable[..., Seen], drive: Callable[..., None]
) -> None:
    diary = Diary(stack())
    drive(diary, see(kl=[1.0, 2.0, 3.0]))
    live = diary.memory["kl"]["layers.0"]
    diary.to("cuda")
    assert diary.memory["kl"]["layers.0"] is live
    assert live.device.type == "cuda"
