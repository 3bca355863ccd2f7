"""From numbers to sentences: what is wrong with a fitted model, or what was found in order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pyro_vdn.diagnostics import CollapseMode, CollapseReport
from pyro_vdn.diagnostics._exact import student_quantile
from pyro_vdn.diagnostics.predictive._p_value_text import p_value_text
from pyro_vdn.report.estimates import Estimate
from pyro_vdn.report.words import percent, to_first_digit

RELEVANT = 0.01
"""Least gap between nominal and empirical share that is worth a sentence."""

_FEW = 30
"""Fewer independent rows than this make intervals that say little."""

_SURE = 0.05
_MANY = 1000


@dataclass(frozen=True)
class Check:
    """What was looked at, and what was found.

    Args:
        looked_at: What was looked at, in words.
        section: Anchor of the section that shows it.
        findings: Sentences, without the full stop; none where all is well.

    Example:
        >>> Check("coverage", "calibration").findings
        ()
    """

    looked_at: str
    section: str
    findings: tuple[str, ...] = ()


class Replicated(NamedTuple):
    """A statistic of the data among those of replicated data.

    Args:
        name: Its name.
        p_value: How often replicated data have at least as much of it.
        distance: Standard deviations of replicated data from their mean to the data.

    Example:
        >>> Replicated("sd", 0.4, 0.2).name
        'sd'
    """

    name: str
    p_value: float
    distance: float


def pit_check(inside: bool, level: float = 0.95) -> Check:
    """Say whether the transforms of targets stay in the band of uniform ones.

    Args:
        inside: Whether they do.
        level: Level of the simultaneous band.
    """
    found = f"PIT leaves its {percent(level)} band: predicted probabilities are not what they say"
    return Check("PIT against its band", "calibration", () if inside else (found,))


def difference_check(score: str, unit: str, differences: Mapping[str, Estimate]) -> Check:
    """Say which references are better than the neurons, beyond chance.

    Args:
        score: Name of a score that is better when low.
        unit: Its unit; empty for none.
        differences: By reference, the mean of its score minus that of the neurons, row by row.

    Returns:
        The check.

    Example:
        >>> difference_check("NLL", "nats", {"twin": Estimate(-0.03, 0.005, 400)}).findings
        ('twin: better in NLL than the neurons by 0.030 ± 0.010 nats',)
    """
    found = [
        f"{name}: better in {score} than the neurons by "
        + to_first_digit(-gap.value, gap.half_width)
        + (f" {unit}" if unit else "")
        for name, gap in differences.items()
        if gap.value < 0 and gap.differs_from(0.0, comparisons=len(differences))
    ]
    return Check(f"{score} against every reference", "scores", tuple(found))


def predictive_finding(found: Sequence[Replicated], *, together: int = 1) -> Check:
    """Say which statistics of the data the model does not reproduce.

    A statistic is told whose p-value is beyond chance, all of them together; where rows move
    together, the data must also be as many times farther from the mean of replicated data as that
    may widen its spread, the root of their number.

    Args:
        found: Statistics of data and replicated data.
        together: How many rows move together at most, such as the channels of one time.

    Returns:
        The check.

    Example:
        >>> found = [Replicated("sd", 0.4, 0.2), Replicated("autocorrelation", 0.001, 5.0)]
        >>> predictive_finding(found).findings
        ('posterior predictive check: autocorrelation p = 0.001, larger in the data than in nearly \
all replicated data',)
    """
    limit = _SURE / 2 / max(len(found), 1)
    far = student_quantile(limit, _MANY) * math.sqrt(together) if together > 1 else 0.0
    sentences = [
        f"posterior predictive check: {one.name} p {p_value_text(one.p_value)}, "
        f"{'larger' if one.p_value < 0.5 else 'smaller'} in the data than in nearly all "
        "replicated data"
        for one in found
        if min(one.p_value, 1.0 - one.p_value) < limit and abs(one.distance) > far
    ]
    return Check("posterior predictive checks", "checks", tuple(sentences))


def collapse_check(report: CollapseReport) -> Check:
    """Say how many units of every layer have collapsed, how, and which cost more than they give.

    Args:
        report: The collapse report.
    """
    found = []
    for path, statistics in report.statistics.items():
        calls = [call.mode for call in report.calls if call.layer == path]
        counts = {mode: calls.count(mode) for mode in CollapseMode}
        fallen = {m.value: n for m, n in counts.items() if n and m is not CollapseMode.LIVING}
        if fallen:
            how = ", ".join(f"{count} {mode}" for mode, count in fallen.items())
            found.append(
                f"{sum(fallen.values())} of {_units(len(statistics.kl))} of layer {path} "
                f"collapsed ({how})"
            )
    for path, units in report.costly().items():
        found.append(f"{_units(len(units))} of layer {path}: predictions are better without")
    return Check("collapse of units", "neurons", tuple(found))


def contribution_check(share: float, of_what: str) -> Check:
    """Say whether the neurons' draws change predictions at all.

    Args:
        share: Share of the predictive uncertainty that comes from them.
        of_what: What it is a share of.
    """
    found: tuple[str, ...] = ()
    if share < 1e-3:
        found = (
            f"draws of the neurons hardly change predictions: they make up {100 * share:.2g} % "
            f"of {of_what}",
        )
    return Check("what the neurons add to predictive uncertainty", "neurons", found)


def rows_check(blocks: int, kind: str) -> Check:
    """Say whether there are enough independent rows for intervals to mean something.

    Args:
        blocks: Their number.
        kind: What they are.
    """
    few = f"few independent {kind} (n = {blocks}): bands and intervals are wide"
    return Check(f"number of independent {kind}", "scores", (few,) if blocks < _FEW else ())


def training_check(steps: Mapping[str, tuple[int, int | None]]) -> Check:
    """Say of which models the last checkpoint was the best, so that more steps may help.

    Args:
        steps: By model, steps taken and the step of the checkpoint that was kept.

    Returns:
        The check.

    Example:
        >>> training_check({"neurons": (900, 900), "twin": (900, 600)}).findings
        ('the last checkpoint was the best one (neurons): more steps may help',)
    """
    late = [name for name, (taken, best) in steps.items() if best is not None and best >= taken]
    found = f"the last checkpoint was the best one ({', '.join(late)}): more steps may help"
    return Check("whether training had ended", "training", (found,) if late else ())


def confidence_check(gap: Estimate) -> Check:
    """Say whether the most probable tokens come as often as they should.

    Args:
        gap: Share of tokens for which the most probable one came, minus its mean probability.
    """
    found: tuple[str, ...] = ()
    if gap.differs_from(0.0) and abs(gap.value) >= RELEVANT:
        kind = "over-confident" if gap.value < 0 else "under-confident"
        found = (
            f"probabilities are {kind}: the most probable token comes "
            f"{abs(100 * gap.value):.1f} ± {100 * gap.half_width:.1f} points "
            f"{'less' if gap.value < 0 else 'more'} often than they say",
        )
    return Check("confidence in the most probable token", "calibration", found)


def surprise_check(whole: Estimate, parts: Mapping[str, Estimate]) -> Check:
    """Say whether a model of text is as surprised as it expects to be.

    Parts must be chosen by what the model knew beforehand, such as the position in the context: of
    tokens chosen by what came, surprise differs from the entropy for a model that is right, too.

    Args:
        whole: The mean of surprise minus entropy over all tokens, in nats per token.
        parts: The same for parts of the tokens; told where not all have the fault of the whole.

    Returns:
        The check.

    Example:
        >>> parts = {"early tokens": Estimate(0.5, 0.05, 50), "late tokens": Estimate(0, 0.05, 50)}
        >>> surprise_check(Estimate(0.25, 0.05, 50), parts).findings
        ('early tokens surprise more than predictions say, by 0.5 ± 0.1 nats: over-confident',)
    """
    faults = {name: _surprise(gap, len(parts)) for name, gap in parts.items()}
    if len(set(faults.values())) > 1:
        told = {name: parts[name] for name, fault in faults.items() if fault}
    else:
        told = {"tokens": whole} if _surprise(whole, 1) else {}
    found = [
        f"{name} surprise {'more' if gap.value > 0 else 'less'} than predictions say, by "
        f"{to_first_digit(abs(gap.value), gap.half_width)} nats: "
        f"{'over' if gap.value > 0 else 'under'}-confident"
        for name, gap in told.items()
    ]
    return Check("surprise against what was expected", "checks", tuple(found))


def _surprise(gap: Estimate, comparisons: int) -> int:
    """Return 1 where tokens surprise more than expected, -1 where less, else 0."""
    if abs(gap.value) < RELEVANT or not gap.differs_from(0.0, comparisons=comparisons):
        return 0
    return 1 if gap.value > 0 else -1


def _units(count: int) -> str:
    return f"{count} unit{'' if count == 1 else 's'}"
