"""From the coverage of intervals to sentences: too narrow or too wide, and at which steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyro_vdn.report.estimates import Estimate
from pyro_vdn.report.findings import RELEVANT, Check
from pyro_vdn.report.words import percent


@dataclass(frozen=True)
class Stretch:
    """The coverage of an interval over neighbouring steps of the horizon.

    Args:
        first: First step, from 1.
        last: Last step.
        share: Share of targets inside.

    Example:
        >>> Stretch(49, 96, Estimate(0.81, 0.01, 40)).last
        96
    """

    first: int
    last: int
    share: Estimate


def coverage_check(level: float, whole: Stretch, parts: Sequence[Stretch] = ()) -> Check:
    """Say whether central intervals hold what they promise, and at which steps they do not.

    A gap is told where the 95 % interval of the share leaves out the level, all parts together, and
    is at least one point wide. Neighbouring parts with the same fault make one sentence.

    Args:
        level: Nominal level of the interval.
        whole: Coverage over the whole horizon.
        parts: Coverage of stretches of it, in order; none for a single output.

    Returns:
        The check.

    Example:
        >>> parts = [
        ...     Stretch(1, 48, Estimate(0.9, 0.01, 200)),
        ...     Stretch(49, 96, Estimate(0.8, 0.01, 200)),
        ... ]
        >>> coverage_check(0.9, Stretch(1, 96, Estimate(0.85, 0.01, 200)), parts).findings
        ('90 % intervals too narrow at steps > 48: they hold 80 % (expected 90 ± 2)',)
    """
    looked_at = f"coverage of {percent(level)} intervals"
    faults = [_fault(level, part.share, len(parts)) for part in parts]
    if not any(faults) or len(set(faults)) == 1:
        fault = _fault(level, whole.share, 1) or (faults[0] if faults else 0)
        found = [_coverage(level, fault, [whole], whole)] if fault else []
    else:
        found = [
            _coverage(level, fault, run, whole) for fault, run in _runs(faults, parts) if fault
        ]
    return Check(looked_at, "calibration", tuple(found))


def _fault(level: float, share: Estimate, comparisons: int) -> int:
    """Return -1 where intervals are too narrow, 1 where too wide, else 0."""
    gap = share.value - level
    if abs(gap) < RELEVANT or not share.differs_from(level, comparisons=comparisons):
        return 0
    return 1 if gap > 0 else -1


def _runs(faults: Sequence[int], parts: Sequence[Stretch]) -> list[tuple[int, list[Stretch]]]:
    runs: list[tuple[int, list[Stretch]]] = []
    for fault, part in zip(faults, parts, strict=True):
        if runs and runs[-1][0] == fault:
            runs[-1][1].append(part)
        else:
            runs.append((fault, [part]))
    return runs


def _coverage(level: float, fault: int, run: Sequence[Stretch], whole: Stretch) -> str:
    first, last = run[0].first, run[-1].last
    steps = sum(part.last - part.first + 1 for part in run)
    share = sum(part.share.value * (part.last - part.first + 1) for part in run) / steps
    # Parts of one forecast move together: the widest of their intervals stands for all.
    half = max(part.share.half_width for part in run)
    return (
        f"{percent(level)} intervals too {'wide' if fault > 0 else 'narrow'}"
        f"{_steps(first, last, whole)}: they hold {percent(share)} "
        f"(expected {100 * level:.0f} ± {max(100 * half, 1):.0f})"
    )


def _steps(first: int, last: int, whole: Stretch) -> str:
    if (first, last) == (whole.first, whole.last):
        return ""
    if last == whole.last:
        return f" at steps > {first - 1}"
    return f" at steps \u2264 {last}" if first == whole.first else f" at steps {first} to {last}"
