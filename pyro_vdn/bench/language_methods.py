"""The methods of the language benchmark: one network, and what effects make of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import nn

from pyro_vdn.models import VariationalGPT
from pyro_vdn.poutine import deterministic, dropout, kl_weight, scale_noise, share_noise
from pyro_vdn.train.members import Units


@dataclass(frozen=True, kw_only=True)
class LanguageMethod:
    """A way to train and read one network.

    Args:
        units: What the hidden units are: points, points with dropout, or neurons.
        amount: Probability of dropping, or factor on the neurons' scale, at the end of the run; it
            rises linearly to there.
        start: Share of the run after which it rises.
        shared: Whether a unit's noise is the same at all tokens of a sequence.
        kl: Weight of the KL at the end of the run, annealed likewise from its beginning.
        learn_scales: Whether the scales of the neurons are learned, or stay as they start.
        model: Arguments of `VariationalGPT`.
        steps: Training steps, as a multiple of the common number.

    Example:
        >>> method = LanguageMethod(units="dropout", amount=0.2, start=0.5)
        >>> [effect.p for progress in (0.5, 1.0) for effect in method.effects(progress)[1:]]
        [0.0, 0.2]
    """

    units: Units
    amount: float = 0.0
    start: float = 0.4
    shared: bool = True
    kl: float = 0.0
    learn_scales: bool = False
    model: dict[str, Any] = field(default_factory=dict)
    steps: float = 1.0

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

    def effects(self, progress: float) -> Sequence[Messenger]:
        """Return the effects in force at a share of the run, the outermost first.

        Those at 1 are in force at evaluation.
        """
        if self.units == "points":
            return [deterministic()]
        sharing = [share_noise()] if self.shared else []
        amount = ramp(progress, self.amount, start=self.start)
        if self.units == "dropout":
            return [*sharing, dropout(p=amount)]
        # At exactly 0 there is no KL in closed form.
        noise = scale_noise(factor=max(amount, 1e-3))
        return [kl_weight(weight=ramp(progress, self.kl)), *sharing, noise]

    def at(self, progress: float) -> ExitStack:
        """Return a context with the effects in force at a share of the run."""
        stack = ExitStack()
        for effect in self.effects(progress):
            stack.enter_context(effect)
        return stack


def ramp(progress: float, end: float, *, start: float = 0.0) -> float:
    """Return an amount that rises linearly to `end` over what is left of a run after `start`."""
    return end * max(0.0, (progress - start) / (1 - start))


_POINTS = {"prior": "standard"}
_RELATIVE = {"scale": "relative", "initial_scale": 1.0}


def _noisy(amount: float, **changed: Any) -> LanguageMethod:
    """Return neurons whose scale is a share of their location, not learned."""
    model = _RELATIVE | changed.pop("model", {})
    return LanguageMethod(units="neurons", amount=amount, model=model, **changed)


def _dropped(p: float) -> LanguageMethod:
    return LanguageMethod(units="dropout", amount=p, model=_POINTS)


TWIN = LanguageMethod(units="points", model=_POINTS)
_AS_LONG = LanguageMethod(units="points", model=_POINTS, steps=1.15)


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
        {"twin, as many seconds": _AS_LONG},
    ),
    "tenth": Setting(
        "10 % of the text",
        0.1,
        {"twin": TWIN, "dropout": _dropped(0.45), "neurons": _noisy(0.9)},
        {
            "twin, as many seconds": _AS_LONG,
            "neurons, learned scale and KL": _noisy(0.9, kl=1e-6, learn_scales=True),
        },
    ),
}
