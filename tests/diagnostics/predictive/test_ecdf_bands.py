from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
import torch

from pyro_vdn.diagnostics import ecdf_band
from pyro_vdn.diagnostics.predictive._uniform_counts import probability_below
from pyro_vdn.errors import InputError


@pytest.mark.parametrize("ranks", [None, 4, 11], ids=["continuous", "4 ranks", "11 ranks"])
@pytest.mark.parametrize("count", [10, 60, 500])
def test_uniform_values_stay_inside_as_often_as_stated(count: int, ranks: int | None) -> None:
    band, rng = ecdf_band(count, level=0.9, ranks=ranks), np.random.default_rng(count)
    sets = rng.random((400, count)) if ranks is None else rng.integers(0, ranks, (400, count))
    inside = [band.inside(values) for values in sets]
    assert 0.9 <= band.coverage < (0.905 if ranks is None else 0.945)
    assert scipy.stats.binomtest(sum(inside), len(inside), band.coverage).pvalue > 0.005
    agree = [band.p_value(values) > 1 - band.coverage + 1e-12 for values in sets[:20]]
    assert agree == inside[:20]


def test_p_values_of_uniform_values_are_uniform() -> None:
    band, rng = ecdf_band(200, points=30), np.random.default_rng(0)
    found = [band.p_value(values) for values in rng.random((150, 200))]
    assert scipy.stats.kstest(found, "uniform").pvalue > 0.01


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_recursion_is_the_sum_over_all_outcomes(count: int) -> None:
    points = np.array([0.2, 0.5, 0.9])
    cells = np.diff(np.r_[0.0, points, 1.0])
    lower, upper = np.array([0, 1, 1]), np.array([1, 2, count])
    total = 0.0
    for places in itertools.product(range(4), repeat=count):  # the cell of each value
        below = np.array([sum(place <= at for place in places) for at in range(3)])
        if ((lower <= below) & (below <= upper)).all():
            total += float(np.prod(cells[list(places)]))
    assert probability_below(count, points, lower, upper) == pytest.approx(total, rel=1e-12)


def test_long_convolutions_agree_with_a_single_binomial() -> None:
    count, points = 400_000, np.array([0.3, 0.6])
    lower, upper = np.array([119_500, 0]), np.array([120_700, count])
    law = scipy.stats.binom(count, 0.3)
    expected = law.cdf(120_700) - law.cdf(119_499)
    assert probability_below(count, points, lower, upper) == pytest.approx(expected, abs=1e-9)


def test_one_point_is_a_binomial_interval() -> None:
    band = ecdf_band(100, points=1)
    low, high = scipy.stats.binom(100, 0.5).interval(0.95)
    assert (band.lower[0], band.upper[0]) == (low / 100, high / 100)
    assert band.coverage == pytest.approx(
        scipy.stats.binom(100, 0.5).cdf([low - 1, high]) @ [-1, 1]
    )
    assert band.p_value(np.repeat([0.2, 0.8], [40, 60])) == pytest.approx(
        scipy.stats.binomtest(40, 100).pvalue
    )


def test_ecdf_counts_values_at_or_below_and_ranks_below() -> None:
    band = ecdf_band(4, points=3)
    np.testing.assert_allclose(band.ecdf([0.25, 0.3, 0.5, 0.9]), [0.25, 0.75, 0.75])
    np.testing.assert_allclose(band.difference([0.25, 0.3, 0.5, 0.9]), [0.0, 0.25, 0.0])
    ranked = ecdf_band(4, ranks=5)
    np.testing.assert_allclose(ranked.points, [0.2, 0.4, 0.6, 0.8])
    np.testing.assert_allclose(ranked.ecdf(torch.tensor([0, 2, 2, 4])), [0.25, 0.25, 0.75, 0.75])


def test_differences_are_ends_less_points() -> None:
    band = ecdf_band(80)
    np.testing.assert_allclose(band.lower_difference + band.points, band.lower)
    np.testing.assert_allclose(band.upper_difference + band.points, band.upper)
    assert (band.lower_difference < 0).all()
    assert (band.upper_difference > 0).all()


@pytest.mark.parametrize("count", [30, 300])
def test_a_band_is_the_same_from_either_end(count: int) -> None:
    band = ecdf_band(count)
    np.testing.assert_allclose(band.lower_difference, -band.upper_difference[::-1], atol=1e-12)


@pytest.mark.parametrize(("ranks", "points"), [(1000, 99), (100, 99), (3, 2)])
def test_many_ranks_are_looked_at_in_few_places(ranks: int, points: int) -> None:
    band = ecdf_band(50, ranks=ranks)
    assert len(band.points) == points
    np.testing.assert_allclose(band.points * ranks, np.rint(band.points * ranks), atol=1e-9)


def test_values_that_repeat_are_judged_by_their_number_of_independent_ones() -> None:
    values = np.random.default_rng(3).beta(1.0, 1.3, 120)
    single, again = ecdf_band(120), np.repeat(values, 10)
    assert single.p_value(again) == single.p_value(values)
    assert ecdf_band(1200).p_value(again) < 1e-6 < single.p_value(values)


@pytest.mark.parametrize(("shape", "p_value"), [((1.0, 1.0), 1.0), ((2.0, 2.0), 1e-6)])
def test_values_that_are_not_uniform_leave(shape: tuple[float, float], p_value: float) -> None:
    values = scipy.stats.beta(*shape).ppf((np.arange(400) + 0.5) / 400)
    assert ecdf_band(400).inside(values) == (p_value == 1.0)
    assert ecdf_band(400).p_value(values) <= p_value


def test_a_band_is_handed_out_again_and_cannot_be_changed() -> None:
    assert ecdf_band(30) is ecdf_band(30)
    with pytest.raises(ValueError, match="read-only"):
        ecdf_band(30).lower[0] = 0.0


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: ecdf_band(0), r"count: expected at least 1, got 0"),
        (lambda: ecdf_band(9, level=1.0), r"level: expected a share .* got 1.0"),
        (lambda: ecdf_band(9, ranks=1), r"ranks: expected at least 2, got 1"),
        (lambda: ecdf_band(9, points=0), r"points: expected at least 1, got 0"),
        (lambda: ecdf_band(9).inside([0.5] * 8), r"values: expected at least 9.* got 8"),
        (lambda: ecdf_band(2).inside([0.5, 1.5]), r"values: .*\[0, 1\], got 1.5 at \(1,\)"),
        (lambda: ecdf_band(2).inside([0.5, np.nan]), r"values: .*\[0, 1\], got nan"),
        (lambda: ecdf_band(2, ranks=5).inside([0, 5]), r"values: .*ranks 0, ..., 4, got 5.0"),
        (lambda: ecdf_band(2, ranks=5).inside([0, 0.5]), r"values: .*ranks 0, ..., 4, got 0.5"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
