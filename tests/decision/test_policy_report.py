from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from pyro_vdn.decision import Costs, Policy, PolicyCases
from pyro_vdn.errors import InputError

COSTS = Costs(draw=0.1, fall_back=0.2, abstain=0.5, error=2.0)
POLICY = Policy(COSTS, 0.1, 0.5, 0.8, 0.3, 0.6)
# accept; draw and accept; draw and fall back; draw and abstain; fall back; abstain; accept
CASES = PolicyCases(
    [0.0, 0.2, 0.3, 0.4, 0.7, 0.9, 0.1],
    [0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 1.0],
    [0.7, 0.1, 0.4, 0.9, 0.1, 0.1, 0.1],
    [0.4, 0.1, 0.2, 0.1, 0.1, 0.0, 0.9],
    [0.3, 0.3, 0.1, 0.3, 0.2, 0.3, 0.3],
)
PAID = np.array([1.0, 0.3, 0.5, 0.6, 0.6, 0.5, 2.0])
CHEAPEST = [0.5, 0.3, 0.4, 0.3, 0.2, 0.0, 0.5]


def test_costs_by_hand() -> None:
    report = POLICY.evaluate(CASES)
    assert (report.cases, report.level) == (7, 0.95)
    assert report.cost.value == pytest.approx(PAID.mean())
    expected = {
        "accept": (2 / 7, 0.75, 1.5),
        "draw, accept": (1 / 7, 0.1, 0.3),
        "draw, fall back": (1 / 7, 0.1, 0.5),
        "draw, abstain": (1 / 7, math.nan, 0.6),
        "fall back": (1 / 7, 0.2, 0.6),
        "abstain": (1 / 7, math.nan, 0.5),
    }
    assert list(report.actions) == list(expected)
    for name, values in expected.items():
        assert report.actions[name] == pytest.approx(values, nan_ok=True)
    ways = {name: way.cost.value for name, way in report.alternatives.items()}
    means = {
        "always accept": 2 * 2.5 / 7,
        "always draw more": 0.1 + 2 * 1.8 / 7,
        "always fall back": 0.2 + 2 * 1.8 / 7,
        "always abstain": 0.5,
        "oracle": np.mean(CHEAPEST),
    }
    assert ways == pytest.approx(means)
    for way in report.alternatives.values():
        assert way.difference.value == pytest.approx(report.cost.value - way.cost.value)


def test_intervals_are_those_of_resampled_blocks() -> None:
    blocks = np.array(["a", "b", "a", "c", "c", "c", "b"])
    report = POLICY.evaluate(CASES, blocks=blocks, resamples=40, level=0.8, seed=3)
    generator, names = np.random.default_rng(3), np.unique(blocks)
    accepted = 2 * np.asarray(CASES.risk)
    costs, differences = [], []
    for drawn in generator.integers(3, size=(40, 3)):
        index = np.concatenate([np.flatnonzero(blocks == names[i]) for i in drawn])
        costs.append(PAID[index].mean())
        differences.append((PAID - accepted)[index].mean())
    for found, samples in (
        (report.cost, costs),
        (report.alternatives["always accept"].difference, differences),
    ):
        assert found[1:] == pytest.approx((np.quantile(samples, 0.1), np.quantile(samples, 0.9)))


def test_what_is_not_on_offer_is_not_reported() -> None:
    cases = PolicyCases([0.1, 0.2, 0.8], [0.0, 0.1, 1.0])
    report = Policy.choose(cases, Costs(abstain=0.3)).evaluate(cases, resamples=9)
    assert list(report.actions) == ["accept", "abstain"]
    assert list(report.alternatives) == ["always accept", "always abstain", "oracle"]


def test_chosen_on_some_it_saves_on_others() -> None:
    generator = np.random.default_rng(0)

    def draw(count: int) -> PolicyCases:
        true = generator.uniform(size=count)
        few, many = (true + s * generator.normal(size=count) for s in (0.15, 0.02))
        risk = generator.exponential(size=count) * true**2
        return PolicyCases(few, 1.1 * risk, many, risk, 0.3 * generator.uniform(size=count))

    validation, test = draw(400), draw(2_000)
    policy = Policy.choose(validation, Costs(draw=0.005, fall_back=0.1, abstain=0.6))
    report = policy.evaluate(test, resamples=200)
    for name, way in report.alternatives.items():
        below = way.difference.lower > 0 if name == "oracle" else way.difference.upper < 0
        assert below, name
    assert report.cost.lower < report.cost.value < report.cost.upper
    assert sum(share.share for share in report.actions.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: POLICY.evaluate(PolicyCases([0.1], [0.0])), r"refined_risk: expected one risk"),
        (lambda: POLICY.evaluate(CASES, resamples=1), r"resamples: expected at least 2"),
        (lambda: POLICY.evaluate(CASES, level=95), r"level: expected a share strictly between"),
        (lambda: POLICY.evaluate(CASES, blocks=[1]), r"blocks: expected shape \(7,\)"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        call()
