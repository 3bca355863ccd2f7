"""The history of a run inside `fit`."""

from __future__ import annotations

from typing import Any

import torch

from pyro_vdn.control.controller import Seen
from pyro_vdn.diagnostics import TrainingHistory
from pyro_vdn.errors import InputError
from pyro_vdn.infer import Terms
from pyro_vdn.infer.evaluating import evaluating
from pyro_vdn.infer.loss import SinglePassLoss
from pyro_vdn.nn.shapes import check_positive
from pyro_vdn.train.batches import Data, as_pair
from pyro_vdn.train.step_callback import StepCallback
from pyro_vdn.train.task import TrainingTask

_SEED = 20_000_033


class HistoryCallback(StepCallback):
    """Notes every n-th step in a `TrainingHistory`, for heat maps of the units over training.

    A note holds what the units did in the step, in all processes together, and the loss term by
    term as it was before the step. The terms cost a run of the model, without gradients and in
    evaluation mode, with noise of their own that is the same at every note: training is not moved
    by being looked at. The history is part of the checkpoints, so a resumed run continues it.

    Args:
        history: Where to note.
        every: Steps from one note to the next; the first is at step `every`.
        rows: Inputs and targets on which the terms are taken, so that they change by training
            alone; by default the batch of the step, in each of several processes its own.
        loss: A loss of this library whose terms are noted; by default the one that is trained. Of
            one of Pyro's there are none.
        name: Name of the history in a checkpoint; two of one run need two names.

    Raises:
        InputError: For `every` below 1 or bad rows; when training starts, for a history that holds
            later steps already.

    Example:
        >>> from pyro_vdn.models import Regression
        >>> from pyro_vdn.train import FitOptions, HistoryCallback, fit
        >>> x, y = torch.randn(64, 3), torch.randn(64, 1)
        >>> history = TrainingHistory()
        >>> noting = HistoryCallback(history, every=5, rows=(x[:16], y[:16]))
        >>> options = FitOptions(max_steps=20, evaluate_every=20, accelerator="cpu")
        >>> data = (x[:48], y[:48]), (x[48:], y[48:])
        >>> result = fit(Regression(3, num_units=4), *data, options=options, callbacks=[noting])
        >>> history.of("neurons", "kl").shape, history.terms()["elbo"].shape
        ((4, 4), (4,))
    """

    def __init__(
        self,
        history: TrainingHistory,
        *,
        every: int = 25,
        rows: Data | None = None,
        loss: SinglePassLoss | None = None,
        name: str = "history",
    ) -> None:
        check_positive(every=every)
        self.history = history
        self.every = every
        self.rows = None if rows is None else as_pair("rows", rows)
        self.loss = loss
        self.name = name
        self._step = 0
        self._terms: Terms | None = None

    @property
    def state_key(self) -> str:
        """Key of the state in a checkpoint."""
        return f"{type(self).__name__}({self.name})"

    @property
    def due(self) -> bool:
        """Whether the step to come is one to note."""
        return self._step % self.every == 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Refuse a history of another run."""
        last = max((int(self.history.steps(p)[-1]) for p in self.history.layers), default=0)
        if last > trainer.global_step:
            raise InputError(
                "history",
                expected=f"one without steps after {trainer.global_step}, where training starts",
                got=f"one with step {last}",
                hint="TrainingHistory() for a new run",
            )

    def before_step(self, trainer: Any, pl_module: Any, batch: Any) -> None:
        """Take the terms of the loss."""
        self._step = trainer.global_step + 1
        self._terms = self._terms_of(trainer, pl_module, batch) if self.due else None

    def observe(self, seen: Seen) -> None:
        """Note the step."""
        self.history.note(self._step, seen, self._terms)

    def state_dict(self) -> dict[str, Any]:
        """Return the history."""
        return self.history.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the history that `state_dict` returned."""
        self.history.load_state_dict(state_dict)

    def _terms_of(self, trainer: Any, pl_module: Any, batch: Any) -> Terms | None:
        trained = pl_module.loss if isinstance(pl_module, TrainingTask) else None
        loss = trained if self.loss is None else self.loss
        if not isinstance(loss, SinglePassLoss) or not isinstance(pl_module, TrainingTask):
            return None
        if self.rows is not None:
            rows = trainer.precision_plugin.convert_input(self.rows)
            batch = trainer.strategy.batch_to_device(rows)
        device = pl_module.device
        own = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
        arithmetic = trainer.precision_plugin.forward_context()
        with own, arithmetic, torch.no_grad(), evaluating(*pl_module.programs):
            torch.manual_seed(_SEED)
            return loss.terms(*pl_module.programs, *batch)
