from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from pyro_vdn.diagnostics.comparison.rank_correlation import rank_correlation
from pyro_vdn.errors import InputError

Array = NDArray[np.float64]


def blocks_of_pairs(
    blocks: int, *, seed: int, rounded: bool = False
) -> tuple[Array, Array, NDArray[np.intp]]:
    """Pairs of quantities, ten to a block, that share something with their block."""
    generator = np.random.default_rng(seed)
    shared = generator.normal(size=(blocks, 1))
    x = 0.7 * shared + generator.normal(size=(blocks, 10))
    y = 0.5 * x + 0.5 * shared + generator.normal(size=(blocks, 10))
    if rounded:
        x, y = np.round(x), (y > 0.8).astype(float)
    return x.ravel(), y.ravel(), np.repeat(np.arange(blocks), 10)


@pytest.mark.parametrize("rounded", [False, True])
def test_value_equals_scipy(rounded: bool) -> None:
    x, y, _ = blocks_of_pairs(20, seed=0, rounded=rounded)
    assert rank_correlation(x, y).value == pytest.approx(spearmanr(x, y).statistic)
    assert rank_correlation(x, -y).value == pytest.approx(-spearmanr(x, y).statistic)


@pytest.mark.parametrize("rounded", [False, True])
def test_interval_is_that_of_blocks_drawn_again(rounded: bool) -> None:
    x, y, members = blocks_of_pairs(80, seed=0, rounded=rounded)
    generator, drawn = np.random.default_rng(1), []
    for _ in range(250):
        chosen = generator.integers(80, size=80)
        at = (10 * chosen[:, None] + np.arange(10)).ravel()
        drawn.append(rank_correlation(x[at], y[at]).value)
    found = rank_correlation(x, y, blocks=members)
    width = np.subtract(*np.percentile(drawn, [97.5, 2.5]))
    assert found.high - found.low == pytest.approx(width, rel=0.2)
    alone = rank_correlation(x, y)
    assert alone.high - alone.low < 0.9 * width


def test_interval_holds_the_truth_as_often_as_it_says() -> None:
    truth = rank_correlation(*blocks_of_pairs(20_000, seed=1)[:2]).value
    held = 0
    for seed in range(150):
        x, y, members = blocks_of_pairs(60, seed=2 + seed)
        found = rank_correlation(x, y, blocks=members, level=0.8)
        held += found.low <= truth <= found.high
    assert 105 <= held <= 135  # 120 expected, 5 a standard deviation


def test_edges() -> None:
    x = np.arange(5.0)
    assert rank_correlation(x, x) == (1.0, 1.0, 1.0)
    assert all(math.isnan(value) for value in rank_correlation(x, np.ones(5)))
    assert math.isnan(rank_correlation(x, x[[1, 0, 3, 2, 4]], blocks=np.zeros(5)).low)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: rank_correlation([1.0, 2.0], [1.0]), r"y: expected shape \(2,\)"),
        (lambda: rank_correlation([1.0, 2.0], [1.0, 2.0], blocks=[0]), r"blocks: expected shape"),
        (lambda: rank_correlation([1.0, math.nan], [1.0, 2.0]), r"x: expected finite values"),
        (lambda: rank_correlation([1.0], [1.0], level=1.0), r"level: expected a share"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
