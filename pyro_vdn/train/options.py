"""How a model is trained: every number of a training run in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from pyro_vdn.errors import InputError

Decay = Literal["all", "matrices"]


@dataclass(frozen=True)
class FitOptions:
    r"""Numbers of a training run: AdamW, linear warm-up, cosine decay to zero, clipped gradients.

    The rate of step `k` is `learning_rate * min(1, (k + 1) / W) * (1 + cos(pi k / K)) / 2` with
    `W = warmup_steps` and `K = max_steps`.

    Args:
        max_steps: Gradient steps K.
        batch_size: Rows per step on each device.
        learning_rate: Peak rate.
        betas: Decay rates of AdamW's moments.
        weight_decay: Decoupled weight decay.
        decay: Which parameters decay: ``"all"`` of them, or ``"matrices"``, those of two dimensions
            or more, as is usual for Transformers.
        warmup_steps: Steps W of linear warm-up; 0 for none.
        clip: Largest norm of the gradient, or None for no clipping.
        evaluate_every: Steps from one evaluation on the validation rows to the next; the last step
            is evaluated too.
        validation_samples: Draws behind the validation NLL, where it is not in closed form.
        patience: Evaluations without a better validation NLL after which training stops; None for
            never.
        seed: Seed of the batches and of the noise; rank r of several processes takes `seed + r`
            for its noise.
        precision: Lightning's name of the arithmetic, such as ``"32-true"`` (as the model is) or
            ``"bf16-mixed"``.
        accelerator: Lightning's name of the device: ``"auto"``, ``"cpu"``, ``"gpu"``.
        devices: Number of devices.

    Raises:
        InputError: For a number outside its range.

    Example:
        >>> options = FitOptions(max_steps=1000, warmup_steps=100)
        >>> [round(options.rate(step), 6) for step in (0, 49, 500, 1000)]
        [2e-05, 0.000994, 0.001, 0.0]
    """

    max_steps: int = 3000
    batch_size: int = 128
    learning_rate: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    decay: Decay = "all"
    warmup_steps: int = 100
    clip: float | None = 1.0
    evaluate_every: int = 250
    validation_samples: int = 32
    patience: int | None = None
    seed: int = 0
    precision: str = "32-true"
    accelerator: str = "auto"
    devices: int = 1

    def __post_init__(self) -> None:
        """Check every number."""
        whole = ("max_steps", "batch_size", "evaluate_every", "validation_samples", "devices")
        for name in whole:
            _require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("weight_decay", "warmup_steps", "seed"):
            _require(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        _require("learning_rate", self.learning_rate, 0 < self.learning_rate < math.inf, "above 0")
        _require("clip", self.clip, self.clip is None or self.clip > 0, "above 0, or None")
        patient = self.patience is None or self.patience >= 1
        _require("patience", self.patience, patient, "at least 1, or None")
        _require("decay", self.decay, self.decay in get_args(Decay), "'all' or 'matrices'")
        moments = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        _require("betas", self.betas, moments, "two values in [0, 1)")

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        progress = min(1.0, step / self.max_steps)
        return self.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * progress))


def _require(name: str, value: object, right: bool, expected: str) -> None:
    if not right:
        default = FitOptions.__dataclass_fields__[name].default
        raise InputError(name, expected=expected, got=repr(value), hint=f"{name}={default!r}")
