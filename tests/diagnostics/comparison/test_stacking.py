from __future__ import annotations

import numpy as np
import pytest

from pyro_vdn.diagnostics import pseudo_bma_weights, stacking_weights
from pyro_vdn.errors import InputError


def made(rows: int, fits: int, *, seed: int = 0) -> np.ndarray:
    """Log densities of rows that are easy or hard for all, and for each by itself."""
    generator = np.random.default_rng(seed)
    own = generator.normal(size=(rows, fits)) + np.linspace(0.0, 0.4, fits)
    return own + 30.0 * generator.normal(size=(rows, 1))


def score(log_densities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean log density of mixtures, weights `(..., fits)`, up to a constant."""
    scaled = np.exp(log_densities - log_densities.max(axis=1, keepdims=True))
    found: np.ndarray = np.log(scaled @ weights[..., None])[..., 0].mean(axis=-1)
    return found


def test_weights_are_those_of_a_search_through_a_grid() -> None:
    densities = made(60, 3)
    steps = np.linspace(0, 1, 101)
    grid = np.array([(a, b, 1 - a - b) for a in steps for b in steps if a + b <= 1 + 1e-9])
    best = grid[score(densities, grid.clip(0)[:, None, :]).argmax()]
    assert stacking_weights(densities) == pytest.approx(best, abs=0.01)


@pytest.mark.parametrize(("rows", "fits"), [(50, 2), (20, 5), (2000, 4)])
def test_no_fit_could_gain_weight(rows: int, fits: int) -> None:
    """The conditions of the optimum: `mean_i p_k / p <= 1`, with equality where `w_k > 0`."""
    densities = made(rows, fits)
    weights = stacking_weights(densities)
    scaled = np.exp(densities - densities.max(axis=1, keepdims=True))
    gains = (scaled / (scaled @ weights)[:, None]).mean(axis=0)
    assert weights.sum() == pytest.approx(1.0)
    assert weights.min() >= 0.0
    assert gains.max() < 1 + 1e-6
    assert gains[weights > 1e-4] == pytest.approx(1.0, abs=1e-4)


def test_equal_fits_share_and_a_useless_one_has_nothing() -> None:
    one = made(200, 1)
    both = stacking_weights(np.hstack([one, one, one - 1.0]))
    assert both == pytest.approx([0.5, 0.5, 0.0], abs=1e-4)


def test_fits_that_know_different_rows_are_mixed_where_pseudo_bma_takes_one() -> None:
    wide = np.where(np.arange(200) < 110, -1.0, -5.0)
    densities = np.stack([wide, -6.0 - wide], axis=1)
    assert stacking_weights(densities)[0] == pytest.approx(0.55, abs=0.01)
    assert pseudo_bma_weights(densities)[0] == pytest.approx(1.0)


def test_pseudo_bma_is_the_softmax_of_sums() -> None:
    densities = 0.05 * made(40, 3)
    total = np.exp(densities.sum(axis=0) - densities.sum(axis=0).max())
    assert pseudo_bma_weights(densities) == pytest.approx(total / total.sum())


@pytest.mark.parametrize("weigh", [stacking_weights, pseudo_bma_weights])
def test_a_row_of_numbers_is_refused(weigh: object) -> None:
    with pytest.raises(InputError, match=r"log_densities: expected a non-empty array of shape"):
        weigh(np.zeros(5))  # type: ignore[operator]
