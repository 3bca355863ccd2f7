"""The methods of the language benchmark: one network, and what effects make of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from pyro.poutine.messenger import Messenger

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

    Example:
        >>> method = LanguageMethod(effects=lambda progress: [dropout(p=0.1 * progress)])
        >>> with method.at(0.5):
        ...     pass
    """

    effects: Effects
    model: dict[str, Any] = field(default_factory=dict)
    steps: float = 1.0

    def build(self, vocab_size: int) -> VariationalGPT:
        """Make the network, in single precision."""
        return VariationalGPT(vocab_size, **self.model).float()

    def at(self, progress: float) -> ExitStack:
        """Return a context with the effects in force at a share of the run."""
        stack = ExitStack()
        for effect in self.effects(progress):
            stack.enter_context(effect)
        return stack


def ramp(progress: float, end: float, *, start: float = 0.0) -> float:
    """Return an amount that rises linearly to `end` over what is left of a run after `start`."""
    return end * max(0.0, (progress - start) / (1 - start))


def _dropping(end: float, *, start: float = 0.0, shared: bool) -> Effects:
    """Return dropout of the hidden units, annealed to a probability."""

    def effects(progress: float) -> Sequence[Messenger]:
        return [*_sharing(shared), dropout(p=ramp(progress, end, start=start))]

    return effects


def _annealed(end: float, *, start: float = 0.0, shared: bool, kl: float) -> Effects:
    """Return noise annealed to a multiple of the posterior's scale, with a weighted KL."""

    def effects(progress: float) -> Sequence[Messenger]:
        # At exactly 0 there is no KL in closed form.
        noise = scale_noise(factor=max(ramp(progress, end, start=start), 1e-3))
        return [kl_weight(weight=ramp(progress, kl)), *_sharing(shared), noise]

    return effects


def _sharing(shared: bool) -> list[Messenger]:
    return [share_noise()] if shared else []


def _learned(kl: float) -> Effects:
    return lambda progress: [kl_weight(weight=ramp(progress, kl))]


def _twin(progress: float) -> Sequence[Messenger]:
    return [deterministic()]


_RELATIVE = {"scale": "relative", "initial_scale": 1.0}

TWIN = LanguageMethod(_twin, {"prior": "standard"})
DROP_SMALL = LanguageMethod(_dropping(0.05, shared=True), {"prior": "standard"})
DROPS = {
    f"dropout {p} from {start}{', shared' if shared else ''}": LanguageMethod(
        _dropping(p, start=start, shared=shared), {"prior": "standard"}
    )
    for p, start, shared in (
        (0.2, 0.0, True),
        (0.33, 0.0, True),
        (0.45, 0.4, True),
        (0.33, 0.0, False),
    )
}
RELS = {
    f"neurons {a} from {start}{', shared' if shared else ''}": LanguageMethod(
        _annealed(a, start=start, shared=shared, kl=1e-6), _RELATIVE
    )
    for a, start, shared in (
        (0.5, 0.0, True),
        (0.7, 0.0, True),
        (0.9, 0.4, True),
        (0.7, 0.0, False),
    )
}
FULL_ALL = LanguageMethod(_learned(1e-5), {"initial_scale": 0.05})
FULL_LAST = LanguageMethod(_learned(1e-5), {"initial_scale": 0.1, "neuron_layers": (3,)})
REL_SEQ = RELS["neurons 0.9 from 0.4, shared"]
DROP_SEQ = DROPS["dropout 0.45 from 0.4, shared"]


@dataclass(frozen=True)
class Setting:
    """A part of the benchmark.

    Args:
        what: What it is, in words.
        train_share: Share of the training text that is trained on, its beginning.
        methods: The methods by name; ``"neurons"``, ``"dropout"`` and ``"twin"`` are among them.
        ablations: Further ones, beside which the neurons are seen.
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
        {"twin": TWIN, "dropout": DROP_SMALL, "neurons": FULL_ALL},
    ),
    "tenth": Setting(
        "10 % of the text",
        0.1,
        {"twin": TWIN, "dropout": DROP_SEQ, "neurons": REL_SEQ},
    ),
}
