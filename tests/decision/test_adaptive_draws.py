from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from pyro_vdn.decision import Mean, Probability, Quantile, Quantity, adaptive_draws
from pyro_vdn.errors import InputError


class Bank:
    """Draws that were made beforehand, handed out row by row."""

    def __init__(self, draws: np.ndarray) -> None:
        self.draws, self.given = draws, np.zeros(draws.shape[1], dtype=int)

    def __call__(self, rows: np.ndarray, count: int) -> torch.Tensor:
        found = [self.draws[self.given[row] : self.given[row] + count, row] for row in rows]
        self.given[rows] += count
        return torch.tensor(np.stack(found, axis=1))


def spread(rows: int, draws: int, inner: tuple[int, ...] = ()) -> np.ndarray:
    """Make draws of rows that vary more and more."""
    noise = np.random.default_rng(0).normal(size=(draws, rows, *inner))
    scale = np.geomspace(0.1, 3.0, rows)
    return scale.reshape(-1, *([1] * len(inner))) * noise


def test_each_row_stops_where_it_would_alone() -> None:
    draws = spread(12, 400, (2,))
    bank = Bank(draws)
    found = adaptive_draws(
        bank, 12, tolerance=0.3, threshold=0.2, confidence=0.9, start=20, most=400, growth=2.0
    )
    assert found.looks == (20, 37, 67, 121, 220, 400)
    tail = 0.05 / 6
    for row in range(12):
        for look in found.looks:
            part = draws[:look, row]
            middle, half = part.mean(0), stats.t.isf(tail, look - 1) * stats.sem(part)
            if ((half <= 0.3) | (abs(middle - 0.2) > half)).all():
                break
        done = ((half <= 0.3) | (abs(middle - 0.2) > half)).all()
        assert (found.draws[row], found.settled[row]) == (look, done)
        np.testing.assert_allclose(found.estimate[row], middle)
        np.testing.assert_allclose(found.upper[row] - found.lower[row], 2 * half)
        np.testing.assert_allclose(found.standard_error[row], stats.sem(part))
    np.testing.assert_array_equal(bank.given, found.draws)  # no draw is made in vain
    assert not found.settled.all()
    assert found.saved == pytest.approx(1 - found.draws.mean() / 400)
    assert 0.3 < found.saved < 0.9


def drawn(kind: str) -> Callable[[np.ndarray, int], np.ndarray]:
    generator = np.random.default_rng(1)
    if kind == "normal":
        return lambda rows, count: generator.normal(size=(count, len(rows)))
    return lambda rows, count: generator.beta(0.5, 1.5, size=(count, len(rows)))


@pytest.mark.parametrize(
    ("kind", "quantity", "truth"),
    [
        ("normal", Mean(), 0.0),
        ("normal", Probability(1.0), stats.norm.sf(1.0)),
        ("normal", Quantile(0.9), stats.norm.isf(0.1)),
        ("beta", Mean(0.0, 1.0), 0.25),
    ],
)
def test_looking_often_errs_no_more_often_than_stated(
    kind: str, quantity: Quantity, truth: float
) -> None:
    # The truth lies at the threshold, so that whatever settles is wrong.
    found = adaptive_draws(
        drawn(kind), 300, quantity=quantity, threshold=truth, confidence=0.9, most=150
    )
    assert found.settled.mean() <= 0.1 + 2.5 * np.sqrt(0.1 * 0.9 / 300)
    stopped = (found.lower > truth) | (found.upper < truth)
    np.testing.assert_array_equal(found.settled, stopped)


def test_rows_that_need_few_draws_save_them() -> None:
    scale = np.geomspace(0.1, 3.0, 100)
    generator = np.random.default_rng(2)
    found = adaptive_draws(
        lambda rows, count: generator.normal(scale=scale[rows], size=(count, len(rows))),
        100,
        tolerance=0.3,
        most=2_000,
    )
    assert found.settled.all()
    assert (abs(found.estimate) > 0.3).mean() <= 0.05
    # One number for all rows that serves the widest: (1.96 * 3 / 0.3)^2.
    assert found.draws.mean() < 0.5 * (stats.norm.isf(0.025) * 3.0 / 0.3) ** 2
    assert stats.spearmanr(found.draws, scale)[0] > 0.9


def test_one_look_is_a_fixed_number() -> None:
    found = adaptive_draws(drawn("normal"), 5, tolerance=1e-9, start=50, most=50)
    assert (found.looks, found.saved) == ((50,), 0.0)
    assert not found.settled.any()


SAMPLE = drawn("normal")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: adaptive_draws(SAMPLE, 3), r"tolerance, threshold: expected at least one"),
        (lambda: adaptive_draws(SAMPLE, 3, tolerance=0.0), r"tolerance: expected above 0, got 0"),
        (
            lambda: adaptive_draws(SAMPLE, 3, threshold=0.0, confidence=95),
            r"confidence: expected a share strictly between 0 and 1, got 95",
        ),
        (
            lambda: adaptive_draws(SAMPLE, 3, threshold=0.0, start=1),
            r"start, most: expected at least 2 draws at the start, .* got 1, 1024",
        ),
        (
            lambda: adaptive_draws(SAMPLE, 3, threshold=0.0, most=31),
            r"start, most: .* got 32, 31",
        ),
        (
            lambda: adaptive_draws(SAMPLE, 3, threshold=0.0, growth=1.0),
            r"growth: expected above 1, got 1.0",
        ),
        (lambda: adaptive_draws(SAMPLE, 0, threshold=0.0), r"rows: expected a positive integer"),
        (
            lambda: adaptive_draws(lambda r, n: np.zeros((len(r), n)), 3, threshold=0.0),
            r"sample: expected 32 draws of 3 rows, shape \(32, 3\), got shape \(3, 32\)",
        ),
        (
            lambda: adaptive_draws(lambda r, n: np.full((n, len(r)), np.nan), 3, threshold=0.0),
            r"sample: expected finite draws, got nan",
        ),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        call()
