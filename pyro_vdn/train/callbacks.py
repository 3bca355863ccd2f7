"""Lightning callbacks: keep the best and the last checkpoint, and show progress."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning

from pyro_vdn.train.resume import BEST, LAST, bring_checkpoints
from pyro_vdn.train.task import MONITOR


class KeepCheckpoints(lightning.Callback):
    """Write ``last.safetensors`` at every evaluation, and ``best.safetensors`` at the best one.

    Args:
        folder: Where to write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        #: The checkpoint that a resumed run continues from.
        self.start: Path | None = None
        self.best_step: int | None = None
        self.best_value = math.inf
        self.history: list[dict[str, float]] = []
        self._evaluated = False

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Agree on one folder, each process may have its own; bring the checkpoints resumed."""
        self.folder = Path(trainer.strategy.broadcast(str(self.folder)))
        if self.start is not None and trainer.is_global_zero:
            bring_checkpoints(self.start, self.folder)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Note the scores of an evaluation."""
        scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.history.append({"step": trainer.global_step, **scores})
        self._evaluated = True

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the last checkpoint and, where this evaluation was the best, the best one."""
        if not self._evaluated:  # resuming ends the epoch of the checkpoint once more
            return
        self._evaluated = False
        value = self.history[-1][MONITOR]
        if value < self.best_value:
            # The file first: a run killed in between must not claim a best that it does not have.
            trainer.save_checkpoint(self.folder / BEST)
            self.best_value, self.best_step = value, trainer.global_step
        trainer.save_checkpoint(self.folder / LAST)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {
            "best_step": self.best_step,
            "best_value": self.best_value,
            "history": self.history,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.best_step = state_dict["best_step"]
        self.best_value = state_dict["best_value"]
        self.history = state_dict["history"]


class Patience(lightning.callbacks.EarlyStopping):
    """Stops a run whose evaluations have stopped improving, and one that is resumed after that.

    Args:
        evaluations: How many in a row may fail to be the best.
    """

    def __init__(self, evaluations: int) -> None:
        # At the end of an epoch a run that is resumed would have no score to look at.
        super().__init__(MONITOR, patience=evaluations, check_on_train_epoch_end=False)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Stop at once where the run that is resumed had stopped."""
        trainer.should_stop = trainer.should_stop or self.stopped_epoch > 0

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned; more patience than then lets a run go on."""
        super().load_state_dict({**state_dict, "patience": self.patience})
        if state_dict["patience"] <= self.wait_count < self.patience:
            self.stopped_epoch = 0


class ConsoleProgress(lightning.Callback):
    """A progress bar on standard error: steps, loss, validation NLL, time left.

    It is silent where standard error is not a terminal, and in all processes but the first.

    Args:
        label: What is being trained.
    """

    def __init__(self, label: str = "training") -> None:
        self.label = label
        self.bar: Any = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as TimeLeft

        console = Console(stderr=True)
        if not console.is_terminal or not trainer.is_global_zero:
            return
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]} validation NLL {task.fields[nll]}"),
            TimeLeft(compact=True),
            TextColumn("left"),
            console=console,
        )
        self.bar.start()
        self.row = self.bar.add_task(
            self.label, total=trainer.max_steps, completed=trainer.global_step, loss="-", nll="-"
        )

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *rest: Any) -> None:
        """Advance the bar."""
        if self.bar is not None:
            loss = f"{float(outputs['loss']):.3f}"
            self.bar.update(self.row, completed=trainer.global_step, loss=loss)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Show the latest validation NLL."""
        if self.bar is not None:
            self.bar.update(self.row, nll=f"{float(trainer.callback_metrics[MONITOR]):.4f}")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Close the bar."""
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
