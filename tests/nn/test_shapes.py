"""Sizes and checks."""

from __future__ import annotations

import pytest
import torch
from pyro_vdn.models import DeepRegression, Forecaster, Regression, SingleNeuron

from pyro_vdn.errors import InputError

MODELS = {
    "regression": lambda: Regression(4),
    "deep": lambda: DeepRegression(4),
    "forecasting": lambda: Forecaster(4, 2, kernel_size=3),
    "single": lambda: SingleNeuron(4),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(0, 4), r"x: expected shape .* with at least one row, got shape \(0, 4\)"),
        (torch.zeros(4), r"x: expected shape .* with at least one row, got shape \(4,\)"),
        (torch.zeros(5, 3), r"x: expected shape \(\.\.\., 4\), got shape \(5, 3\)"),
        (
            torch.zeros(5, 4, dtype=torch.int64),
            "x: expected a floating-point tensor, got torch.int64",
        ),
    ],
)
def test_models_refuse_bad_inputs(name: str, x: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MODELS[name]()(x)


@pytest.mark.parametrize("name", MODELS)
def test_models_refuse_targets_of_another_shape(name: str) -> None:
    x = torch.randn(5, 4)
    with pytest.raises(InputError, match=r"y: expected shape \(5, [12]\), got shape \(5,\)"):
        MODELS[name]()(x, torch.zeros(5))


def test_regression_refuses_an_unknown_likelihood() -> None:
    with pytest.raises(InputError, match=r"likelihood: expected one of \('student_t', 'normal'\)"):
        Regression(3, likelihood="gaussian")  # type: ignore[arg-type]
