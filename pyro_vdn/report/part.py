"""A part of a report: what it shows, and what was checked on the way."""

from __future__ import annotations

from dataclasses import dataclass

from pyro_vdn.report.findings import Check
from pyro_vdn.report.markup import Markup


@dataclass(frozen=True)
class Part:
    """A section of a report together with the checks of its numbers.

    Args:
        anchor: Its name in links.
        heading: Its heading.
        content: What it shows.
        checks: What was looked at.

    Example:
        >>> Part("scores", "Scores", ()).checks
        ()
    """

    anchor: str
    heading: str
    content: tuple[Markup, ...]
    checks: tuple[Check, ...] = ()
