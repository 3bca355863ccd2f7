"""Effects whose amount changes over a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning.pytorch as lightning

from pyro_vdn.errors import InputError
from pyro_vdn.train.callbacks import KeepCheckpoints

Schedule = Callable[[int], float]


class Anneal(lightning.Callback):
    """Lets a number of an effect follow a schedule of the steps taken, inside `fit`.

    Of `scale_noise` and `fix_noise` it is the ``"amount"``, of `dropout` it is ``"p"``. An
    evaluation sees the value of the step before it. A schedule is a function of the step alone, so
    a resumed run continues it; when `fit` ends, the effect has the value that belongs to the
    weights the model then holds, those of the best evaluation.

    Args:
        effect: The effect around the model, made without a model: ``effect = dropout(p=0.0)``,
            ``fit(effect(model), ...)``.
        name: Name of its number.
        schedule: From the number of steps taken, from 0, to the value of the step to come; see
            `pyro_vdn.control.schedules`.

    Raises:
        InputError: For an effect without such a number; in training, for a value that is negative
            or not finite, or a probability of 1.

    Example:
        >>> import torch
        >>> from functools import partial
        >>> from pyro_vdn.control import linear_warmup
        >>> from pyro_vdn.models import Regression
        >>> from pyro_vdn.poutine import scale_noise
        >>> from pyro_vdn.train import Anneal, FitOptions, fit
        >>> effect, (x, y) = scale_noise(factor=0.01), (torch.randn(64, 3), torch.randn(64, 1))
        >>> rising = Anneal(effect, "amount", partial(linear_warmup, steps=20, start=0.01))
        >>> options = FitOptions(max_steps=20, evaluate_every=20, accelerator="cpu")
        >>> data = (x[:48], y[:48]), (x[48:], y[48:])
        >>> result = fit(effect(Regression(3)), *data, options=options, callbacks=[rising])
        >>> round(effect.amount, 4)
        0.9505
    """

    def __init__(self, effect: Any, name: str, schedule: Schedule) -> None:
        if not isinstance(getattr(effect, name, None), (int, float)):
            raise InputError(
                "effect",
                expected=f"an effect with a number {name!r}",
                got=f"a {type(effect).__name__}",
                hint='effect = scale_noise(factor=0.01); Anneal(effect, "amount", schedule)',
            )
        self.effect = effect
        self.name = name
        self.schedule = schedule

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Set the value of the step to come."""
        self.set(trainer.global_step)

    def set(self, step: int) -> None:
        """Give the effect its value of a step, counted from 0."""
        value = float(self.schedule(step))
        if not 0 <= value < (1.0 if self.name == "p" else math.inf):
            raise InputError(
                "schedule",
                expected=f"values of {self.name!r} in its range",
                got=f"{value} at step {step}",
                hint="clamp it: max(0.0, value)",
            )
        setattr(self.effect, self.name, value)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Give the effect the value of the best evaluation."""
        self._end(trainer)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Give the effect the value of the best evaluation so far."""
        self._end(trainer)

    def _end(self, trainer: Any) -> None:
        for keep in trainer.callbacks:
            if isinstance(keep, KeepCheckpoints) and keep.best_step:
                self.set(keep.best_step - 1)
