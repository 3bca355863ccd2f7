"""The parts of a report on text: scores, calibration, expected surprise, a map of tokens, units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_vdn.diagnostics import (
    label_ranges,
    plot_reliability,
    reliability_curve,
)
from pyro_vdn.report.blocks import paragraph, picture, table
from pyro_vdn.report.estimates import Estimate, mean_of
from pyro_vdn.report.findings import (
    confidence_check,
    contribution_check,
    surprise_check,
)
from pyro_vdn.report.language_results import LanguageResults, language_results
from pyro_vdn.report.language_scores import scores_part
from pyro_vdn.report.markup import Content, Markup, tag
from pyro_vdn.report.neurons_part import neurons_part
from pyro_vdn.report.part import Part
from pyro_vdn.report.token_map import MEANING, NAMES, token_map
from pyro_vdn.report.variance_blocks import token_variance_blocks
from pyro_vdn.report.words import difference, plus_minus
from pyro_vdn.train.language_problem import LanguageProblem
from pyro_vdn.train.members import NEURONS

Program = Callable[..., Any]
_MAPS = ("nll", "mutual_information")
_MOST_CURVES = 4


def language_parts(
    models: Mapping[str, Sequence[tuple[Program, Program]]],
    problem: LanguageProblem,
    *,
    num_draws: int,
    say: Callable[[str], None],
) -> list[Part]:
    """Measure a run on text and return the sections that show it.

    Args:
        models: Programs with their guides by method, the neurons first.
        problem: The text.
        num_draws: Of no account: tokens are scored with as many draws as the run's recipe says.
        say: Told what is going on.
    """
    results = language_results(models, problem, say=say)
    say("calibration, a map of tokens, what the neurons do")
    own = results.tables[NEURONS]
    share = float(own["mutual_information"].mean() / own["entropy"].mean())
    return [
        scores_part(results),
        _calibration(results),
        _checks(results),
        _map(results),
        neurons_part(
            results.layers,
            _variance(models, results),
            (contribution_check(share, "the entropy of predictions"),),
        ),
    ]


def _variance(
    models: Mapping[str, Sequence[tuple[Program, Program]]], results: LanguageResults
) -> tuple[Markup, ...]:
    if not results.layers:
        return ()
    x = next(iter(results.problem.test_batches()))[0]
    return token_variance_blocks(*models[NEURONS][0], x, results.layers)


def _calibration(results: LanguageResults) -> Part:
    curves = {
        results.labels[name]: reliability_curve(columns["max_probability"], columns["correct"])
        for name, columns in results.tables.items()
        if "max_probability" in columns
    }
    shown = dict(list(curves.items())[:_MOST_CURVES])
    own = results.tables[NEURONS]
    gap = mean_of(own["correct"].double() - own["max_probability"].double(), results.blocks)
    content = (
        paragraph(
            "How often the most probable token came, by the probability it was given. On the "
            "line, probabilities are what they say."
        ),
        picture(
            plot_reliability(shown),
            alt="Left, share of tokens for which the most probable one came against its "
            "probability. Right, how many tokens were given that probability.",
        ),
    )
    return Part("calibration", "Calibration", content, (confidence_check(gap),))


def _checks(results: LanguageResults) -> Part:
    """Compare the surprise of tokens with what the model expected, over all and in groups."""
    everywhere = torch.ones(len(results.blocks), dtype=torch.bool)
    parts = _groups(results)
    rows = {name: _expected(results, chosen) for name, chosen in parts.items()}
    whole = _expected(results, everywhere)
    lines: list[list[Content]] = [
        [
            name,
            f"{int(chosen.sum()):,}",
            plus_minus(surprise.value, surprise.half_width),
            f"{entropy.value:.3f}",
            difference(gap),
        ]
        for name, chosen, (surprise, entropy, gap) in (
            ("all tokens", everywhere, whole),
            *((name, parts[name], rows[name]) for name in parts),
        )
    ]
    caption = (
        "Surprise (-log p of the token that came) against the entropy of the prediction, in nats "
        "per token, ± half a 95 % interval. A model that is right about its text is as surprised "
        "as it expects: a difference above 0 is over-confidence."
    )
    return Part(
        "checks",
        "Surprise against what was expected",
        (table(caption, ["", "tokens", "surprise", "expected", "difference"], lines),),
        (surprise_check(whole[2], {name: gap for name, (_, _, gap) in rows.items()}),),
    )


def _groups(results: LanguageResults) -> dict[str, Tensor]:
    """Return tokens by what was known before they came: position, and how sure the model was."""
    columns = results.tables[NEURONS]
    half = results.problem.recipe.block_size // 2
    entropy = columns["entropy"].double()
    low, high = (float(entropy.quantile(share)) for share in (1 / 3, 2 / 3))
    late = torch.from_numpy(label_ranges(columns["position"], (half,)) == 1)
    found = {
        f"tokens at the first {half} positions": ~late,
        "tokens at later positions": late,
        "the surest third of tokens": entropy < low,
        "the middle third": (entropy >= low) & (entropy < high),
        "the least sure third": entropy >= high,
    }
    return {name: chosen for name, chosen in found.items() if bool(chosen.any())}


def _expected(results: LanguageResults, chosen: Tensor) -> tuple[Estimate, Estimate, Estimate]:
    columns, blocks = results.tables[NEURONS], results.blocks[chosen]
    surprise, entropy = columns["nll"][chosen].double(), columns["entropy"][chosen].double()
    return (
        mean_of(surprise, blocks),
        mean_of(entropy, blocks),
        mean_of(surprise - entropy, blocks),
    )


def _map(results: LanguageResults) -> Part:
    passage, tokenizer = results.passage, results.problem.tokenizer
    pieces = [tokenizer.token(int(token)) for token in passage.tokens]
    content: list[Markup] = [
        paragraph(
            f"The first {len(pieces):,} tokens of the test part as the neurons read them. Point at "
            "a token or tap it for its numbers."
        )
    ]
    for name in _MAPS:
        bar, text = token_map(passage, pieces, by=name)
        content += [tag("h3", f"Colour: {NAMES[name]}"), paragraph(f"{MEANING[name]}."), bar, text]
    return Part("tokens", "A passage, token by token", tuple(content))
