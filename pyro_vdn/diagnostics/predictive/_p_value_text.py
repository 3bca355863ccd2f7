"""How p-values are written."""

from __future__ import annotations

_LEAST = 0.001


def p_value_text(value: float, *, sign: bool = True) -> str:
    """Return a p-value to three decimals, never as 0 or 1: beyond them it is a bound.

    Args:
        value: The p-value.
        sign: Whether an equals sign stands before what is no bound, as after "p ".

    Example:
        >>> [p_value_text(p) for p in (0.0004, 0.0312, 0.9996)]
        ['< 0.001', '= 0.031', '> 0.999']
        >>> p_value_text(0.0312, sign=False)
        '0.031'
    """
    if value < _LEAST:
        return f"< {_LEAST}"
    if value > 1.0 - _LEAST:
        return f"> {1.0 - _LEAST}"
    return f"{'= ' if sign else ''}{value:.3f}"
