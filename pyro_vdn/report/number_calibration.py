"""The calibration of a report on numbers: transforms, coverage at all levels and all steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyro_vdn.diagnostics import (
    draw_quantiles,
    ecdf_band,
    plot_pit,
    plot_quantile_reliability,
    quantile_reliability,
)
from pyro_vdn.report.blocks import paragraph, picture, table
from pyro_vdn.report.coverage_findings import Stretch, coverage_check
from pyro_vdn.report.coverage_picture import plot_coverage
from pyro_vdn.report.estimates import mean_of, share_of
from pyro_vdn.report.findings import pit_check
from pyro_vdn.report.markup import Content, Markup
from pyro_vdn.report.number_results import LEVELS, NumberResults, inside, stretches
from pyro_vdn.report.part import Part
from pyro_vdn.report.words import in_percent, percent, plus_minus
from pyro_vdn.train.members import NEURONS

_BAND = 0.95
_QUANTILES = tuple(step / 20 for step in range(1, 20))


def calibration_part(results: NumberResults) -> Part:
    """Return the section on whether stated probabilities come true as often as they say.

    Args:
        results: What was measured.
    """
    pit = results.scores[NEURONS].pit.flatten(1)
    known = pit[~pit.isnan()]
    count = min(results.problem.independent, len(known))
    by_level = {level: stretches(pit, level, results.blocks) for level in LEVELS}
    pictures = _pictures(results, count, by_level)
    horizon = (_horizon(results, by_level),) if pit.shape[1] > 1 else ()
    checks = [pit_check(ecdf_band(count, level=_BAND).inside(known), _BAND)]
    for level, parts in by_level.items():
        whole = Stretch(1, pit.shape[1], share_of(inside(pit, level), results.blocks, level))
        checks.append(coverage_check(level, whole, parts if pit.shape[1] > 1 else ()))
    return Part("calibration", "Calibration", (*pictures, *horizon), tuple(checks))


def _pictures(
    results: NumberResults, count: int, by_level: Mapping[float, Sequence[Stretch]]
) -> tuple[Markup, ...]:
    pit = results.scores[NEURONS].pit
    named = {results.labels[key]: scores.pit for key, scores in results.scores.items()}
    drawn = results.drawn
    reliability = quantile_reliability(
        draw_quantiles(drawn.draws, _QUANTILES),
        _QUANTILES,
        drawn.targets,
        effective_count=len(drawn.rows),
    )
    return (
        paragraph(
            "PIT values say where each target came in its predictive distribution; where stated "
            f"probabilities are right they are uniform. Bands are for {count:,} independent "
            "targets."
        ),
        picture(
            plot_pit(pit[~pit.isnan()], level=_BAND, effective_count=count),
            alt="PIT values of the neurons: left, their distribution function less the uniform "
            "one in its simultaneous band; right, their histogram.",
        ),
        picture(
            plot_coverage(named, count, by_level),
            alt="Share of targets inside central intervals less the nominal level, for every "
            "method" + (", and along the horizon." if by_level[LEVELS[0]][1:] else "."),
        ),
        picture(
            plot_quantile_reliability(reliability, title="Reliability of quantiles"),
            alt="Share of targets below each predicted quantile less its level, in its band.",
            caption=f"Of {len(drawn.rows):,} test rows that do not overlap.",
        ),
    )


def _horizon(results: NumberResults, by_level: Mapping[float, Sequence[Stretch]]) -> Markup:
    crps = results.scores[NEURONS].crps.flatten(1)
    lines: list[list[Content]] = []
    for at, part in enumerate(by_level[LEVELS[0]]):
        held = [found[at].share for found in by_level.values()]
        error = mean_of(crps[:, part.first - 1 : part.last], results.blocks)
        lines.append(
            [
                f"{part.first} to {part.last}" if part.last > part.first else f"{part.first}",
                *(in_percent(one) for one in held),
                plus_minus(error.value, error.half_width),
            ]
        )
    caption = (
        "Along the horizon: share of targets inside central intervals, and CRPS in standard units, "
        "± half a 95 % interval."
    )
    return table(caption, ["steps ahead", *(f"in {percent(v)}" for v in LEVELS), "CRPS"], lines)
