"""The scores of a report on numbers: every method, paired differences, comparison by density."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pyro_vdn.report.blocks import paragraph, table
from pyro_vdn.report.comparison_blocks import comparison_blocks
from pyro_vdn.report.estimates import Estimate, mean_of, share_of
from pyro_vdn.report.findings import difference_check, rows_check
from pyro_vdn.report.markup import Content, Markup, tag
from pyro_vdn.report.number_results import LEVELS, NumberResults, inside
from pyro_vdn.report.part import Part
from pyro_vdn.report.references import RowScores
from pyro_vdn.report.words import best_of, difference, in_percent, percent, plus_minus
from pyro_vdn.train.members import NEURONS
from pyro_vdn.train.recipes import ForecastingRecipe

_NAMES = {"nll": "NLL", "joint_nll": "joint NLL", "crps": "CRPS"}


def scores_part(results: NumberResults) -> Part:
    """Return the section of scores.

    Args:
        results: What was measured.
    """
    kind = "stretches of time" if isinstance(results.problem.recipe, ForecastingRecipe) else "rows"
    gaps = {name: _differences(results, name) for name in _NAMES}
    named = {
        name: {results.labels[key]: gap for key, gap in found.items()}
        for name, found in gaps.items()
    }
    checks = [
        difference_check(_NAMES[name], "nats" if "nll" in name else "", named[name])
        for name in ("nll", "crps")
    ]
    densities = {results.labels[key]: -scores.joint_nll for key, scores in results.scores.items()}
    return Part(
        "scores",
        "Scores",
        (
            _scores(results, kind),
            _paired(results, gaps),
            *comparison_blocks(densities, results.blocks, of="whole rows"),
            paragraph(_what_they_are(results)),
        ),
        (*checks, rows_check(results.independent, kind)),
    )


def _scores(results: NumberResults, kind: str) -> Markup:
    columns: list[list[Content]] = []
    for name in _NAMES:
        found = [_mean(results, key, name) for key in results.scores]
        cells = [plus_minus(one.value, one.half_width) for one in found]
        columns.append(best_of([one.value for one in found], cells))
    for name in ("mse", "mae"):
        values = [float(getattr(scores, name)) for scores in results.scores.values()]
        columns.append(best_of(values, [f"{value:.4f}" for value in values]))
    for level in LEVELS:
        columns.append([_held(results, key, level) for key in results.scores])
    lines = [
        [results.labels[key], *(column[at] for column in columns)]
        for at, key in enumerate(results.scores)
    ]
    head = ["", "NLL", "joint NLL", "CRPS", "MSE", "MAE"]
    caption = (
        f"Scores on {results.problem.tested_on}, in standard units, NLL in nats per output; low is "
        f"good. ± half a 95 % interval over {results.independent} independent {kind}."
    )
    return table(caption, [*head, *(f"in {percent(level)}" for level in LEVELS)], lines)


def _paired(results: NumberResults, gaps: Mapping[str, Mapping[str, Estimate]]) -> Markup:
    lines = [
        [results.labels[key], *(difference(gaps[name][key], digits=4) for name in _NAMES)]
        for key in results.scores
        if key != NEURONS
    ]
    caption = (
        "Paired differences: score of the reference minus that of the neurons, ± half a 95 % "
        "interval. Above 0 the neurons are better; bold where the interval leaves out 0."
    )
    return table(caption, ["", *_NAMES.values()], lines)


def _what_they_are(results: NumberResults) -> Markup:
    simple = "Climatology is the normal distribution of the training targets, whatever the input. "
    if "persistence" in results.scores:
        simple += (
            "Persistence keeps the last value, with the errors that this made at each step in "
            "training. "
        )
    return tag(
        "span",
        "NLL is the mean negative log density of each output by itself, joint NLL that of all "
        "outputs of a row together, per output. CRPS is in standard units, MSE that of the "
        "predictive mean, MAE that of the median. 'In 90 %' is the share of targets inside the "
        f"central 90 % interval. {simple}",
        class_="fine",
    )


def _values(scores: RowScores, name: str) -> Tensor:
    if name == "joint_nll":
        return scores.joint_nll / (~scores.nll.isnan()).flatten(1).sum(-1)
    values: Tensor = getattr(scores, name)
    return values


def _mean(results: NumberResults, key: str, name: str) -> Estimate:
    return mean_of(_values(results.scores[key], name), results.blocks)


def _differences(results: NumberResults, name: str) -> dict[str, Estimate]:
    ours = _values(results.scores[NEURONS], name)
    return {
        key: mean_of(_values(scores, name) - ours, results.blocks)
        for key, scores in results.scores.items()
        if key != NEURONS
    }


def _held(results: NumberResults, key: str, level: float) -> str:
    return in_percent(share_of(inside(results.scores[key].pit, level), results.blocks, level))
