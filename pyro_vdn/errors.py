"""The library's error family: every error is a recipe (what, expected, got, try)."""

from __future__ import annotations


class VDNError(Exception):
    """Base class of every error this library raises on purpose."""


class InputError(VDNError, ValueError):
    """An argument or a data file is not what was asked for.

    Args:
        what: The argument, site or file at fault.
        expected: What would have been right.
        got: What came instead, with the first offending place where there is one.
        hint: What to try.

    A message alone makes the same error again, as pickling does and Pyro's tracing, which adds the
    shapes of sites to it.

    Example:
        >>> place = "nan at (0, 2)"
        >>> raise InputError("x", expected="finite values", got=place, hint="drop the row")
        Traceback (most recent call last):
            ...
        pyro_vdn.errors.InputError: x: expected finite values, got nan at (0, 2). Try: drop the row
    """

    def __init__(
        self, what: str, *, expected: str | None = None, got: str = "", hint: str = ""
    ) -> None:
        if expected is None:
            super().__init__(what)
        else:
            super().__init__(f"{what}: expected {expected}, got {got}. Try: {hint}")


class OneSidedEffectError(VDNError, RuntimeError):
    """An effect reached the model or the guide but not both, so a bound would silently be wrong."""


class NoTrainingError(VDNError, RuntimeError):
    """A training step in which no parameter can move."""


class RunFolderError(VDNError, OSError):
    """A run folder cannot be written or read."""
