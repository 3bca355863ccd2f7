from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from pyro_vdn.decision import Combination
from pyro_vdn.errors import InputError

TRUE = {"entropy": 1.5, "kl": -0.5, "noise": 0.0}


def table(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    entropy = generator.gamma(2.0, size=count)
    kl = 10.0 + 5.0 * (entropy + generator.normal(size=count))  # features move together
    return {"entropy": entropy, "kl": kl, "noise": generator.normal(size=count)}


def standardised(features: dict[str, np.ndarray]) -> np.ndarray:
    columns = np.stack(list(features.values()), axis=1)
    return (columns - columns.mean(0)) / columns.std(0)


def errors(features: dict[str, np.ndarray], seed: int = 1) -> np.ndarray:
    eta = standardised(features) @ np.array(list(TRUE.values())) - 0.7
    return (np.random.default_rng(seed).uniform(size=len(eta)) < 1 / (1 + np.exp(-eta))) * 1.0


@pytest.mark.parametrize("ridge", [1e-6, 0.3])
def test_logistic_weights_are_the_minimum_that_a_stranger_finds(ridge: float) -> None:
    features = table(300)
    inputs, risk = standardised(features), errors(features)
    signs = 2 * risk - 1

    def loss(w: np.ndarray) -> float:
        eta = w[0] + inputs @ w[1:]
        return float(np.logaddexp(0, -signs * eta).mean() + ridge / 2 * (w[1:] ** 2).sum())

    expected = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-7}).x
    fitted = Combination.fit(features, risk, ridge=ridge)
    assert fitted.kind == "logistic"
    np.testing.assert_allclose(fitted.weights, expected, atol=1e-5)
    chance = 1 / (1 + np.exp(-(expected[0] + inputs @ expected[1:])))
    np.testing.assert_allclose(fitted.predict(features), chance, atol=1e-5)


def test_any_other_risk_is_fitted_by_least_squares() -> None:
    features = table(200)
    inputs = np.c_[np.ones(200), standardised(features)]
    risk = np.random.default_rng(2).gamma(1.0, np.exp(0.3 * inputs[:, 1]))
    fitted = Combination.fit(features, torch.tensor(risk), ridge=1e-12)
    assert fitted.kind == "linear"
    expected = np.linalg.lstsq(inputs, risk, rcond=None)[0]
    np.testing.assert_allclose(fitted.weights, expected, atol=1e-9)
    np.testing.assert_allclose(fitted.predict(features), inputs @ expected, atol=1e-8)
    # Sandwich by hand, case by case.
    inverse = np.linalg.inv(inputs.T @ inputs)
    meat = sum(np.outer(x, x) * e**2 for x, e in zip(inputs, risk - inputs @ expected, strict=True))
    by_hand = np.sqrt(np.diag(inverse @ meat @ inverse) * 200 / 199)
    np.testing.assert_allclose(fitted.standard_errors, by_hand, rtol=1e-6)


@pytest.mark.parametrize("kind", ["linear", "logistic"])
def test_standard_errors_tell_the_spread_over_data_sets(kind: str) -> None:
    blocks, found, told = np.repeat(np.arange(60), 10), [], []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        shared = generator.normal(size=(60, 1)) + np.zeros((60, 10))  # one value per sequence
        own, effect = generator.normal(size=(60, 10)), generator.normal(size=(60, 1))
        risk = (shared + own + 2 * effect + generator.normal(size=(60, 10))).ravel()
        if kind == "logistic":
            risk = (risk > 0) * 1.0
        features = {"shared": shared.ravel(), "own": own.ravel()}
        fitted = Combination.fit(features, risk, blocks=blocks)
        found.append(fitted.weights)
        told.append(fitted.standard_errors)
    ratio = np.mean(told, axis=0) / np.std(found, axis=0)
    assert (abs(ratio - 1) < 0.3).all()
    alone = Combination.fit(features, risk)
    assert alone.weights == fitted.weights
    assert fitted.coefficients["shared"].standard_error > (
        1.8 * alone.coefficients["shared"].standard_error
    )


