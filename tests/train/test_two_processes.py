"""Training in two processes: the same weights, the same acts, and runs that continue.

Both start once for all of it, since to start takes longer than to train.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_vdn.testing import same_state

TWO = """
import sys, torch, pyro
import lightning.pytorch as lightning
from pyro_vdn.control import Controller, Homeostat, Thermostat, compose
from pyro_vdn.diagnostics import TrainingHistory
from pyro_vdn.models import Regression
from pyro_vdn.train import ControlCallback, FitOptions, HistoryCallback, fit

class StopAt50(lightning.Callback):
    def on_train_batch_end(self, trainer, *rest):
        trainer.should_stop = trainer.global_step == 50

class Rows(Controller):
    def observe(self, seen):
        self.average("rows", "neurons", torch.tensor([float(seen["neurons"].kl.count)]))
    def change(self, path):
        pass

folder = sys.argv[1]

def save(name, state):
    torch.save(state, f"{folder}/{name}{torch.distributed.get_rank()}.pt")

# A run, the same run stopped, and that one continued in another folder.
x = torch.linspace(-1, 1, 60)[:, None].expand(60, 3)
y = torch.randn(60, 1, generator=torch.Generator().manual_seed(0))
options = FitOptions(max_steps=60, evaluate_every=10, batch_size=4, warmup_steps=3,
                     learning_rate=5e-2, accelerator="cpu", devices=2)
how = {
    "straight": {"folder": folder + "/straight"},
    "first": {"folder": folder + "/first", "callbacks": [StopAt50()]},
    "second": {"folder": folder + "/second", "resume": folder + "/first"},
}
for step, places in how.items():
    pyro.set_rng_seed(0)
    model = Regression(3, num_units=5)
    result = fit(model, (x[:8], y[:8]), (x[8:], y[8:]), options=options, **places)
    save(step, (model.state_dict(), result.steps, result.best_step))

# A run under control.
x = torch.linspace(-1, 1, 150)[:, None].expand(150, 3)
y = x[:, :1] + 0.1 * torch.randn(150, 1, generator=torch.Generator().manual_seed(0))
pyro.set_rng_seed(0)
model = Regression(3, num_units=5)
living = compose(
    Thermostat(model, low=2.0, high=5.0, every=2),
    Homeostat(model, 0.1, every=3, warmup=2),
    Rows(model),
)
history = TrainingHistory()
options = FitOptions(
    max_steps=20, evaluate_every=10, batch_size=16, warmup_steps=3, accelerator="cpu", devices=2
)
callbacks = [ControlCallback(living), HistoryCallback(history, every=5, rows=(x[:8], y[:8]))]
fit(living.wrap(model), (x[:101], y[:101]), (x[101:], y[101:]), options=options,
    callbacks=callbacks)
save("control", {
    "control": living.state_dict(), "model": model.state_dict(), "history": history.state_dict()
})
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("two")
    (place / "two.py").write_text(TWO)
    command = [sys.executable, "-W", "ignore", str(place / "two.py"), str(place)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return place


def by_rank(folder: Path, name: str) -> list[Any]:
    return [torch.load(folder / f"{name}{rank}.pt") for rank in range(2)]


def test_two_processes_continue_in_another_folder(folder: Path) -> None:
    runs = {name: by_rank(folder, name) for name in ("straight", "first", "second")}
    assert same_state(*runs["straight"])  # both end with the same weights
    for straight, first, second in zip(*runs.values(), strict=True):
        assert straight[1] == 60
        assert first[1:] == (50, straight[2])
        assert same_state(straight, second)


def test_two_processes_act_alike_on_the_rows_of_both(folder: Path) -> None:
    one, two = by_rank(folder, "control")
    assert same_state(one, two)
    memory = one["control"]["controllers"]
    assert memory[2]["memory"]["rows"]["neurons"].item() == 2 * 16
    assert bool((memory[0]["memory"]["weight"]["neurons"] < 1e-2).all())
    assert one["history"]["layers"]["neurons"]["step"] == [5, 10, 15, 20]
