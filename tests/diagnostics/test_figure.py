"""Names that users give, which matplotlib might take for formulas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from pyro_vdn.decision import (
    Costs,
    Policy,
    PolicyCases,
    plot_policy,
    plot_risk_coverage,
    risk_coverage,
)
from pyro_vdn.diagnostics import (
    compare,
    plot_compare,
    plot_fan,
    plot_predictive_check,
    plot_quantile_reliability,
    plot_reliability,
    predictive_check,
    quantile_reliability,
    reliability_curve,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HOSTILE = r"a$b$c_{ \$"
HIDDEN = "_" + HOSTILE


def _compared() -> Figure:
    easy = np.random.default_rng(0).normal(size=40)
    return plot_compare(compare({HOSTILE: easy, HIDDEN: easy - 1 + np.sin(easy)}))


def _checked() -> Figure:
    draws, observed = torch.randn(40, 6), torch.randn(6)
    groups = [HOSTILE, HIDDEN] * 3
    return plot_predictive_check(
        predictive_check(draws, observed, statistics={HOSTILE: _mean}, groups=groups)
    )


def _checked_as_a_whole() -> Figure:
    draws, observed = torch.randn(40, 6), torch.randn(6)
    return plot_predictive_check(predictive_check(draws, observed, statistics={HOSTILE: _mean}))


def _mean(values: torch.Tensor) -> torch.Tensor:
    return values.mean(-1)


def _quantiles() -> Figure:
    quantiles, target = torch.tensor([[0.25] * 90, [0.75] * 90]), torch.rand(90)
    found = quantile_reliability(
        quantiles, [0.25, 0.75], target, groups=[HOSTILE] * 45 + [HIDDEN] * 45
    )
    return plot_quantile_reliability(found)


def _fan() -> Figure:
    zeros = torch.zeros(1, 5)
    return plot_fan(zeros, zeros, draws=torch.randn(30, 1, 5), titles=[HOSTILE])


def _risks() -> Figure:
    curve = risk_coverage([0.1, 0.2, 0.3], [0.5, 0.7, 2.0])
    other = risk_coverage([0.1, 0.2, 0.3], [0.5, 0.7, 3.0])
    return plot_risk_coverage({HOSTILE: curve, HIDDEN: other}, title=HOSTILE)


def _policy() -> Figure:
    cases = PolicyCases([0.1, 0.2, 0.7, 0.9], [0.0, 0.0, 1.0, 1.0])
    report = Policy.choose(cases, Costs(abstain=0.3)).evaluate(cases)
    return plot_policy(report, title=HOSTILE, cost_label=HOSTILE)


def _tokens() -> Figure:
    curve = reliability_curve(torch.rand(200), torch.rand(200) > 0.5)
    return plot_reliability({HOSTILE: curve, HIDDEN: curve})


@pytest.mark.parametrize(
    ("draw", "names"),
    [
        (_compared, (HOSTILE, HIDDEN)),
        (_checked, (HOSTILE, HIDDEN)),
        (_checked_as_a_whole, (HOSTILE,)),
        (_quantiles, (HOSTILE, HIDDEN)),
        (_fan, (HOSTILE,)),
        (_risks, (HOSTILE, HIDDEN)),
        (_policy, (HOSTILE,)),
        (_tokens, (HOSTILE, HIDDEN)),
    ],
)
def test_names_are_drawn_letter_by_letter(draw: Callable[[], Figure], names: Sequence[str]) -> None:
    drawn = _drawn(draw())
    for name in names:
        assert any(name in text for text in drawn), name


def _drawn(figure: Figure) -> list[str]:
    """Return every text of a figure as it is drawn, refusing formulas."""
    from matplotlib.text import Text

    figure.draw_without_rendering()  # a formula that does not parse is an error here
    drawn = []
    for text in figure.findobj(Text):
        shown, is_formula = text._preprocess_math(text.get_text())
        assert not is_formula, text.get_text()
        drawn.append(shown)
    return drawn
