from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from pyro_vdn.diagnostics import isotonic_fit
from pyro_vdn.diagnostics.calibration import isotonic
from pyro_vdn.errors import InputError


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def reference(values: Tensor, weights: Tensor) -> Tensor:
    rows = (v.reshape(-1, values.shape[-1]).numpy() for v in (values, weights))
    fits = [scipy.optimize.isotonic_regression(v, weights=w).x for v, w in zip(*rows, strict=True)]
    return torch.as_tensor(np.stack(fits)).reshape(values.shape)


@pytest.mark.parametrize("rounds", [100, 1], ids=["pooled at once", "one by one"])
@pytest.mark.parametrize("shape", [(1,), (30,), (4, 57), (2, 3, 9)])
def test_fit_equals_reference(
    shape: tuple[int, ...], rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isotonic, "_ROUNDS", rounds)
    values, weights = normal(*shape), normal(*shape, seed=1).exp()
    trend = torch.linspace(0, 2, shape[-1]).double()
    for given in (values, values + trend, values.round(), -trend.expand(shape)):
        torch.testing.assert_close(isotonic_fit(given, weights=weights), reference(given, weights))
        torch.testing.assert_close(isotonic_fit(given), reference(given, torch.ones_like(weights)))


def test_a_fall_at_the_end_needs_one_round_per_value_and_is_done_all_the_same() -> None:
    values = torch.cat([torch.arange(400.0), torch.tensor([-1e6])]).double()
    fit = isotonic_fit(values)
    torch.testing.assert_close(fit, values.mean().expand(401))


def test_a_sequence_that_never_falls_stays_and_keeps_its_dtype() -> None:
    values = torch.tensor([[0.0, 0.0, 1.0], [-5.0, 2.0, 2.5]], dtype=torch.float32)
    assert torch.equal(isotonic_fit(values), values)


TWO = torch.zeros(2)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: isotonic_fit(torch.tensor(1.0)), r"values: expected shape \(..., n\)"),
        (lambda: isotonic_fit(TWO / 0), r"values: expected finite"),
        (lambda: isotonic_fit(TWO, weights=TWO), r"weights: expected positive values, got 0.0"),
        (lambda: isotonic_fit(TWO, weights=TWO[:1] + 1), r"weights: expected the shape of values"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
