from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from pyro_vdn.decision import Costs, Policy, PolicyCases
from pyro_vdn.errors import InputError

EVERYTHING = Costs(draw=0.15, fall_back=0.2, abstain=0.75)


def cases(count: int, seed: int = 0, levels: int | None = None) -> PolicyCases:
    """Make cases whose few draws blur an uncertainty that many draws show."""
    generator = np.random.default_rng(seed)
    true = generator.uniform(size=count)
    few = true + 0.3 * generator.normal(size=count)
    if levels is not None:
        few, true = np.round(levels * few), np.round(levels * true)
    risk = generator.uniform(size=count) * 2 * true / true.max()
    refined = np.maximum(risk - 0.2 * generator.uniform(size=count), 0.0)
    fallback = generator.gamma(2.0, 0.15, size=count)
    return PolicyCases(few, risk, true, refined, fallback)


def cost_of(data: PolicyCases, costs: Costs, limits: tuple[float, ...]) -> float:
    """Add up what thresholds cost, case by case."""
    accept, draw, fall_back, refined_accept, refined_fall_back = limits
    total = 0.0
    for i in range(len(data)):
        few, many = data.uncertainty[i], data.refined_uncertainty[i]
        paid = 0.0
        if accept < few <= draw:
            paid += math.inf if costs.draw is None else costs.draw
            bounds, score, risk = (refined_accept, refined_fall_back), many, data.refined_risk[i]
        else:
            bounds, score, risk = (accept, fall_back), few, data.risk[i]
        if score <= bounds[0]:
            paid += costs.error * risk
        elif score <= bounds[1]:
            offered = costs.fall_back is not None
            paid += costs.fall_back + costs.error * data.fallback_risk[i] if offered else math.inf
        else:
            paid += math.inf if costs.abstain is None else costs.abstain
        total += paid
    return total / len(data)


def cost_of_many(policy: Policy, data: PolicyCases) -> float:
    """Return the mean cost of a policy without draws."""
    decided, offered = policy.decide(data.score), data.path_costs(policy.costs)
    return float(sum(cost[decided == name].sum() for name, cost in offered.items())) / len(data)


def cheapest(data: PolicyCases, costs: Costs) -> float:
    """Try all ordered thresholds there are."""
    few, many = (
        [-math.inf, *np.unique(score).tolist(), math.inf]
        for score in (data.uncertainty, data.refined_uncertainty)
    )
    return min(
        cost_of(data, costs, (*first, *refined))
        for first in itertools.combinations_with_replacement(few, 3)
        for refined in itertools.combinations_with_replacement(many, 2)
    )


@pytest.mark.parametrize(
    "costs",
    [
        EVERYTHING,
        Costs(draw=0.02, fall_back=0.3, abstain=0.5, error=1.5),
        Costs(draw=0.05, abstain=0.5),
        Costs(draw=0.05, fall_back=0.2),
        Costs(fall_back=0.3, abstain=0.6),
        Costs(draw=0.01),
        Costs(abstain=0.4),
    ],
)
@pytest.mark.parametrize(("seed", "levels"), [(0, None), (1, 3)])
def test_no_thresholds_are_cheaper(costs: Costs, seed: int, levels: int | None) -> None:
    data = cases(5 if levels is None else 9, seed, levels)
    policy = Policy.choose(data, costs)
    assert policy.validation_cost == pytest.approx(cheapest(data, costs))
    assert policy.validation_cost == pytest.approx(
        cost_of(data, costs, (*policy.first, *policy.refined))
    )


def test_a_coarse_grid_is_made_the_best_of_its_neighbourhood() -> None:
    data = cases(80)
    fine, coarse = (Policy.choose(data, EVERYTHING, grid=grid) for grid in (80, 4))
    assert fine.validation_cost <= coarse.validation_cost < 1.02 * fine.validation_cost
    for place in range(2):  # no other refined threshold is cheaper
        for value in data.refined_score[::7]:
            limits = [*coarse.first, *coarse.refined]
            limits[3 + place] = value
            if limits[3] <= limits[4]:
                assert cost_of(data, EVERYTHING, tuple(limits)) > coarse.validation_cost - 1e-9


@pytest.mark.parametrize(
    ("costs", "always"),
    [
        (Costs(draw=5.0, fall_back=5.0, abstain=5.0), "accept"),
        (Costs(draw=1.0, fall_back=5.0, abstain=0.0), "abstain"),
        (Costs(draw=0.0, error=9.0), "draw, accept"),
    ],
)
def test_one_action_that_beats_all_others_is_always_taken(costs: Costs, always: str) -> None:
    policy = Policy.choose(cases(200), costs)
    shares = policy.evaluate(cases(200, 1), resamples=2).actions
    assert shares[always].share > 0.99


