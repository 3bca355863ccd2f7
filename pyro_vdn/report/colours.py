"""Colours of a page, light and dark, as steps from the paper to the strongest colour."""

from __future__ import annotations

from typing import NamedTuple

LEVELS = 10
"""Number of steps of the scale."""

Colour = tuple[int, int, int]


class Theme(NamedTuple):
    """The colours of a page, red, green and blue from 0 to 255.

    Args:
        paper: Background.
        ink: Text.
        muted: Text of less weight, and lines.
        strongest: Background of the highest score; text on it is in `ink`.

    Example:
        >>> contrast(LIGHT.ink, LIGHT.strongest) > 4.5, contrast(DARK.ink, DARK.strongest) > 4.5
        (True, True)
    """

    paper: Colour
    ink: Colour
    muted: Colour
    strongest: Colour


LIGHT = Theme((255, 255, 255), (24, 36, 48), (90, 102, 114), (244, 140, 108))
DARK = Theme((18, 24, 31), (234, 239, 244), (158, 170, 182), (158, 62, 36))


def scale(theme: Theme) -> list[Colour]:
    """Return the backgrounds of all levels, from the paper to the strongest colour.

    Args:
        theme: The colours.

    Example:
        >>> scale(LIGHT)[0], scale(LIGHT)[-1]
        ((255, 255, 255), (244, 140, 108))
    """
    shares = [level / (LEVELS - 1) for level in range(LEVELS)]
    return [_between(theme.paper, theme.strongest, share) for share in shares]


def css(colour: Colour) -> str:
    """Return a colour as style sheets write it.

    Example:
        >>> css((255, 0, 16))
        '#ff0010'
    """
    return "#" + "".join(f"{part:02x}" for part in colour)


def contrast(one: Colour, other: Colour) -> float:
    """Return the contrast of two colours, from 1 to 21.

    Args:
        one: A colour.
        other: Another one.

    Example:
        >>> round(contrast((0, 0, 0), (255, 255, 255)), 1)
        21.0

    Source:
        W3C, *Web Content Accessibility Guidelines 2.1* (2018): text needs 4.5.
    """
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: Colour) -> float:
    linear = [
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4
        for part in (value / 255 for value in colour)
    ]
    return sum(w * part for w, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _between(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue
