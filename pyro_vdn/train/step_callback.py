"""Callbacks that look at training steps, all of a trainer through one record."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import lightning.pytorch as lightning

from pyro_vdn.control import watch
from pyro_vdn.control.controller import Seen


class StepCallback(lightning.Callback):
    """A callback that is shown what `record` saw of a training step.

    Effects nest and callbacks do not, so the first of a trainer's step callbacks opens one
    `pyro_vdn.control.watch` for all of them before a step and closes it behind the optimiser's. A
    step that fails or is interrupted leaves nothing on Pyro's effect stack.

    A subclass says when it is `due`, and what to do in `observe` and `act`.

    Example:
        >>> class Rows(StepCallback):
        ...     def observe(self, seen):
        ...         self.rows = seen["neurons"].kl.count
        >>> Rows().due
        True
    """

    _open: ExitStack | None = None

    @property
    def due(self) -> bool:
        """Whether the step to come is one to observe."""
        return True

    def before_step(self, trainer: Any, pl_module: Any, batch: Any) -> None:
        """Prepare for a step; runs outside of the record."""

    def around_step(self) -> AbstractContextManager[Any]:
        """Return what is to surround the step for this callback alone."""
        return nullcontext()

    def observe(self, seen: Seen) -> None:
        """Take in what the step did by layer path, in all processes together; only where due."""

    def act(self) -> None:
        """Do what is to be done after a step."""

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Open the record, where this callback is the first of its kind."""
        together = [one for one in trainer.callbacks if isinstance(one, StepCallback)]
        if together[0] is not self:
            return
        self._abandon()
        for one in together:
            one.before_step(trainer, pl_module, batch)
        with ExitStack() as stack:
            stack.enter_context(watch(_Together(together)))
            for one in together:
                stack.enter_context(one.around_step())
            self._open = stack.pop_all()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        """Close the record: all observe, then act."""
        opened, self._open = self._open, None
        if opened is not None:
            opened.close()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Forget a step that was skipped."""
        self._abandon()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Forget a step that failed."""
        self._abandon()

    def _abandon(self) -> None:
        """Close the record as after an error: nobody observes or acts."""
        opened, self._open = self._open, None
        if opened is not None:
            opened.__exit__(InterruptedError, InterruptedError(), None)


class _Together:
    """What `watch` needs of a controller, from several callbacks."""

    def __init__(self, callbacks: list[StepCallback]) -> None:
        self.callbacks = callbacks

    @property
    def due(self) -> bool:
        return any(one.due for one in self.callbacks)

    def observe(self, seen: Seen) -> None:
        for one in self.callbacks:
            if one.due:
                one.observe(seen)

    def act(self) -> None:
        for one in self.callbacks:
            one.act()
