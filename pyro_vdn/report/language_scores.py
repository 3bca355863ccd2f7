"""The scores of a report on text: every method, paired differences, comparison by density."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_vdn.diagnostics import label_frequency
from pyro_vdn.report.blocks import paragraph, table
from pyro_vdn.report.comparison_blocks import comparison_blocks
from pyro_vdn.report.estimates import Estimate, mean_of
from pyro_vdn.report.findings import difference_check, rows_check
from pyro_vdn.report.language_results import LanguageResults
from pyro_vdn.report.markup import Content, Markup
from pyro_vdn.report.part import Part
from pyro_vdn.report.words import best_of, difference, in_percent, plus_minus
from pyro_vdn.train.members import NEURONS

_KIND = "stretches of text"


def scores_part(results: LanguageResults) -> Part:
    """Return the section of scores.

    Args:
        results: What was measured.
    """
    gaps = {
        results.labels[name]: _difference(results, name, "nll")
        for name in results.tables
        if name != NEURONS
    }
    densities = {results.labels[name]: -columns["nll"] for name, columns in results.tables.items()}
    return Part(
        "scores",
        "Scores",
        (
            _scores(results),
            _paired(results),
            _by_frequency(results),
            *comparison_blocks(densities, results.blocks, of="tokens"),
            paragraph(
                "Token frequencies are those of the training text; pairs of tokens predict from "
                "the one token before."
            ),
        ),
        (difference_check("NLL", "nats", gaps), rows_check(results.independent, _KIND)),
    )


def _scores(results: LanguageResults) -> Markup:
    names = list(results.tables)
    nll = [_mean(results, name, "nll") for name in names]
    hits = [_mean(results, name, "correct") for name in names]
    per_character = math.log(2) * results.problem.characters_per_token
    columns: list[list[Content]] = [
        best_of([one.value for one in nll], [plus_minus(a.value, a.half_width) for a in nll]),
        [f"{one.value / per_character:.3f}" for one in nll],
        best_of(
            [one.value for one in hits],
            [in_percent(one) for one in hits],
            low=False,
        ),
        *(_summary(results, names, key) for key in ("ece", "brier", "cvar_nll")),
    ]
    lines = [
        [results.labels[name], *(column[at] for column in columns)] for at, name in enumerate(names)
    ]
    head = ["", "NLL", "bits per character", "accuracy", "ECE", "Brier", "CVaR of NLL"]
    caption = (
        f"Scores on {results.problem.tested_on}; NLL in nats per token, ± half a 95 % interval "
        f"over {results.independent} {_KIND}. ECE is the calibration error of the most probable "
        "token, CVaR the mean NLL of the worst 5 % of tokens."
    )
    return table(caption, head, lines)


def _summary(results: LanguageResults, names: list[str], key: str) -> list[Content]:
    values = [
        float(getattr(results.scores[name].metrics.summary, key))
        if name in results.scores
        else math.nan
        for name in names
    ]
    cells = ["-" if math.isnan(value) else f"{value:.4f}" for value in values]
    return best_of(values, cells)


def _paired(results: LanguageResults) -> Markup:
    lines: list[list[Content]] = [
        [
            results.labels[name],
            difference(_difference(results, name, "nll"), digits=4),
            difference(_difference(results, name, "correct", 100.0), digits=2),
        ]
        for name in results.tables
        if name != NEURONS
    ]
    caption = (
        "Paired differences: score of the reference minus that of the neurons, token by token, ± "
        "half a 95 % interval; bold where it leaves out 0. NLL in nats per token (above 0 the "
        "neurons are better), accuracy in points (below 0 the neurons are better)."
    )
    return table(caption, ["", "NLL", "accuracy"], lines)


def _by_frequency(results: LanguageResults) -> Markup:
    """Return the NLL of tokens that are rare or common in training, by all methods."""
    targets = results.tables[NEURONS]["target"]
    rare = torch.from_numpy(label_frequency(targets, results.counts) == "rare")
    groups = {"rare": rare, "common": ~rare}
    lines: list[list[Content]] = []
    for name, columns in results.tables.items():
        means = [mean_of(columns["nll"][on], results.blocks[on]) for on in groups.values()]
        lines.append([results.labels[name], *(plus_minus(a.value, a.half_width) for a in means)])
    counts = [f"{name} ({int(chosen.sum()):,} tokens)" for name, chosen in groups.items()]
    caption = (
        "NLL by how often the token came in training, in nats per token, ± half a 95 % interval. "
        "Rare are the least frequent tokens that make up 10 % of the text."
    )
    return table(caption, ["", *counts], lines)


def _mean(results: LanguageResults, name: str, column: str) -> Estimate:
    return mean_of(results.tables[name][column], results.blocks)


def _difference(results: LanguageResults, name: str, column: str, factor: float = 1.0) -> Estimate:
    theirs: Tensor = results.tables[name][column].double()
    ours = results.tables[NEURONS][column].double()
    return mean_of(factor * (theirs - ours), results.blocks)
