"""Checks of a controller's settings."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pyro_vdn.errors import InputError


def check_range(
    name: str,
    value: float,
    low: float,
    high: float = math.inf,
    *,
    above: bool = False,
    hint: str | None = None,
) -> None:
    """Raise `InputError` unless `low <= value <= high`, or `low < value` with `above`.

    Args:
        name: The argument.
        value: What was given.
        low: Least value.
        high: Largest value.
        above: Whether the least value itself is refused.
        hint: What to try; by default a value that would pass.
    """
    if math.isfinite(value) and (low < value if above else low <= value) and value <= high:
        return
    least = f"above {low:g}" if above else f"of at least {low:g}"
    most = f" and at most {high:g}" if math.isfinite(high) else ""
    raise InputError(
        name,
        expected=f"a number {least}{most}",
        got=str(value),
        hint=hint or f"{name}={_value_within(low, high, above=above):g}",
    )


def _value_within(low: float, high: float, *, above: bool) -> float:
    """Return the middle of a range; of one without an end the least value, or a little more."""
    if math.isfinite(high):
        return (low + high) / 2
    return low + 0.1 if above else low


def check_order(low_name: str, low: float, high_name: str, high: float) -> None:
    """Raise `InputError` unless `low < high`.

    Args:
        low_name: Name of the lower bound.
        low: The lower bound.
        high_name: Name of the upper bound.
        high: The upper bound.
    """
    if not low < high:
        lower = f"{low_name}={high / 2:g}, or " if high > 0 else ""
        raise InputError(
            low_name,
            expected=f"less than {high_name} = {high:g}",
            got=f"{low:g}",
            hint=f"{lower}a larger {high_name}",
        )


def check_paths(name: str, given: Mapping[str, object], layers: Mapping[str, object]) -> None:
    """Raise `InputError` for a path that names no layer.

    Args:
        name: The argument.
        given: What was given by layer path.
        layers: The layers there are.
    """
    unknown = sorted(set(given) - set(layers))
    if unknown:
        raise InputError(
            name,
            expected=f"paths of layers among {sorted(layers)}",
            got=repr(unknown[0]),
            hint="a layer is named by its attribute path, its site without the `.z`",
        )
