from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
import torch

from pyro_vdn.diagnostics import histogram_band
from pyro_vdn.diagnostics.predictive._uniform_counts import probability_in_bins
from pyro_vdn.errors import InputError


@pytest.mark.parametrize(("count", "ranks"), [(40, None), (300, None), (300, 101), (60, 3)])
def test_bars_of_uniform_values_stay_inside_as_often_as_stated(
    count: int, ranks: int | None
) -> None:
    band, rng = histogram_band(count, bins=10, level=0.9, ranks=ranks), np.random.default_rng(0)
    sets = rng.random((800, count)) if ranks is None else rng.integers(0, ranks, (800, count))
    heights = np.stack([band.heights(values) for values in sets])
    inside = ((band.lower - 1e-9 <= heights) & (heights <= band.upper + 1e-9)).all(1)
    assert 0.9 <= band.coverage < 0.955
    assert scipy.stats.binomtest(int(inside.sum()), 800, band.coverage).pvalue > 0.005
    np.testing.assert_allclose(heights.mean(0), 1.0, atol=0.06)


def test_the_probability_is_the_sum_over_all_outcomes() -> None:
    shares, lower, upper = np.array([0.2, 0.5, 0.3]), np.array([0, 1, 1]), np.array([2, 3, 2])
    total = sum(
        float(scipy.stats.multinomial(4, shares).pmf(counts))
        for counts in itertools.product(range(5), repeat=3)
        if sum(counts) == 4 and ((lower <= counts) & (counts <= upper)).all()
    )
    assert probability_in_bins(4, shares, lower, upper) == pytest.approx(total, rel=1e-12)
    assert probability_in_bins(4, shares, lower + 2, upper + 2) == 0.0


def test_ranks_are_not_cut_and_have_at_most_one_bin_each() -> None:
    band = histogram_band(100, bins=20, ranks=33)
    np.testing.assert_allclose(band.edges * 33, np.rint(band.edges * 33), atol=1e-9)
    np.testing.assert_allclose(band.heights(torch.arange(33).repeat(4)), 1.0)
    assert len(histogram_band(100, bins=20, ranks=4).lower) == 4


@pytest.mark.parametrize(("count", "ranks", "bins"), [(10, 3, 2), (20, 3, 2), (9, None, 4)])
def test_no_wider_cut_leaves_the_level(count: int, ranks: int | None, bins: int) -> None:
    band = histogram_band(count, bins=bins, level=0.9, ranks=ranks)
    shares = np.diff(band.edges)
    law = [scipy.stats.binom(count, share) for share in shares]
    k = np.arange(count + 1)
    every = np.concatenate([np.r_[one.cdf(k), one.sf(k - 1)] for one in law])
    found = []
    for tail in np.unique(every) * (1 + 1e-9):
        lower = np.array([int((one.cdf(k) <= tail).sum()) for one in law])
        upper = np.array([int((one.sf(k - 1) > tail).sum()) - 1 for one in law])
        found.append(probability_in_bins(count, shares, lower, upper))
    assert band.coverage == pytest.approx(min(one for one in found if one >= 0.9))


@pytest.mark.parametrize("ranks", [None, 60])
def test_equal_bins_have_equal_bands(ranks: int | None) -> None:
    band = histogram_band(200, bins=20, ranks=ranks)
    assert len(set(band.lower)) == len(set(band.upper)) == 1


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: histogram_band(0), r"count: expected at least 1, got 0"),
        (lambda: histogram_band(9, bins=1), r"bins: expected at least 2, got 1"),
        (lambda: histogram_band(9, ranks=1), r"ranks: expected at least 2, got 1"),
        (lambda: histogram_band(2).heights([0.5, 2.0]), r"values: .*2.0 at \(1,\)"),
        (lambda: histogram_band(9, level=0.0), r"level: .* got 0.0"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
