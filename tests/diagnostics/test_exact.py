from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from pyro_vdn.diagnostics._exact import (
    beta_cdf,
    binomial_cdf,
    proportion_interval,
    rank_interval,
    student_quantile,
)


def test_the_incomplete_beta_function_is_that_of_scipy() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.gamma(1.0, size=(2, 400)) * np.exp(generator.uniform(-3, 8, size=(2, 400)))
    x = generator.uniform(size=400)
    x[200:] = generator.beta(a[200:], b[200:])  # where it is neither 0 nor 1
    np.testing.assert_allclose(beta_cdf(x, a, b), special.betainc(a, b, x), atol=1e-10)
    assert beta_cdf([0.0, 1.0], 2.5, 0.5).tolist() == [0.0, 1.0]


def test_binomial_tails_are_those_of_scipy() -> None:
    generator = np.random.default_rng(1)
    trials = generator.integers(1, 3_000, size=200)
    hits = np.floor((trials + 1) * generator.uniform(size=200))
    chance = generator.uniform(size=200)
    expected = stats.binom.cdf(hits, trials, chance)
    np.testing.assert_allclose(binomial_cdf(hits, trials, chance), expected, atol=1e-11)
    assert binomial_cdf(0, 0, 0.3) == 1.0


@pytest.mark.parametrize("tail", [0.1, 0.003])
def test_the_interval_of_a_chance_is_clopper_and_pearsons(tail: float) -> None:
    hits = np.arange(31.0).reshape(1, 31)
    lower, upper = proportion_interval(hits, 30, tail)
    for k in range(31):
        exact = stats.binomtest(k, 30).proportion_ci(1 - 2 * tail, method="exact")
        assert (lower[0, k], upper[0, k]) == pytest.approx((exact.low, exact.high), abs=1e-12)


@pytest.mark.parametrize("freedom", [1, 4, 31, 5_000])
@pytest.mark.parametrize("tail", [0.4, 0.025, 1e-4])
def test_students_quantile_is_that_of_scipy(freedom: int, tail: float) -> None:
    assert student_quantile(tail, freedom) == pytest.approx(stats.t.isf(tail, freedom), rel=1e-9)


@pytest.mark.parametrize("draws", [5, 64, 1_001])
@pytest.mark.parametrize("level", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("tail", [0.1, 0.002])
def test_ranks_are_the_narrowest_that_miss_seldom_enough(
    draws: int, level: float, tail: float
) -> None:
    lower, upper = rank_interval(draws, level, tail)
    below = stats.binom(draws, level)
    # The quantile is under draw `lower` if fewer than `lower` draws are under it.
    assert below.cdf(lower - 1) <= tail < below.cdf(lower)
    assert below.sf(upper - 1) <= tail < below.sf(upper - 2)
