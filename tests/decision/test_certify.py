from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from pyro_vdn.decision import Certificate, Threshold
from pyro_vdn.decision._certify import Cases, _bet, _by_count
from pyro_vdn.errors import InputError

GENERATOR = np.random.default_rng(0)
U = GENERATOR.uniform(size=400)
WRONG = (GENERATOR.uniform(size=400) < 0.3 * U) * 1.0


def thresholds(
    draw: Callable[[np.random.Generator, np.ndarray], np.ndarray],
    *,
    count: int,
    target: float,
    largest: float = 1.0,
    length: int = 1,
    sets: int = 150,
) -> np.ndarray:
    """Certify a threshold on each of many sets of cases; 0 where nothing passes."""
    found = np.zeros(sets)
    for seed in range(sets):
        generator = np.random.default_rng(seed)
        u = generator.uniform(size=count)
        blocks = None if length == 1 else np.repeat(np.arange(count // length), length)
        try:
            found[seed] = Threshold.certify(
                u,
                draw(generator, u),
                target_risk=target,
                confidence=0.9,
                largest=largest,
                blocks=blocks,
                seed=seed,
            ).value
        except InputError:
            continue
    return np.minimum(found, 1.0)


def wrong(generator: np.random.Generator, chance: np.ndarray) -> np.ndarray:
    return (generator.uniform(size=len(chance)) < chance) * 1.0


def wrong_together(generator: np.random.Generator, chance: np.ndarray) -> np.ndarray:
    shared = np.repeat(generator.uniform(size=len(chance) // 10), 10)
    own = generator.uniform(size=len(chance))
    return (np.where(own < 0.7, shared, generator.uniform(size=len(chance))) < chance) * 1.0


@pytest.mark.parametrize(
    ("draw", "settings"),
    [
        # Every threshold has a risk that is a little too high.
        (lambda g, u: wrong(g, 0.201 + 0 * u), {"count": 200, "target": 0.2}),
        (lambda g, u: g.beta(0.2, 0.795, size=len(u)), {"count": 200, "target": 0.2}),
        (
            lambda g, u: np.minimum(g.exponential(1.05, size=len(u)), 5.0) - 2.0,
            {"count": 200, "target": -1.0, "largest": 3.0},
        ),
        (
            lambda g, u: wrong_together(g, 0.201 + 0 * u),
            {"count": 400, "target": 0.2, "length": 10},
        ),
    ],
)
def test_too_high_a_risk_passes_no_more_often_than_stated(
    draw: Callable[[np.random.Generator, np.ndarray], np.ndarray], settings: dict[str, float]
) -> None:
    passed = (thresholds(draw, **settings) > 0).mean()
    assert passed <= 0.1 + 2.5 * np.sqrt(0.1 * 0.9 / 150)


@pytest.mark.parametrize(
    ("draw", "settings", "least"),
    [
        (lambda g, u: wrong(g, 0.5 * u**2), {"count": 1_500, "target": 0.05}, 0.75),
        (lambda g, u: g.beta(2, 2, size=len(u)) * u**2, {"count": 600, "target": 0.05}, 0.75),
        (
            lambda g, u: wrong_together(g, 0.5 * u**2),
            {"count": 4_000, "target": 0.05, "length": 10},
            0.5,
        ),
    ],
)
def test_the_risk_is_kept_and_most_of_what_could_be_accepted_is(
    draw: Callable[[np.random.Generator, np.ndarray], np.ndarray],
    settings: dict[str, float],
    least: float,
) -> None:
    found = thresholds(draw, **settings, sets=50)
    best = np.sqrt(6 * 0.05)  # the mean of u^2 / 2 up to t is t^2 / 6
    assert (found > best).mean() <= 0.1 + 2.5 * np.sqrt(0.1 * 0.9 / 50)
    assert found.mean() > least * best


def test_what_is_said_of_the_cases_at_hand() -> None:
    found = Threshold.certify(torch.tensor(U), WRONG, target_risk=0.2, confidence=0.8, seed=3)
    assert found.certificate == Certificate(0.2, 0.8)
    kept = found.accept(U)
    assert (found.coverage, found.risk) == pytest.approx((kept.mean(), WRONG[kept].mean()))
    assert Threshold.choose(U, WRONG, coverage=0.5).certificate is None
    everything = Threshold.certify(U, WRONG, target_risk=0.9)
    assert (everything.value, everything.coverage) == (np.inf, 1.0)
    again = Threshold.certify(U, WRONG, target_risk=0.2, confidence=0.8, seed=3)
    assert again == found


def test_ties_are_accepted_together() -> None:
    coarse = np.floor(5 * U)
    found = Threshold.certify(coarse, WRONG, target_risk=0.2, confidence=0.6)
    assert found.value in {0.0, 1.0, 2.0, 3.0, 4.0, np.inf}
    assert found.coverage == (coarse <= found.value).mean()


def test_counts_are_judged_by_the_binomial_tail() -> None:
    cases = Cases(U, WRONG, np.arange(400), 1.0)
    at = np.array([-1.0, 0.2, 0.7, np.inf])
    accepted = [t >= U for t in at]
    expected = [stats.binom.cdf(WRONG[a].sum(), a.sum(), 0.1) for a in accepted]
    np.testing.assert_allclose(_by_count(cases, at, 0.1), expected)
    assert _by_count(cases, at, 0.0).tolist() == [1.0] * 4


def test_a_bet_is_set_before_its_outcome_is_seen() -> None:
    generator = np.random.default_rng(4)
    before, outcomes = generator.uniform(-2.0, 1.0, size=(2, 30))
    wealth, most, squares = 1.0, 1.0, (before**2).sum() + 0.02
    for i, outcome in enumerate(outcomes):
        stake = min(0.95, np.sqrt(2 * np.log(20) / (30 * squares / (30 + i + 1))))
        wealth *= 1 - stake * outcome
        most, squares = max(most, wealth), squares + outcome**2
    assert most > 1.5
    assert _bet(before, outcomes, 0.05) == pytest.approx(1 / most)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: Threshold.certify(U, WRONG, target_risk=0.001),
            r"target_risk: expected one that 400 cases can vouch for with 0.95, got 0.001, which",
        ),
        (
            lambda: Threshold.certify(U, U, target_risk=0.5),
            r"largest: expected the most that a case can ever cost, .* got None",
        ),
        (
            lambda: Threshold.certify(U, 3 * WRONG, target_risk=0.5, largest=2.0),
            r"largest: expected at least 3, the largest risk of these cases, got 2",
        ),
        (
            lambda: Threshold.certify(U, WRONG, target_risk=1.0),
            r"target_risk: expected below 1, the most that a case can cost, got 1.0",
        ),
        (
            lambda: Threshold.certify(U, WRONG, target_risk=0.1, largest=np.inf),
            r"largest: expected a finite number, got inf",
        ),
        (
            lambda: Threshold.certify(U, WRONG, target_risk=0.1, confidence=95),
            r"confidence: expected a share strictly between 0 and 1, got 95",
        ),
        (
            lambda: Threshold.certify(U[:9], WRONG[:9], target_risk=0.1),
            r"uncertainty: expected at least 10 cases, or blocks of cases, got 9",
        ),
        (
            lambda: Threshold.certify(U, WRONG, target_risk=0.1, blocks=np.arange(400) % 4),
            r"uncertainty: expected at least 10 cases, or blocks of cases, got 4",
        ),
        (
            lambda: Threshold.certify(U, WRONG, target_risk=0.1, blocks=np.ones(400)),
            r"blocks: expected at least 2 blocks",
        ),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        call()
