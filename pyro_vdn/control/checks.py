"""Checks of a controller's settings."""

from __future__ import annotations

import math

from pyro_vdn.errors import InputError


def check_range(
    name: str, value: float, low: float, high: float = math.inf, *, above: bool = False
) -> None:
    """Raise `InputError` unless `low <= value <= high`, or `low < value` with `above`.

    Args:
        name: The argument.
        value: What was given.
        low: Least value.
        high: Largest value.
        above: Whether the least value itself is refused.
    """
    if math.isfinite(value) and (low < value if above else low <= value) and value <= high:
        return
    least = f"above {low:g}" if above else f"of at least {low:g}"
    most = f" and at most {high:g}" if math.isfinite(high) else ""
    raise InputError(
        name,
        expected=f"a number {least}{most}",
        got=str(value),
        hint="leave it out for the default",
    )


def check_order(low_name: str, low: float, high_name: str, high: float) -> None:
    """Raise `InputError` unless `low < high`.

    Args:
        low_name: Name of the lower bound.
        low: The lower bound.
        high_name: Name of the upper bound.
        high: The upper bound.
    """
    if not low < high:
        raise InputError(
            low_name,
            expected=f"less than {high_name} = {high:g}",
            got=f"{low:g}",
            hint=f"swap {low_name} and {high_name}",
        )
