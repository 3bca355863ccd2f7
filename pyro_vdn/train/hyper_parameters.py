"""What every recipe does with its numbers."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import Any, ClassVar, TypeVar

from pyro_vdn.errors import InputError
from pyro_vdn.train.options import FitOptions

R = TypeVar("R", bound="HyperParameters")


class HyperParameters:
    """The base of frozen dataclasses that hold every number of a ready-made run.

    Example:
        >>> from pyro_vdn.train.recipes import RegressionRecipe
        >>> RegressionRecipe().with_steps(40).evaluate_every
        10
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    task: ClassVar[str]
    max_steps: int
    warmup_steps: int
    evaluate_every: int

    def options(self, seed: int = 0) -> FitOptions:
        """Return the numbers of a training run."""
        names = {item.name for item in fields(FitOptions)} & {item.name for item in fields(self)}
        return FitOptions(**{name: getattr(self, name) for name in names}, seed=seed)

    def with_steps(self: R, max_steps: int) -> R:
        """Return the recipe for another number of steps, evaluated at least four times."""
        return replace(
            self,
            max_steps=max_steps,
            warmup_steps=min(self.warmup_steps, max_steps // 10),
            evaluate_every=max(1, min(self.evaluate_every, max_steps // 4)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return every number by name, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls: type[R], values: dict[str, Any]) -> R:
        """Return the recipe of numbers that `to_dict` returned.

        Raises:
            InputError: For a number this version does not know.
        """
        unknown = sorted(set(values) - {item.name for item in fields(cls)})
        if unknown:
            raise InputError(
                "recipe",
                expected=f"numbers of {cls.__name__}",
                got=f"{unknown[0]!r}",
                hint="read the run with the version of pyro-vdn that wrote it",
            )
        # JSON has no tuples.
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
