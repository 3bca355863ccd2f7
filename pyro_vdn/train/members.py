"""The models of a run: the neurons, and the references that they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pyro_vdn.errors import InputError
from pyro_vdn.train.hyper_parameters import HyperParameters

Units = Literal["neurons", "points", "dropout"]
"""What the hidden units of a network are: distributions, points, or points with dropout."""

NEURONS = "neurons"
REFERENCES = ("twin", "dropout", "ensemble")
"""What the neurons can be compared with, on the same network: the deterministic twin, MC dropout,
and an ensemble of twins of other seeds."""

_UNITS: dict[str, Units] = {
    NEURONS: "neurons",
    "twin": "points",
    "dropout": "dropout",
    "ensemble": "points",
}
_LABELS = {
    NEURONS: "neurons",
    "twin": "deterministic twin",
    "dropout": "MC dropout",
    "ensemble": "ensemble",
}
_APART = 1000
_SEEDS = 2**32


@dataclass(frozen=True)
class Member:
    """One network of a run, trained by itself.

    Args:
        method: ``"neurons"`` or one of `REFERENCES`.
        number: Which of an ensemble's networks, from 1; 0 where there is but one.

    Example:
        >>> Member("ensemble", 3).name, Member("twin").file, Member("neurons").file
        ('ensemble-3', 'twin.safetensors', 'model.safetensors')
        >>> Member("ensemble", 3).units, Member("ensemble", 3).seed(7), Member("twin").seed(7)
        ('points', 3007, 7)
    """

    method: str
    number: int = 0

    @property
    def name(self) -> str:
        """Its name, also of its folder of checkpoints."""
        return f"{self.method}-{self.number}" if self.number else self.method

    @property
    def file(self) -> str:
        """Name of the file of its weights."""
        return "model.safetensors" if self.method == NEURONS else f"{self.name}.safetensors"

    @property
    def label(self) -> str:
        """Its name in words."""
        return f"{_LABELS[self.method]}, {self.number}" if self.number else _LABELS[self.method]

    @property
    def units(self) -> Units:
        """What its hidden units are."""
        return _UNITS[self.method]

    def seed(self, seed: int) -> int:
        """Return the seed of its weights and batches, from that of the run.

        Members of an ensemble differ from each other, and from those of runs of nearby seeds.
        """
        return (seed + _APART * self.number) % _SEEDS


@dataclass(frozen=True, kw_only=True)
class Compared(HyperParameters):
    """The part of a recipe that says what the neurons are compared with.

    Args:
        references: Which of `REFERENCES` are trained beside the neurons.
        dropout: Probability of dropping a unit in MC dropout, in [0, 1).
        ensemble_size: Number of networks of the ensemble, at least 2.

    Raises:
        InputError: For unknown or repeated references, and numbers outside their range.

    Example:
        >>> from pyro_vdn.train.recipes import RegressionRecipe
        >>> recipe = RegressionRecipe(references=("twin", "ensemble"), ensemble_size=2)
        >>> [member.name for method in recipe.methods for member in recipe.members(method)]
        ['neurons', 'twin', 'ensemble-1', 'ensemble-2']
    """

    references: tuple[str, ...] = ("twin",)
    dropout: float = 0.1
    ensemble_size: int = 5

    def __post_init__(self) -> None:
        """Check every reference and number."""
        check_references(self.references)
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(
                "dropout",
                expected="a probability in [0, 1)",
                got=repr(self.dropout),
                hint="dropout=0.1, as is usual",
            )
        if self.ensemble_size < 2:
            raise InputError(
                "ensemble_size",
                expected="at least 2 networks",
                got=repr(self.ensemble_size),
                hint="ensemble_size=5, or the reference 'twin'",
            )

    @property
    def methods(self) -> tuple[str, ...]:
        """The neurons and their references, in the order in which they are trained."""
        return (NEURONS, *(name for name in REFERENCES if name in self.references))

    def members(self, method: str) -> tuple[Member, ...]:
        """Return the networks that a method needs, of which an ensemble has several."""
        if method != "ensemble":
            return (Member(method),)
        return tuple(Member(method, number + 1) for number in range(self.ensemble_size))


def check_references(
    references: Sequence[str],
    *,
    what: str = "references",
    hint: str = "references=('twin', 'dropout')",
) -> None:
    """Raise `InputError` for references that are not known, or are given twice.

    Args:
        references: Their names.
        what: What the error names.
        hint: What to try.
    """
    unknown = [name for name in references if name not in REFERENCES]
    if unknown or len(set(references)) < len(references):
        raise InputError(
            what,
            expected=f"some of {', '.join(REFERENCES)}, each once",
            got=repr(", ".join(references)),
            hint=hint,
        )


def method_label(method: str, count: int = 1) -> str:
    """Return a method's name in words.

    Args:
        method: ``"neurons"`` or one of `REFERENCES`.
        count: Number of its networks.

    Example:
        >>> method_label("twin"), method_label("ensemble", 5)
        ('deterministic twin', 'ensemble of 5')
    """
    return _LABELS[method] + (f" of {count}" if count > 1 else "")