def test_new_cases_beyond_the_observed_are_treated_as_the_last_ones() -> None:
    u = np.random.default_rng(0).uniform(size=50)
    data = PolicyCases(u, u, u, 0.0 * u, 0.0 * u + 0.9)
    policy = Policy.choose(data, Costs(draw=0.001, fall_back=0.5, abstain=0.8))
    assert policy.validation_cost == pytest.approx(0.001)
    assert (policy.draw, policy.refined) == (math.inf, (math.inf, math.inf))
    assert policy.decide_refined([0.5, 7.0]).tolist() == ["accept", "accept"]


def test_it_decides_in_two_stages() -> None:
    policy = Policy(EVERYTHING, 0.1, 0.5, 0.8, 0.3, 0.6)
    decided = policy.decide([0.1, 0.11, 0.5, 0.8, 0.9])
    assert decided.tolist() == ["accept", "draw", "draw", "fall back", "abstain"]
    decided = policy.decide_refined(np.array([-9.0, 0.3, 0.31, 0.6, 7.0]))
    assert decided.tolist() == ["accept", "accept", "fall back", "fall back", "abstain"]
    assert math.isnan(policy.validation_cost)


def test_the_cost_of_folds_is_paid_by_policies_that_have_not_seen_them() -> None:
    data, sequences = cases(90), np.repeat(np.arange(30), 3)
    costs = Costs(draw=0.05, abstain=0.5)
    policy = Policy.choose(data, costs, grid=8, folds=4, blocks=sequences, seed=2)
    plain = Policy.choose(data, costs, grid=8)
    assert (policy.first, policy.refined) == (plain.first, plain.refined)  # chosen on all
    fold = np.random.default_rng(2).permutation(30)[sequences] % 4
    total = 0.0
    for number in range(4):
        rest, held_out = data.take(fold != number), data.take(fold == number)
        other = Policy.choose(rest, costs, grid=8)
        total += len(held_out) * cost_of(held_out, costs, (*other.first, *other.refined))
    assert policy.validation_cost == pytest.approx(total / 90)
    other = Policy.choose(data, costs, grid=8, folds=4, blocks=sequences, seed=3)
    assert other.validation_cost != policy.validation_cost


def test_with_few_failures_only_the_cost_of_folds_can_be_believed() -> None:
    generator = np.random.default_rng(0)

    def failures(count: int) -> PolicyCases:
        score = generator.uniform(size=count)
        fails = generator.uniform(size=count) < 0.3 * score
        other = generator.uniform(size=count) < 0.15
        return PolicyCases(score, 1.0 * fails, fallback_risk=1.0 * other)

    costs, new, promised = Costs(fall_back=0.02, abstain=0.2), failures(20_000), []
    for _ in range(60):
        some = failures(80)  # a dozen of which fail
        seen, held_out = (Policy.choose(some, costs, folds=folds) for folds in (0, 5))
        paid = cost_of_many(seen, new)
        promised.append((seen.validation_cost / paid, held_out.validation_cost / paid))
    too_good, fair = np.mean(promised, axis=0)
    assert too_good < 0.9
    assert fair == pytest.approx(1.0, abs=0.1)


BAD = r"expected rising ones, equal \(or infinite at the end\) around what has no cost"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: Policy(EVERYTHING, 0.5, 0.4, 1, 0, 1), "accept, draw, fall_back: " + BAD),
        (lambda: Policy(EVERYTHING, 0, 0, 1, 2, 1), "refined_accept, refined_fall_back: " + BAD),
        (lambda: Policy(Costs(abstain=1.0), 0.1, 0.2, 0.2, 0.1, 0.1), BAD + r", got 0.1, 0.2, 0.2"),
        (lambda: Policy(Costs(abstain=1.0), 0.1, 0.1, 0.1, 0.1, 0.2), "refined_accept, .*" + BAD),
        (lambda: Policy(Costs(draw=1.0), 0.1, 0.2, 0.2, math.inf, math.inf), BAD),
        (lambda: Policy.choose(cases(9), EVERYTHING, grid=0), r"grid: expected a positive integer"),
        (
            lambda: Policy.choose(cases(9), EVERYTHING, folds=1),
            r"folds: expected 0 for none, or between 2 and 9, .* got 1",
        ),
        (
            lambda: Policy.choose(cases(4), EVERYTHING, folds=3, blocks=[0, 0, 1, 1]),
            r"folds: expected 0 for none, or between 2 and 2, .* got 3",
        ),
        (lambda: Policy.choose(cases(9), EVERYTHING).decide([np.nan]), r"uncertainty: .* finite"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        call()
