from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from pyro_vdn.decision import Mean, Probability, Quantile
from pyro_vdn.errors import InputError

DRAWS = np.random.default_rng(0).gamma(2.0, size=(40, 3, 2))


def test_the_mean_has_students_interval() -> None:
    found = Mean().measure(DRAWS, 0.01)
    error = stats.sem(DRAWS, axis=0)
    expected = stats.t.interval(0.98, 39, loc=DRAWS.mean(0), scale=error)
    np.testing.assert_allclose([found.lower, found.upper], expected)
    np.testing.assert_allclose(found.error, error)
    np.testing.assert_allclose(found.value, DRAWS.mean(0))


def test_a_bounded_mean_has_maurer_and_pontils() -> None:
    found = Mean(-1.0, 240.0).measure(200 + DRAWS, 0.01)
    room = math.log(200)
    half = np.sqrt(2 * DRAWS.var(0, ddof=1) * room / 40) + 7 * 241 * room / (3 * 39)
    np.testing.assert_allclose(found.lower, 200 + DRAWS.mean(0) - half)
    assert (found.upper == 240.0).all()


def test_equal_draws_set_no_interval_unless_they_are_bounded() -> None:
    draws = np.stack([np.zeros(40), np.arange(40.0)], axis=1)
    free, bounded = Mean().measure(draws, 0.01), Mean(0.0, 39.0).measure(draws, 0.01)
    assert np.isinf([free.lower, free.upper]).tolist() == [[True, False], [True, False]]
    assert np.isfinite([bounded.lower, bounded.upper]).all()


def test_a_probability_has_clopper_and_pearsons() -> None:
    found = Probability(1.5).measure(DRAWS, 0.02)
    hits = (DRAWS > 1.5).sum(0)
    np.testing.assert_allclose(found.value, hits / 40)
    np.testing.assert_allclose(found.error, np.sqrt(hits * (40 - hits) / 40**3))
    for place, k in np.ndenumerate(hits):
        exact = stats.binomtest(int(k), 40).proportion_ci(0.96, method="exact")
        assert (found.lower[place], found.upper[place]) == pytest.approx((exact.low, exact.high))


def test_a_quantile_lies_between_draws() -> None:
    found = Quantile(0.8).measure(DRAWS, 0.05)
    ordered, below = np.sort(DRAWS, axis=0), stats.binom(40, 0.8)
    np.testing.assert_allclose(found.value, np.quantile(DRAWS, 0.8, axis=0))
    np.testing.assert_array_equal(found.lower, ordered[int(below.ppf(0.05)) - 1])
    np.testing.assert_array_equal(found.upper, ordered[int(below.ppf(0.95))])


def test_too_few_draws_set_no_bound() -> None:
    found = Quantile(0.9).measure(DRAWS[:5], 0.05)
    assert (found.upper == np.inf).all()
    assert np.isfinite(found.lower).all()
    assert (Quantile(0.1).measure(DRAWS[:5], 0.05).lower == -np.inf).all()


def test_the_error_of_a_quantile_is_that_of_many_samples() -> None:
    draws = np.random.default_rng(1).normal(size=(400, 500))
    found = Quantile(0.75).measure(draws, 0.05)
    assert found.error.mean() == pytest.approx(found.value.std(), rel=0.1)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: Mean(0.0), r"low, high: expected two bounds, .* got 0.0, None"),
        (lambda: Mean(1.0, 1.0), r"low, high: expected two bounds, the lower one first, or none"),
        (
            lambda: Mean(0.0, 1.0).measure(DRAWS, 0.1),
            r"sample: expected draws from 0.0 to 1.0, as Mean says, got from",
        ),
        (lambda: Quantile(90), r"level: expected a level strictly between 0 and 1, got 90"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        call()
