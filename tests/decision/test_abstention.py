from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pyro_vdn.decision import Threshold, action_score, risk_coverage
from pyro_vdn.errors import InputError

U = [1.0, 2.0, 2.0, 3.0, 4.0]
RISK = [0.0, 0.0, 1.0, 0.5, 5.0]


@pytest.mark.parametrize(
    ("goal", "expected"),
    [
        # value, coverage, risk; the two cases at 2 stand or fall together
        ({"coverage": 0.1}, (1.0, 0.2, 0.0)),
        ({"coverage": 0.2}, (1.0, 0.2, 0.0)),
        ({"coverage": 0.3}, (2.0, 0.6, 1 / 3)),
        ({"coverage": 0.6}, (2.0, 0.6, 1 / 3)),
        ({"coverage": 1.0}, (4.0, 1.0, 1.3)),
        ({"target_risk": 0.0}, (1.0, 0.2, 0.0)),
        ({"target_risk": 0.35}, (2.0, 0.6, 1 / 3)),
        ({"target_risk": 0.375}, (3.0, 0.8, 0.375)),
        ({"target_risk": 9.0}, (4.0, 1.0, 1.3)),
    ],
)
def test_the_threshold_reaches_its_goal_and_no_more(
    goal: dict[str, float], expected: tuple[float, float, float]
) -> None:
    chosen = Threshold.choose(torch.tensor(U), RISK, **goal)
    assert (chosen.value, chosen.coverage, chosen.risk) == pytest.approx(expected)
    report = chosen.report(U, RISK)
    assert (report.coverage, report.risk) == pytest.approx(expected[1:])


def test_the_largest_coverage_counts_though_risk_is_not_monotone() -> None:
    assert Threshold.choose([1, 2, 3], [1.0, 0.0, 0.2], target_risk=0.5).value == 3.0


def test_every_tenth_of_coverage_is_met_exactly() -> None:
    u, risk = np.random.default_rng(0).normal(size=(2, 10))
    for tenth in range(1, 11):
        assert Threshold.choose(u, risk, coverage=tenth / 10).accept(u).sum() == tenth


def test_it_decides_on_other_cases() -> None:
    chosen = Threshold.choose(U, RISK, coverage=0.6)
    assert chosen.accept(torch.tensor([2.0, 2.1, -5.0])).tolist() == [True, False, True]
    report = chosen.report([0.5, 9.0, 8.0, 7.0], [1.0, 2.0, 3.0, 4.0])
    assert report == (0.25, 1.0, 3.0, 2.5)
    everything, nothing = chosen.report([0.0], [1.5]), chosen.report([9.0], [1.5])
    assert everything[:2] == (1.0, 1.5)
    assert np.isnan(everything.abstained_risk)
    assert nothing.coverage == 0.0
    assert np.isnan(nothing.risk)


def test_it_lies_on_the_curve() -> None:
    generator = np.random.default_rng(1)
    u = generator.normal(size=200)
    risk = generator.gamma(1.0, np.exp(u))
    curve = risk_coverage(u, risk)
    chosen = Threshold.choose(u, risk, target_risk=0.8 * risk.mean())
    assert chosen.coverage == curve.coverage_at(0.8 * risk.mean())
    assert chosen.risk == pytest.approx(curve.selective_risk_at(chosen.coverage))
    assert chosen.value == curve.threshold[round(chosen.coverage * 200) - 1]


def test_the_action_score_is_the_weighted_sum() -> None:
    scores = {"kl": torch.tensor([1.0, 2.0]), "scale": [0.5, 1.0], "mi": np.array([0.1, 0.0])}
    found = action_score(scores, {"mi": 10.0, "kl": 2.0})
    np.testing.assert_allclose(found, [3.0, 4.0])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: Threshold.choose(U, RISK), r"target_risk, coverage: .* of the two, got none"),
        (
            lambda: Threshold.choose(U, RISK, target_risk=1.0, coverage=0.5),
            r"target_risk, coverage: expected exactly one of the two, got both",
        ),
        (lambda: Threshold.choose(U, RISK, coverage=0.0), r"coverage: expected a share above 0"),
        (
            lambda: Threshold.choose(U, np.add(RISK, 0.25), target_risk=0.1),
            r"target_risk: expected at least 0.25, the lowest .* got 0.1",
        ),
        (lambda: Threshold.choose(U, RISK[1:], coverage=0.5), r"risk: expected 5 values"),
        (
            lambda: Threshold(0.0, 1.0, 0.0).accept([np.nan]),
            r"uncertainty: expected finite values, got nan at \(0,\)",
        ),
        (lambda: action_score({"kl": [1.0]}, {}), r"features: expected at least one score"),
        (lambda: action_score({"kl": [1.0]}, {"mi": 1.0}), r"features: expected 'mi' .* got kl"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        call()
