from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from pyro_vdn.decision import (
    AdaptiveDraws,
    Costs,
    Estimate,
    Policy,
    PolicyCases,
    PolicyReport,
    plot_draws,
    plot_policy,
)
from pyro_vdn.decision.policy_plots import _difference
from pyro_vdn.diagnostics import save

_CONVENTION = "numbers: this policy less the other (below 0: it is cheaper)"


def report() -> PolicyReport:
    generator = np.random.default_rng(0)
    true = generator.uniform(size=200)
    few = true + 0.2 * generator.normal(size=200)
    cases = PolicyCases(few, true, true, 0.9 * true, 0.3 * generator.uniform(size=200))
    return Policy(Costs(0.01, 0.1, 0.4), 0.3, 0.6, np.inf, 0.5, 0.7).evaluate(cases, resamples=50)


def test_the_figure_shows_the_given_numbers(tmp_path: Path) -> None:
    shown = report()
    figure = plot_policy(shown, title="Tokens", cost_label="nats")
    shares, costs = figure.axes
    assert [text.get_text() for text in shares.get_yticklabels()] == list(shown.actions)
    widths = [bar.get_width() for bar in shares.patches]
    np.testing.assert_allclose(widths, [100 * taken.share for taken in shown.actions.values()])
    said = [text.get_text() for text in shares.texts]
    taken = shown.actions["draw, accept"]
    expected = f"{100 * taken.share:.1f} %: risk {taken.risk:.3g}, cost {taken.cost:.3g}"
    assert said[1] == expected
    assert said[5] == "none"  # beyond infinity nobody abstains
    assert "risk" not in said[3]
    names = ["this policy", *shown.alternatives]
    assert [text.get_text() for text in costs.get_yticklabels()] == names
    ways = [shown.cost, *(way.cost for way in shown.alternatives.values())]
    points = [line.get_xdata()[0] for line in costs.get_lines()[1:]]
    np.testing.assert_allclose(points, [way.value for way in ways])
    spans = [lines.get_segments()[0][:, 0] for lines in costs.collections]
    np.testing.assert_allclose(spans, [[way.lower, way.upper] for way in ways])
    assert [text.get_text() for text in costs.texts] == [
        _difference(way.difference) for way in shown.alternatives.values()
    ]
    assert costs.get_xlabel() == "nats\n" + _CONVENTION
    save(figure, tmp_path / "policy.png", dpi=100)
    assert imread(tmp_path / "policy.png").shape[1] == 1200


def test_differences_have_the_sign_of_the_report() -> None:
    assert _difference(Estimate(-0.2, -0.3, 0.1)) == "-0.2 [-0.3, +0.1]"
    assert _difference(Estimate(0.2, 0.1, 0.3)) == "+0.2 [+0.1, +0.3]"
    shown = report()
    always_accept = shown.alternatives["always accept"].difference
    assert always_accept.upper < 0  # the policy is cheaper
    text = plot_policy(shown).axes[1].texts[0].get_text()
    assert [float(word.strip("[],")) for word in text.split()] == pytest.approx(
        tuple(always_accept), rel=1e-2
    )


def test_labels_keep_clear_of_markers_where_intervals_have_no_width() -> None:
    shown = report()
    always_abstain = shown.alternatives["always abstain"].cost
    assert always_abstain.lower == pytest.approx(always_abstain.upper)
    figure = plot_policy(shown)
    figure.draw_without_rendering()
    costs, points = figure.axes[1], figure.dpi / 72
    for text, way in zip(costs.texts, shown.alternatives.values(), strict=True):
        ground = text.get_bbox_patch().get_window_extent()
        marker = costs.transData.transform((way.cost.value, 0.0))[0] + 3.5 * points
        assert ground.x0 - marker > 3 * points


def test_draws_used_by_look() -> None:
    draws, settled = np.array([32, 32, 64, 128, 128]), np.array([True, True, True, True, False])
    found = AdaptiveDraws(*np.zeros((4, 5)), draws=draws, settled=settled, looks=(32, 64, 128))
    axes = plot_draws(found, title="Rows").axes[0]
    heights = [bar.get_height() for bar in axes.patches]
    np.testing.assert_allclose(heights, [40, 20, 20, 0, 0, 20])
    assert axes.patches[5].get_y() == pytest.approx(20.0)
    assert axes.get_title(loc="left") == "Rows: mean 77, 40 % fewer than 128 for all"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["32", "64", "128"]
