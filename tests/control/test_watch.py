"""Observing and acting around a step, alone and in several processes."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.poutine.runtime import _PYRO_STACK
from pyro_vdn.guides import NeuronGuide

from pyro_vdn.control import (
    Controller,
    EnergyBand,
    Homeostat,
    Projection,
    ScaleGuard,
    Thermostat,
    compose,
    merged_across_processes,
    watch,
)
from pyro_vdn.control.controller import Seen
from pyro_vdn.infer import SVI, LocalELBO, PACmELBO
from pyro_vdn.testing import NeuronStack, hand_written_guide

Stack = Callable[..., NeuronStack]


class Diary(Controller):
    def __init__(self, model: Any, **timing: Any) -> None:
        super().__init__(model, **timing)
        self.rows: list[tuple[int, int]] = []
        self.acted: list[int] = []

    def observe(self, seen: Seen) -> None:
        self.rows.append((self.step + 1, seen["layers.0"].kl.count))

    def change(self, path: str) -> None:
        self.acted.append(self.step)


LOSSES: dict[str, Callable[[], Any]] = {
    "LocalELBO": LocalELBO,
    "PACmELBO": PACmELBO,
    "Trace_ELBO": Trace_ELBO,
    "TraceMeanField_ELBO": TraceMeanField_ELBO,
    "LocalELBO, 3 draws": lambda: LocalELBO(3),
    "Trace_ELBO, 3 draws": lambda: Trace_ELBO(3, vectorize_particles=True, max_plate_nesting=2),
}


def make_data() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(6, 4), torch.randn(6, 2)


@pytest.mark.parametrize("loss", LOSSES)
def test_each_row_of_a_due_step_is_seen_once(loss: str, stack: Stack) -> None:
    model, data, elbo = stack(num_layers=2), make_data(), LOSSES[loss]()
    diary = Diary(model, every=2)
    for _ in range(4):
        with watch(diary):
            elbo.loss_and_grads(model, NeuronGuide(model), *data)
    assert [step for step, _ in diary.rows] == [2, 4]
    assert {rows for _, rows in diary.rows} <= {6, 18}  # a first layer may be shared by draws
    assert diary.acted == [2, 2, 4, 4]  # two layers


def test_several_runs_inside_are_seen_together(stack: Stack) -> None:
    model, data = stack(), make_data()
    diary = Diary(model)
    with watch(diary):
        for _ in range(3):  # gradients accumulated over micro-batches
            LocalELBO().loss_and_grads(model, NeuronGuide(model), *data)
    assert diary.rows == [(1, 18)]
    assert diary.acted == [1]


def test_after_an_exception_nothing_is_done_and_nothing_left_behind(stack: Stack) -> None:
    model = stack()
    diary = Diary(model)
    before = list(_PYRO_STACK)

    def fails() -> None:
        with watch(diary):
            model(torch.zeros(2, 4))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert (diary.rows, diary.acted, diary.step) == ([], [], 0)
    assert list(_PYRO_STACK) == before


@pytest.mark.parametrize("controller", ["Thermostat", "composed"])
@pytest.mark.parametrize("loss", LOSSES)
def test_watching_leaves_training_itself_alone(loss: str, controller: str, stack: Stack) -> None:
    def run(*, watched: bool) -> tuple[list[float], list[torch.Tensor]]:
        pyro.clear_param_store()
        model = stack(num_layers=2, local_reconstruction=True)
        idle: dict[str, Any] = {"warmup": 100, "every": 1}
        living: Controller = Thermostat(model, **idle)
        if controller == "composed":
            hands = [Homeostat(model, **idle), Diary(model, **idle)]
            living = compose(living, *hands, Projection({"other": model.neuron_layers[0]}, 100))
        pyro.set_rng_seed(4)
        data = make_data()
        svi = SVI(model, NeuronGuide(model), pyro.optim.Adam({"lr": 1e-2}), LOSSES[loss]())
        losses = []
        for _ in range(12):
            if watched:
                with watch(Seeing(living)):
                    losses.append(svi.step(*data))
            else:
                losses.append(svi.step(*data))
        return losses, [value.detach().clone() for value in model.parameters()]

    (losses, ends), (plain, plain_ends) = run(watched=True), run(watched=False)
    assert losses == plain
    assert all(torch.equal(*pair) for pair in zip(ends, plain_ends, strict=True))


class Seeing(Controller):
    """Records every step for another controller, which never acts."""

    def __init__(self, other: Controller) -> None:
        super().__init__(other.layers)
        self.other = other

    def observe(self, seen: Seen) -> None:
        assert seen["layers.0"].kl.count > 0
        if self.other.due:
            self.other.observe(seen)

    def act(self) -> None:
        self.other.act()

    def change(self, path: str) -> None:
        raise AssertionError("it never acts")


def test_a_guide_that_takes_no_offers_shows_nothing_and_that_is_said(stack: Stack) -> None:
    model = stack()
    step = Trace_ELBO().loss_and_grads
    text = r"Thermostat: expected a record of layer 'layers.0', got records of \[\]. Try: train"

    def watched() -> None:
        with watch(Thermostat(model, every=1)):
            step(model, hand_written_guide(model), *make_data())

    with pytest.raises(ValueError, match=text):
        watched()


def test_one_process_keeps_its_own_record(see: Callable[..., Seen]) -> None:
    seen = see()
    assert merged_across_processes(seen) is seen


# --- two processes ---

TWO = """
import sys
import pyro, torch
import torch.distributed as distributed
from pyro_vdn.control import Homeostat, Thermostat, compose, merged_across_processes, watch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.infer import LocalELBO
from pyro_vdn.poutine import record
from pyro_vdn.testing import NeuronStack, randomise

