"""The methods of the language benchmark: one network, and what effects make of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from pyro.poutine.messenger import Messenger

from pyro_vdn.models import VariationalGPT
from pyro_vdn.poutine import deterministic

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


def _twin(progress: float) -> Sequence[Messenger]:
    return [deterministic()]


TWIN = LanguageMethod(_twin, {"prior": "standard"})
