from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pyro_vdn.decision import Costs, PolicyCases
from pyro_vdn.errors import InputError

FULL = PolicyCases(
    torch.tensor([0.1, 0.9]), [0.0, 1.0], [0.2, 0.8], np.array([0.0, 0.5]), fallback_risk=[0.3, 0.2]
)


def test_what_every_path_costs() -> None:
    found = FULL.path_costs(Costs(draw=0.01, fall_back=0.1, abstain=0.6, error=2.0))
    assert list(found) == [
        "accept",
        "draw, accept",
        "draw, fall back",
        "draw, abstain",
        "fall back",
        "abstain",
    ]
    expected = [[0, 2], [0.01, 1.01], [0.71, 0.51], [0.61, 0.61], [0.7, 0.5], [0.6, 0.6]]
    np.testing.assert_allclose(list(found.values()), expected)


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        (Costs(abstain=0.0), ["accept", "abstain"]),
        (Costs(draw=0.1), ["accept", "draw, accept"]),
        (Costs(fall_back=0.1), ["accept", "fall back"]),
        (
            Costs(draw=0.1, abstain=1.0),
            ["accept", "draw, accept", "draw, abstain", "abstain"],
        ),
    ],
)
def test_what_has_no_cost_is_not_on_offer(costs: Costs, expected: list[str]) -> None:
    assert list(FULL.path_costs(costs)) == expected


def test_without_refined_scores_the_first_ones_stand() -> None:
    plain = PolicyCases([0.1, 0.9], [0.0, 1.0])
    assert plain.refined_score is plain.score
    assert FULL.refined_score.tolist() == [0.2, 0.8]
    assert len(plain) == 2


def test_some_of_the_cases_keep_all_they_have() -> None:
    last, plain = FULL.take(np.array([False, True])), PolicyCases([0.1, 0.9], [0.0, 1.0])
    found = (last.uncertainty, last.risk, last.refined_uncertainty, last.refined_risk)
    np.testing.assert_allclose(found, [[0.9], [1.0], [0.8], [0.5]], rtol=1e-6)
    assert last.fallback_risk.tolist() == [0.2]
    assert plain.take(np.array([True, False])).refined_uncertainty is None


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: Costs(), r"costs: expected a cost of at least one of .* got none, error=1.0"),
        (lambda: Costs(abstain=0.1, error=0.0), r"costs: .* got abstain, error=0.0"),
        (lambda: Costs(draw=-0.1), r"draw: expected at least 0, got -0.1"),
        (lambda: Costs(abstain=np.inf), r"abstain: expected at least 0, got inf"),
        (lambda: PolicyCases([0.1], [0.0, 1.0]), r"risk: expected 1 values, one per case"),
        (
            lambda: PolicyCases([0.1], [0.0], fallback_risk=[0.0, 1.0]),
            r"fallback_risk: expected 1 values, one per case as in uncertainty, got 2",
        ),
        (
            lambda: PolicyCases([0.1], [0.0], [np.nan], [0.0]),
            r"refined_uncertainty: expected finite values, got nan at \(0,\)",
        ),
        (
            lambda: PolicyCases([0.1], [0.0], [0.1]),
            r"refined_uncertainty, refined_risk: expected both or neither, got one of the two",
        ),
        (
            lambda: PolicyCases([0.1], [0.0]).path_costs(Costs(draw=0.1)),
            r"refined_risk: expected one risk per case, as Costs\(draw=...\) offers that action",
        ),
        (
            lambda: PolicyCases([0.1], [0.0]).path_costs(Costs(fall_back=0.1)),
            r"fallback_risk: expected one risk per case, as Costs\(fall_back=...\) offers",
        ),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        call()