rank, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
pyro.set_rng_seed(0)
model = NeuronStack(num_layers=2)
randomise(model)
data = torch.randn(17, 6)
half = [data[:5], data[5:]][rank]
arguments = dict(rank=rank, world_size=2)
distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", **arguments)

def run(rows, program=model):
    # Draws of the second layer's input follow from those of the first: without noise all processes
    # see the same.
    with torch.no_grad():
        model.neuron_layers[0].posterior.min_scale = 0.0
        model.neuron_layers[0].posterior.raw_scale.value.fill_(-60.0)
    return LocalELBO().loss_and_grads(program, NeuronGuide(program), rows[:, :4], rows[:, 4:])

names = ("loc", "scale", "variance", "energy", "prior_variance", "kl")
def moments(seen):
    return {
        path: {name: torch.stack([getattr(one, name).mean, getattr(one, name).variance])
               for name in names} | {"count": one.kl.count}
        for path, one in seen.items()
    }

with record() as seen:
    run(half)
with record() as whole:
    run(data)
together = merged_across_processes(seen)
assert seen["layers.0"].kl.count == len(half)  # its own record is left as it was
thermostat = Thermostat(model, low=2.0, high=5.0, margin=1.0, every=2, initial_weight=1.0)
homeostat = Homeostat(model, 0.3, every=3, warmup=0)
living = compose(thermostat, homeostat)
controlled = living.wrap(model)
for _ in range(7):
    with watch(living):
        run(half, controlled)
torch.save(
    {
        "merged": moments(together),
        "whole": moments(whole),
        "weights": thermostat.weights,
        "model": model.state_dict(),
    },
    f"{folder}/{rank}.pt",
)
distributed.destroy_process_group()
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.slow
def test_two_processes_see_all_rows_and_act_alike(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO)
    command = [sys.executable, "-W", "error::UserWarning:pyro_vdn", str(tmp_path / "two.py")]
    port = str(free_port())
    both = [
        subprocess.Popen(
            [*command, str(rank), port, str(tmp_path)], stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    one, two = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for path in ("layers.0", "layers.1"):
        assert one["merged"][path].pop("count") == two["merged"][path].pop("count") == 17
        assert one["whole"][path].pop("count") == 17
        for name, values in one["whole"][path].items():
            torch.testing.assert_close(one["merged"][path][name], values)
            assert torch.equal(one["merged"][path][name], two["merged"][path][name])
        assert torch.equal(one["weights"][path], two["weights"][path])
        assert (one["weights"][path] != 1.0).any()
    assert all(torch.equal(value, two["model"][name]) for name, value in one["model"].items())


@pytest.mark.parametrize("make", [EnergyBand, ScaleGuard])
def test_composed_controllers_are_watched_as_one(make: Any, stack: Stack) -> None:
    model, data = stack(), make_data()
    diary, other = Diary(model, every=2), make(model, every=3)
    controlled = other.wrap(model)
    for _ in range(6):
        with watch(compose(diary, other)):
            LocalELBO().loss_and_grads(controlled, NeuronGuide(controlled), *data)
    assert [step for step, _ in diary.rows] == [2, 4, 6]
    assert other.step == 6
