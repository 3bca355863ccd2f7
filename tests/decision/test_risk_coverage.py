from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from pyro_vdn.decision import RiskCoverage, aurc, e_aurc, risk_coverage
from pyro_vdn.errors import InputError


def cases(count: int, *, seed: int = 0, levels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    uncertainty = generator.normal(size=count)
    if levels is not None:
        uncertainty = np.floor(levels * generator.uniform(size=count))
    return uncertainty, generator.gamma(1.0, 2.0, size=count)


def over_all_orders(uncertainty: np.ndarray, risk: np.ndarray) -> np.ndarray:
    """Average the curves of every order of the cases that the uncertainty allows."""
    curves = [
        np.cumsum(risk[list(order)]) / np.arange(1, len(risk) + 1)
        for order in itertools.permutations(range(len(risk)))
        if (np.diff(uncertainty[list(order)]) >= 0).all()
    ]
    return np.mean(curves, axis=0)


@pytest.mark.parametrize("levels", [None, 1, 2, 3])
def test_the_curve_is_the_expectation_over_orders(levels: int | None) -> None:
    uncertainty, risk = cases(6, levels=levels)
    expected = over_all_orders(uncertainty, risk)
    curve = risk_coverage(torch.tensor(uncertainty), torch.tensor(risk))
    np.testing.assert_allclose(curve.coverage, np.arange(1, 7) / 6)
    np.testing.assert_allclose(curve.risk, expected)
    np.testing.assert_allclose(curve.threshold, np.sort(uncertainty))
    assert curve.aurc == pytest.approx(expected.mean()) == pytest.approx(aurc(uncertainty, risk))
    oracle = over_all_orders(risk, risk).mean()
    assert curve.oracle == pytest.approx(oracle)
    assert curve.e_aurc == pytest.approx(expected.mean() - oracle)
    assert e_aurc(uncertainty, risk) == pytest.approx(curve.e_aurc)


def test_closed_forms() -> None:
    _, risk = cases(4_000)
    constant = risk_coverage(np.zeros(4_000), risk)
    np.testing.assert_allclose(constant.risk, risk.mean())
    assert constant.aurc == pytest.approx(risk.mean())
    random = np.random.default_rng(1).uniform(size=4_000)
    assert aurc(random, risk) == pytest.approx(risk.mean(), abs=0.1)
    assert e_aurc(risk, risk) == 0.0
    assert e_aurc(np.exp(risk), risk) == pytest.approx(0.0, abs=1e-12)  # only the order counts
    assert aurc(-risk, risk) > 2 * risk.mean() > 2 * aurc(risk, risk)
    # 0/1 errors, all of them last: 1/n * sum over the errors j of j / (n - m + j).
    wrong = np.r_[np.zeros(70), np.ones(30)]
    tail = sum(j / (70 + j) for j in range(1, 31)) / 100
    assert aurc(wrong + np.linspace(0, 0.1, 100), wrong) == pytest.approx(tail)
    assert aurc([3.0], [0.7]) == 0.7


def test_the_curve_can_be_read_both_ways() -> None:
    curve = risk_coverage([1.0, 2.0, 3.0, 4.0], [0.0, 2.0, 1.0, 5.0])
    np.testing.assert_allclose(curve.risk, [0, 1, 1, 2])
    assert curve.selective_risk_at(1.0) == 2.0
    assert curve.selective_risk_at(0.5) == 1.0
    assert curve.selective_risk_at(0.875) == 1.5
    assert curve.selective_risk_at(0.01) == 0.0
    assert [curve.coverage_at(r) for r in (-1.0, 0.0, 1.0, 1.9, 2.0)] == [0, 0.25, 0.75, 0.75, 1]


def test_fewer_points_lie_on_the_same_curve() -> None:
    uncertainty, risk = cases(1_000, levels=50)
    fine, coarse = (risk_coverage(uncertainty, risk, points=p) for p in (None, 40))
    np.testing.assert_allclose(coarse.coverage, fine.coverage[24::25])
    np.testing.assert_allclose(coarse.risk, fine.risk[24::25])
    np.testing.assert_allclose(coarse.threshold, fine.threshold[24::25])
    assert (coarse.aurc, coarse.oracle) == (fine.aurc, fine.oracle)


def test_float32_scores_are_added_up_in_double() -> None:
    uncertainty, risk = cases(50_000)
    risk32 = torch.tensor(risk).float()
    exact = aurc(uncertainty, risk32.double())
    assert aurc(torch.tensor(uncertainty), risk32) == pytest.approx(exact, rel=1e-12)


def test_the_band_is_that_of_resampled_cases() -> None:
    uncertainty, risk = cases(40, levels=12)
    blocks = np.repeat(["a", "b", "c", "d", "e"], [3, 9, 8, 13, 7])
    curve = risk_coverage(
        uncertainty, risk, points=8, blocks=blocks, resamples=50, level=0.8, seed=3
    )
    names, generator = np.unique(blocks), np.random.default_rng(3)
    curves, areas = [], []
    for _ in range(50):
        drawn = [np.flatnonzero(blocks == names[i]) for i in generator.integers(5, size=5)]
        index = np.concatenate(drawn)
        again = risk_coverage(uncertainty[index], risk[index])
        areas.append(again.aurc)
        steps = np.r_[0, again.coverage], np.r_[0, again.coverage * again.risk]
        curves.append(np.interp(curve.coverage, *steps) / curve.coverage)
    assert curve.lower is not None
    assert curve.upper is not None
    np.testing.assert_allclose(curve.lower, np.quantile(curves, 0.1, axis=0))
    np.testing.assert_allclose(curve.upper, np.quantile(curves, 0.9, axis=0))
    expected = (aurc(uncertainty, risk), np.quantile(areas, 0.1), np.quantile(areas, 0.9))
    assert curve.interval == pytest.approx(expected)
    assert risk_coverage(uncertainty, risk).interval is None


def curve() -> RiskCoverage:
    return risk_coverage([1.0, 2.0], [0.0, 1.0])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: aurc([1.0, 2.0], [1.0]), r"risk: expected 2 values, one per case .* got 1"),
        (lambda: aurc([], []), r"uncertainty: expected a non-empty array of shape \(cases,\)"),
        (lambda: aurc([[1.0]], [1.0]), r"uncertainty: .* shape \(cases,\), got shape \(1, 1\)"),
        (lambda: e_aurc([1.0], [np.nan]), r"risk: expected finite values, got nan at \(0,\)"),
        (lambda: risk_coverage([1.0], [1.0], points=0), r"points: expected at least 1, got 0"),
        (lambda: risk_coverage([1.0], [1.0], resamples=-1), r"resamples: expected 0 .* got -1"),
        (lambda: risk_coverage([1.0], [1.0], resamples=1), r"resamples: expected at least 2"),
        (
            lambda: risk_coverage([1.0], [1.0], resamples=9, level=95.0),
            r"level: expected a share strictly between 0 and 1, got 95.0",
        ),
        (
            lambda: risk_coverage([1.0, 2.0], [1.0, 2.0], resamples=9, blocks=[1]),
            r"blocks: expected shape \(2,\), one for each observation, got shape \(1,\)",
        ),
        (
            lambda: risk_coverage([1.0, 2.0], [1.0, 2.0], resamples=9, blocks=[1, 1]),
            r"blocks: expected at least 2 blocks, .* got one label for all cases",
        ),
        (lambda: curve().selective_risk_at(0.0), r"coverage: expected a share above 0 .* 0.0"),
        (lambda: curve().selective_risk_at(80), r"coverage: expected a share above 0 .* 80"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
