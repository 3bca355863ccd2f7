from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from pyro_vdn.diagnostics import CHECK_STATISTICS, OfSeries, autocorrelation, roughness
from pyro_vdn.diagnostics.predictive.check_statistics import quantile
from pyro_vdn.errors import InputError

GAPS = 0.3


def values(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).exp()


def with_gaps(of: Tensor) -> Tensor:
    gaps = torch.rand(of.shape, generator=torch.Generator().manual_seed(2)) < GAPS
    return of.masked_fill(gaps, torch.nan)


def autocorrelation_by_loop(y: np.ndarray, lag: int) -> float:
    centre = np.nanmean(y)
    pairs = [
        (y[t] - centre) * (y[t + lag] - centre)
        for t in range(len(y) - lag)
        if not np.isnan(y[t]) and not np.isnan(y[t + lag])
    ]
    return float(np.mean(pairs) / np.nanmean((y - centre) ** 2))


def roughness_by_loop(y: np.ndarray) -> float:
    found = [(y[t + 1] - 2 * y[t] + y[t - 1]) ** 2 for t in range(1, len(y) - 1)]
    return float(np.nanmean(found))


REFERENCES: dict[str, Any] = {
    "mean": np.nanmean,
    "sd": partial(np.nanstd, ddof=1),
    "skewness": partial(scipy.stats.skew, nan_policy="omit"),
    "kurtosis": partial(scipy.stats.kurtosis, nan_policy="omit"),
    "min": np.nanmin,
    "q05": partial(np.nanquantile, q=0.05),
    "median": np.nanmedian,
    "q95": partial(np.nanquantile, q=0.95),
    "max": np.nanmax,
    "zero_share": lambda y: np.mean(y[~np.isnan(y)] == 0),
    "autocorrelation": partial(autocorrelation_by_loop, lag=1),
    "roughness": roughness_by_loop,
}


def test_every_statistic_has_a_reference() -> None:
    assert set(REFERENCES) == set(CHECK_STATISTICS)


@pytest.mark.parametrize("name", CHECK_STATISTICS)
@pytest.mark.parametrize("gaps", [False, True], ids=["complete", "with gaps"])
def test_statistics_equal_their_references(name: str, gaps: bool) -> None:
    y = values(3, 2, 40).round(decimals=1) - 0.5
    y = with_gaps(y) if gaps else y
    found = CHECK_STATISTICS[name](y)
    assert found.dtype == torch.float64
    expected = [[REFERENCES[name](one) for one in row] for row in y.numpy()]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("name", sorted(set(CHECK_STATISTICS) - {"roughness", "autocorrelation"}))
def test_statistics_of_nothing_are_undefined(name: str) -> None:
    statistic = CHECK_STATISTICS[name]
    assert bool(statistic(torch.full((2, 5), torch.nan)).isnan().all())


@pytest.mark.parametrize("name", ["sd", "skewness", "kurtosis"])
def test_spread_and_shape_of_one_value_are_undefined(name: str) -> None:
    assert bool(CHECK_STATISTICS[name](torch.tensor([1.0, torch.nan])).isnan())


def test_autocorrelation_and_roughness_of_what_does_not_allow_them_are_undefined() -> None:
    assert bool(autocorrelation(torch.ones(9)).isnan())
    assert bool(roughness(torch.tensor([1.0, torch.nan, 2.0, 3.0])).isnan())


@pytest.mark.parametrize("lag", [1, 3, 12])
def test_autocorrelation_at_any_lag(lag: int) -> None:
    y = with_gaps(values(60))
    expected = autocorrelation_by_loop(y.numpy(), lag)
    assert float(autocorrelation(y, lag)) == pytest.approx(expected)
    assert float(OfSeries(partial(autocorrelation, lag=lag))(y)) == pytest.approx(expected)


@pytest.mark.parametrize("level", [0.0, 0.37, 1.0])
def test_quantile_at_any_level(level: float) -> None:
    y = with_gaps(values(4, 30))
    np.testing.assert_allclose(quantile(y, level), np.nanquantile(y.numpy(), level, axis=-1))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: quantile(torch.zeros(3), 1.1), r"level: expected a share in \[0, 1\], got 1.1"),
        (lambda: autocorrelation(torch.zeros(3), 0), r"lag: expected from 1 to 2.* got 0"),
        (lambda: autocorrelation(torch.zeros(3), 3), r"lag: expected from 1 to 2.* got 3"),
        (lambda: roughness(torch.zeros(2)), r"series: expected at least three steps, got 2"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
