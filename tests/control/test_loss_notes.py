"""What is noted of a loss, and that processes agree on it."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from pyro_vdn.guides import NeuronGuide
from torch import Tensor

from pyro_vdn.control import Controller
from pyro_vdn.control.loss_notes import LossNotes, NotingMessenger
from pyro_vdn.infer import LocalELBO
from pyro_vdn.nn import VariationalNeurons
from pyro_vdn.poutine import kl_weight, penalize


class Always(Controller):
    """Due at every step."""

    def observe(self, seen: Any) -> None:
        """Need nothing."""

    def change(self, path: str) -> None:
        """Leave the layer as it is."""


class Model(PyroModule):
    """Neurons with a local decoder, a latent beside them, and an outcome with a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(2, 3, local_reconstruction=True)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        shift = pyro.sample("shift", dist.Normal(0.0, 1e-9))
        with pyro.plate("data", 40, subsample_size=len(x), dim=-2):
            z = self.neurons(x)
            pyro.deterministic("kept", z)
            with pyro.poutine.mask(mask=x[:, :1] > 0):
                pyro.sample("y", dist.Normal(shift.expand(len(x), 1), 1.0), obs=y)
        return z


def noted(model: Any, *args: Tensor, penalty: str | None = None) -> LossNotes:
    notes = LossNotes(penalty)
    watched = NotingMessenger(notes, Always(model))(model)
    LocalELBO().loss_and_grads(watched, NeuronGuide(watched), *args)
    return notes


def test_the_likelihood_is_that_of_observations_alone() -> None:
    model, x, y = Model(), torch.randn(8, 2), torch.randn(8, 1)
    notes = noted(model, x, y)
    there = x[:, :1] > 0
    expected = 5 * (there * dist.Normal(0.0, 1.0).log_prob(y)).sum()
    assert float(notes.log_likelihood) == pytest.approx(float(expected))
    assert notes.rows == {"neurons": 8}
    assert notes.weights["neurons"].tolist() == [5.0, 5.0, 5.0]
    assert float(notes.paid) == 0.0


def test_penalties_are_noted_by_their_name() -> None:
    model, x, y = Model(), torch.randn(8, 2), torch.randn(8, 1)

    def cost(posterior: Any, prior: Any) -> Tensor:
        return torch.tensor([1.0, 2.0, 3.0])

    named = penalize(penalize(model, {"neurons": cost}, name="memory"), {"neurons": cost})
    assert float(noted(named, x, y, penalty="memory").paid) == pytest.approx(5 * 8 * 6.0)
    assert float(noted(named, x, y).paid) == 0.0


def test_weights_are_those_of_units() -> None:
    model, x, y = Model(), torch.randn(8, 2), torch.randn(8, 1)
    weight = torch.tensor([0.5, 1.0, 2.0])
    notes = noted(kl_weight(model, {"neurons": weight}), x, y)
    assert notes.weights["neurons"].tolist() == [2.5, 5.0, 10.0]
    kl = {"neurons": torch.tensor([0.1, 0.2, 0.3])}
    expected = 8 * (0.25 + 1.0 + 3.0) / abs(float(notes.log_likelihood))
    assert float(notes.ratio(kl)) == pytest.approx(expected)


def test_nothing_is_noted_without_gradients_or_of_observed_neurons() -> None:
    model, x, y = Model(), torch.randn(8, 2), torch.randn(8, 1)
    notes = LossNotes()
    watched = NotingMessenger(notes, Always(model))(model)
    with torch.no_grad():
        watched(x, y)
    assert notes.rows == {}
    assert notes.log_likelihood == 0.0
    held = pyro.poutine.condition(watched, data={"neurons.z": torch.zeros(8, 3)})
    held(x, y)
    assert float(notes.log_likelihood) != 0.0  # the outcome's, whatever the neurons are
    held_inside = pyro.poutine.condition(model, data={"neurons.z": torch.zeros(8, 3)})
    only = noted_rows(held_inside, x, y)
    assert only == {}


def noted_rows(model: Any, *args: Tensor) -> dict[str, int]:
    notes = LossNotes()
    NotingMessenger(notes, Always(model))(model)(*args)
    return notes.rows


TWO = """
import sys
import pyro, torch
import torch.distributed as distributed
from pyro_vdn.control import PersistenceShare, watch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.infer import LocalELBO
from pyro_vdn.testing.sequences import TrackingModel, slow_signal

rank, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
pyro.set_rng_seed(0)
model = TrackingModel(torch.tensor([0.9, 0.5]))
with torch.no_grad():
    model.readout.weight.mul_(1e-9)  # so that no draw matters
data = slow_signal(17, 6)

def weight_after(rows):
    share = PersistenceShare(model, every=1, initial_weight=0.5)
    controlled = share.wrap(model)
    for _ in range(3):
        with watch(share):
            LocalELBO().loss_and_grads(controlled, NeuronGuide(controlled), *rows)
    return share.weight

alone = weight_after(data)
arguments = dict(rank=rank, world_size=2)
distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", **arguments)
half = [[part[:5] for part in data], [part[5:] for part in data]][rank]
torch.save({"alone": alone, "together": weight_after(half)}, f"{folder}/{rank}.pt")
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_agree_on_the_share(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    both = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "two.py"), str(rank), port, str(tmp_path)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    one, two = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert torch.equal(one["together"], two["together"])
    torch.testing.assert_close(one["together"], one["alone"], rtol=1e-7, atol=0)
    assert one["alone"].item() != 0.5
