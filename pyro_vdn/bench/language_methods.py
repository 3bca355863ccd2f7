"""The methods of the language benchmark: one network, and what effects make of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import nn

from pyro_vdn.models import VariationalGPT
from pyro_vdn.poutine import deterministic, dropout, kl_weight, scale_noise, share_noise

Effects = Callable[[float], Sequence[Messenger]]


@dataclass(frozen=True)
class LanguageMethod:
    """A way to train and read one network.

    Args:
        effects: From the share of the run that is over, in [0, 1], to the effects in force, the
            outermost first; those of 1 are in force at evaluation.
        model: Arguments of `VariationalGPT`.
        steps: Training steps, as a multiple of the common number.
        learn_scales: Whether the scales of the neurons are learned, or stay as they start.

    Example:
        >>> method = LanguageMethod(effects=lambda progress: [dropout(p=0.1 * progress)])
        >>> with method.at(0.5):
        ...     pass
    """

    effects: Effects
    model: dict[str, Any] = field(default_factory=dict)
    steps: float = 1.0
    learn_scales: bool = True

    def build(self, vocab_size: int) -> VariationalGPT:
        """Make the network, in single precision."""
        model: VariationalGPT = VariationalGPT(vocab_size, **self.model).float()
        return model

    def learned(self, model: nn.Module) -> list[nn.Parameter]:
        """Return the parameters that are trained."""
        named = model.named_parameters()
        return [
            value for name, value in named if self.learn_scales or "posterior.raw_scale" not in name
        ]

    def at(self, progress: float) -> ExitStack:
        """Return a context with the effects in force at a share of the run."""
        stack = ExitStack()
        for effect in self.effects(progress):
            stack.enter_context(effect)
        return stack


def ramp(progress: float, end: float, *, start: float = 0.0) -> float:
    """Return an amount that rises linearly to `end` over what is left of a run after `start`."""
    return end * max(0.0, (progress - start) / (1 - start))


def _dropping(end: float, *, start: float, shared: bool) -> Effects:
    """Return dropout of the hidden units, annealed to a probability."""

    def effects(progress: float) -> Sequence[Messenger]:
        return [*_sharing(shared), dropout(p=ramp(progress, end, start=start))]

    return effects


def _annealed(end: float, *, start: float, shared: bool, kl: float = 0.0) -> Effects:
    """Return noise annealed to a multiple of the posterior's scale, with a weighted KL."""

    def effects(progress: float) -> Sequence[Messenger]:
        # At exactly 0 there is no KL in closed form.
        noise = scale_noise(factor=max(ramp(progress, end, start=start), 1e-3))
        return [kl_weight(weight=ramp(progress, kl)), *_sharing(shared), noise]

    return effects


def _sharing(shared: bool) -> list[Messenger]:
    return [share_noise()] if shared else []


def _twin(progress: float) -> Sequence[Messenger]:
    return [deterministic()]


_POINTS = {"prior": "standard"}
_RELATIVE = {"scale": "relative", "initial_scale": 1.0}


def _noisy(end: float, *, start: float = 0.4, shared: bool = True, **model: Any) -> LanguageMethod:
    """Return neurons whose scale is a share of their location, annealed to `end`."""
    effects = _annealed(end, start=start, shared=shared)
    return LanguageMethod(effects, _RELATIVE | model, learn_scales=False)


def _dropped(p: float, *, start: float = 0.4, shared: bool = True) -> LanguageMethod:
    return LanguageMethod(_dropping(p, start=start, shared=shared), _POINTS)


TWIN = LanguageMethod(_twin, _POINTS)


@dataclass(frozen=True)
class Setting:
    """A part of the benchmark.

    Args:
        what: What it is, in words.
        train_share: Share of the training text that is trained on, its beginning.
        methods: The methods by name; ``"neurons"``, ``"dropout"`` and ``"twin"`` are among them.
        ablations: Further ones, of the first seed alone, beside which the neurons are seen.
    """

    what: str
    train_share: float
    methods: dict[str, LanguageMethod]
    ablations: dict[str, LanguageMethod] = field(default_factory=dict)


MEMBERS = (0, 1, 2, 3, 4)
"""Seeds of the twins that make the ensemble."""

SETTINGS = {
    "full": Setting(
        "all the text",
        1.0,
        {"twin": TWIN, "dropout": _dropped(0.04), "neurons": _noisy(0.2)},
    ),
    "tenth": Setting(
        "10 % of the text",
        0.1,
        {"twin": TWIN, "dropout": _dropped(0.45), "neurons": _noisy(0.9)},
        {
            "neurons, noise of each token": _noisy(0.9, shared=False),
            "neurons, learned scale and KL": LanguageMethod(
                _annealed(0.9, start=0.4, shared=True, kl=1e-6), _RELATIVE
            ),
            **{
                f"neurons in block {layer} alone": _noisy(0.9, neuron_layers=(layer,))
                for layer in range(4)
            },
        },
    ),
}
