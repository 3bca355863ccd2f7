from __future__ import annotations

from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor
from torch.utils.data import DataLoader

from pyro_vdn.control.controller import Seen
from pyro_vdn.nn import VariationalNeurons
from pyro_vdn.train.step_callback import StepCallback


class Task(lightning.LightningModule):
    """Runs a layer of neurons at every step but those that are skipped."""

    def __init__(self, skip: int | None = None) -> None:
        super().__init__()
        self.layer = VariationalNeurons(3, 4)
        self.skip = skip

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        assert bool(_PYRO_STACK) == (batch_idx % 2 == 0)
        z: Tensor = self.layer(batch)
        return z.square().mean() + sum(p.sum() for p in self.layer.parameters())

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> int | None:
        return -1 if batch_idx == self.skip else None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.layer.parameters(), lr=0.1)


class Watcher(StepCallback):
    """Takes down the rows it sees at steps 0, 2, ... and the steps after which it acts."""

    def __init__(self) -> None:
        self.step = -1
        self.rows: list[int] = []
        self.acts: list[int] = []

    @property
    def due(self) -> bool:
        return self.step % 2 == 0

    def before_step(self, trainer: Any, pl_module: Any, batch: Tensor) -> None:
        assert not _PYRO_STACK
        self.step += 1

    def observe(self, seen: Seen) -> None:
        (layer,) = seen.values()
        self.rows.append(layer.kl.count)

    def act(self) -> None:
        self.acts.append(self.step)


def run(task: Task, *callbacks: lightning.Callback) -> None:
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, DataLoader([torch.randn(7, 3)] * 5, batch_size=None))


quiet = pytest.mark.filterwarnings("ignore")  # Lightning's advice about loaders and loggers


@quiet
def test_all_share_one_record() -> None:
    first, second = Watcher(), Watcher()
    run(Task(), first, second)
    assert first.rows == second.rows == [7, 7, 7]
    assert first.acts == second.acts == [0, 1, 2, 3, 4]
    assert not _PYRO_STACK


@quiet
def test_a_skipped_step_is_forgotten() -> None:
    watcher = Watcher()
    run(Task(skip=2), watcher)
    assert watcher.rows == [7]
    assert watcher.acts == [0, 1]
    assert not _PYRO_STACK