def test_coefficients_tell_signal_from_noise() -> None:
    features = table(4_000)
    found = Combination.fit(features, errors(features)).coefficients
    assert list(found) == list(TRUE)
    for name, true in TRUE.items():
        assert abs(found[name].value - true) < 4 * found[name].standard_error
        assert found[name].standard_error < 0.1


def test_what_separates_the_errors_gets_finite_weights() -> None:
    x = np.linspace(-1.0, 1.0, 40)
    fitted = Combination.fit({"x": x, "twice": 2 * x}, (x > 0) * 1.0)
    chance = fitted.predict({"x": x, "twice": 2 * x})
    assert np.isfinite(fitted.weights).all()
    assert fitted.weights[1] == pytest.approx(fitted.weights[2])  # features that are the same one
    assert (chance[x > 0] > 0.95).all()
    assert (chance[x < 0] < 0.05).all()
    far = fitted.predict({"x": [-1e6, 1e6], "twice": [-2e6, 2e6]})
    assert far.tolist() == [0.0, 1.0]


def test_it_is_applied_as_it_was_fitted() -> None:
    features, others = table(300), table(50, seed=5)
    fitted = Combination.fit(features, errors(features), names=["kl", "entropy"])
    assert fitted.names == ("kl", "entropy")
    expected = fitted.predict(others)
    backwards = {name: torch.tensor(values) for name, values in reversed(others.items())}
    np.testing.assert_array_equal(fitted.predict(backwards), expected)
    one = {name: values[7:8] for name, values in others.items()}
    np.testing.assert_allclose(fitted.predict(one), expected[7:8])
    kept = Combination.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert kept == fitted
    np.testing.assert_array_equal(kept.predict(others), expected)


F = {"a": [1.0, 2.0, 4.0], "b": [0.0, 1.0, 0.0]}
RISK = [0.0, 1.0, 0.5]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: Combination.fit({}, RISK), r"features: expected at least one score, got none"),
        (
            lambda: Combination.fit(F, RISK, names=["c"]),
            r"features: expected 'c' among the names, got a, b",
        ),
        (
            lambda: Combination.fit({"a": [1.0, 2.0], "b": [1.0]}, [1.0, 2.0]),
            r"features\['b'\]: expected 2 values, one per case .* got 1",
        ),
        (
            lambda: Combination.fit({"a": [[1.0]]}, RISK),
            r"features\['a'\]: expected a non-empty array of shape \(cases,\)",
        ),
        (
            lambda: Combination.fit({"a": [1.0, np.inf, 0.0]}, RISK),
            r"features\['a'\]: expected finite values, got inf at \(1,\)",
        ),
        (
            lambda: Combination.fit({"a": [2.0, 2.0, 2.0]}, RISK),
            r"features\['a'\]: expected values that differ .* got 2.0 everywhere",
        ),
        (lambda: Combination.fit(F, RISK[:2]), r"risk: expected 3 values, one per case .* got 2"),
        (
            lambda: Combination.fit(F, RISK),
            r"risk: expected more than 3 cases for 2 features, got 3",
        ),
        (
            lambda: Combination.fit({"a": F["a"]}, [1.0, 1.0, 1.0]),
            r"risk: expected both 0 and 1, or other numbers, got 1.0 everywhere",
        ),
        (
            lambda: Combination.fit({"a": F["a"]}, RISK, ridge=0.0),
            r"ridge: expected above 0, got 0.0",
        ),
        (
            lambda: Combination.fit({"a": F["a"]}, RISK, blocks=[1, 1, 1]),
            r"blocks: expected at least 2 blocks",
        ),
        (
            lambda: Combination.fit({"a": F["a"]}, RISK).predict({"b": [1.0]}),
            r"features: expected 'a' among the names, got b",
        ),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        call()
