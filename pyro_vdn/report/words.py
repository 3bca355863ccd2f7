"""Numbers as a report writes them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pyro_vdn.report.estimates import Estimate
from pyro_vdn.report.markup import Content, tag

_LARGE = 1000


def plus_minus(value: float, half_width: float, *, digits: int = 3) -> str:
    """Return a number with half of its interval; without it where that is not known.

    Args:
        value: The number.
        half_width: Half the width of its interval.
        digits: Digits after the point.

    Example:
        >>> plus_minus(0.1234, 0.01), plus_minus(0.5, math.inf)
        ('0.123 ± 0.010', '0.500')
    """
    if not math.isfinite(value):
        return "-"
    shown = _minus(f"{value:.{digits}f}")
    return f"{shown} ± {half_width:.{digits}f}" if math.isfinite(half_width) else shown


def in_percent(share: Estimate) -> str:
    """Return a share in percent with half of its interval.

    Args:
        share: The share.

    Example:
        >>> in_percent(Estimate(0.5, 0.01, 1000))
        '50.0 ± 2.0 %'
    """
    return plus_minus(100 * share.value, 100 * share.half_width, digits=1) + " %"


def with_error(value: float, error: float) -> str:
    """Return a large number and its error, whole from a thousand on.

    Args:
        value: The number.
        error: Its error.

    Example:
        >>> with_error(12345.6, 54.3), with_error(12.34, 1.23)
        ('12,346 ± 54', '12.3 ± 1.2')
    """
    digits = 0 if abs(value) >= _LARGE else 1
    return _minus(f"{value:,.{digits}f} ± {error:,.{digits}f}")


def to_first_digit(value: float, half_width: float) -> str:
    """Return a number as exactly as its interval allows: to the first digit of its half width.

    Args:
        value: The number.
        half_width: Half the width of its interval.

    Example:
        >>> to_first_digit(0.0314, 0.0123), to_first_digit(0.00114, 0.0006)
        ('0.03 ± 0.01', '0.0011 ± 0.0006')
    """
    small = 0.0 < half_width < 1.0
    return plus_minus(value, half_width, digits=-math.floor(math.log10(half_width)) if small else 1)


def known(value: float, form: str) -> str:
    """Return a number in a form, a dash where it is not known.

    Args:
        value: The number.
        form: A format specification.

    Example:
        >>> known(0.5, ".2f"), known(math.nan, ".2f")
        ('0.50', '-')
    """
    return "-" if math.isnan(value) else _minus(format(value, form))


def difference(gap: Estimate, *, digits: int = 3) -> Content:
    """Return a difference with its sign, bold where its interval leaves out zero.

    Args:
        gap: The difference.
        digits: Digits after the point.

    Example:
        >>> difference(Estimate(0.1, 0.01, 100)).html
        '<b>+0.100 ± 0.020</b>'
    """
    text = plus_minus(gap.value, gap.half_width, digits=digits)
    text = f"+{text}" if gap.value > 0 else text
    return tag("b", text) if gap.differs_from(0.0) else text


def best_of(values: Sequence[float], cells: Sequence[str], *, low: bool = True) -> list[Content]:
    """Return cells of which that of the best value is bold.

    Args:
        values: What is ranked; NaN is never the best.
        cells: How each is written.
        low: Whether low values are good.

    Example:
        >>> best_of([2.0, 1.0], ["two", "one"])
        ['two', Markup(html='<b>one</b>')]
    """
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return list(cells)
    best = min(known) if low else max(known)
    return [
        tag("b", cell) if value == best else cell for value, cell in zip(values, cells, strict=True)
    ]


def percent(share: float) -> str:
    """Return a share in percent.

    Args:
        share: The share.

    Example:
        >>> percent(0.9)
        '90 %'
    """
    return f"{100 * share:.0f} %"


def _minus(text: str) -> str:
    """Write a minus that is as wide as a plus."""
    return text.replace("-", "\u2212")
