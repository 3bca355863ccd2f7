"""The calibration of a report on numbers: transforms, coverage at all levels and all steps."""

from __future__ import annotations

from torch import Tensor

from pyro_vdn.diagnostics import ecdf_band, plot_calibration
from pyro_vdn.report.blocks import paragraph, picture, table
from pyro_vdn.report.estimates import mean_of
from pyro_vdn.report.findings import Stretch, coverage_check, pit_check
from pyro_vdn.report.markup import Content, Markup
from pyro_vdn.report.number_results import LEVELS, NumberResults, inside, stretches
from pyro_vdn.report.part import Part
from pyro_vdn.report.words import percent, plus_minus
from pyro_vdn.train.members import NEURONS

_BAND = 0.95


def calibration_part(results: NumberResults) -> Part:
    """Return the section on whether stated probabilities come true as often as they say.

    Args:
        results: What was measured.
    """
    pit = results.scores[NEURONS].pit.flatten(1)
    steps = pit.shape[1]
    known = pit[~pit.isnan()]
    count = min(results.problem.independent, len(known))
    band = ecdf_band(count, level=_BAND)
    checks = [pit_check(band.inside(known), _BAND)]
    for level in LEVELS:
        whole = Stretch(1, steps, mean_of(inside(pit, level), results.blocks))
        parts = stretches(pit, level, results.blocks) if steps > 1 else []
        checks.append(coverage_check(level, whole, parts))
    content = [
        paragraph(
            "PIT values say where each target came in its predictive distribution; where stated "
            f"probabilities are right they are uniform. The bands are for {count:,} independent "
            "targets."
        ),
        picture(
            plot_calibration(known, effective_count=count),
            alt="Left, histogram of PIT values with the band of uniform ones. Right, share of "
            "targets inside central intervals against the nominal level.",
        ),
    ]
    if steps > 1:
        content.append(_horizon(results, pit))
    return Part("calibration", "Calibration", tuple(content), tuple(checks))


def _horizon(results: NumberResults, pit: Tensor) -> Markup:
    by_level = [stretches(pit, level, results.blocks) for level in LEVELS]
    crps = results.scores[NEURONS].crps.flatten(1)
    lines: list[list[Content]] = []
    for at, part in enumerate(by_level[0]):
        held = [found[at].share for found in by_level]
        error = mean_of(crps[:, part.first - 1 : part.last], results.blocks)
        lines.append(
            [
                f"{part.first} to {part.last}" if part.last > part.first else f"{part.first}",
                *(
                    plus_minus(100 * one.value, 100 * one.half_width, digits=1) + " %"
                    for one in held
                ),
                plus_minus(error.value, error.half_width),
            ]
        )
    caption = (
        "Along the horizon: share of targets inside central intervals, and CRPS in standard units, "
        "± half a 95 % interval."
    )
    return table(caption, ["steps ahead", *(f"in {percent(v)}" for v in LEVELS), "CRPS"], lines)
