"""The predictive checks of a report on numbers: could the model have made these targets?"""

from __future__ import annotations

import math

from pyro_vdn.diagnostics import PredictiveCheck, plot_predictive_check, predictive_check
from pyro_vdn.diagnostics.predictive._p_value_text import p_value_text
from pyro_vdn.report.blocks import paragraph, picture, table
from pyro_vdn.report.findings import Replicated, predictive_finding
from pyro_vdn.report.markup import Content, Markup
from pyro_vdn.report.number_results import NumberResults
from pyro_vdn.report.part import Part
from pyro_vdn.report.words import known

_STEPS = ("mean", "sd")


def checks_part(results: NumberResults) -> Part:
    """Return the section of posterior predictive checks.

    Args:
        results: What was measured.
    """
    drawn = results.drawn
    draws, targets = drawn.draws.unsqueeze(-1), drawn.targets.unsqueeze(-1)
    steps = targets.shape[1]
    if steps == 1:
        draws, targets = draws.squeeze(-1), targets.squeeze(-1)
    whole = predictive_check(draws, targets)
    found = [Replicated(row["statistic"], row["p_value"], row["distance"]) for row in whole.table()]
    channels = len(results.problem.targets.names)
    content = [
        paragraph(_explained(results)),
        picture(
            plot_predictive_check(whole),
            alt="Statistics of replicated data as histograms, those of the data as lines.",
        ),
        _table(whole),
    ]
    if steps > 1:
        along = predictive_check(draws, targets, per="horizon", statistics=_STEPS)
        content.append(
            picture(
                plot_predictive_check(along),
                alt="Mean and standard deviation at each step ahead: intervals of replicated data "
                "and the values of the data.",
                caption="The same, step by step along the horizon.",
            )
        )
    return Part(
        "checks",
        "Posterior predictive checks",
        tuple(content),
        (predictive_finding(found, together=channels if steps > 1 else 1),),
    )


def _table(check: PredictiveCheck) -> Markup:
    lines: list[list[Content]] = [
        [
            row["statistic"],
            known(row["observed"], ".4g"),
            f"{known(row['replicated_mean'], '.4g')} ± {known(row['replicated_sd'], '.2g')}",
            "-" if math.isnan(row["p_value"]) else p_value_text(row["p_value"], sign=False),
            known(row["distance"], "+.1f"),
        ]
        for row in check.table()
    ]
    caption = (
        "Statistics of test targets and of replicated ones (mean ± standard deviation over draws), "
        "in standard units; p is how often replicated data have as much, the distance is in "
        "standard deviations."
    )
    return table(caption, ["", "data", "replicated", "p", "distance"], lines)


def _explained(results: NumberResults) -> str:
    rows, draws = len(results.drawn.rows), len(results.drawn.draws)
    said = (
        f"{draws:,} data sets of {rows:,} rows were drawn from the neurons' predictive "
        "distribution and compared with the test targets, which the model had not seen. "
        "A p near 0 or 1 says that data like these are rare under the model."
    )
    if len(results.problem.targets.names) > 1:
        said += (
            " Channels move together and are drawn one by one, so that p is nearer to 0 or 1 than "
            "it should be; only what is far enough for that, too, is warned of."
        )
    return said
