"""Pareto-smoothed weights against ArviZ, Pyro and closed forms."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.importance import psis_diagnostic

from pyro_vdn.diagnostics import psis
from pyro_vdn.errors import InputError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    arviz = pytest.importorskip("arviz")


def ratios(draws: int, *, tails: tuple[float, ...] = (0.05, 0.3, 0.6, 1.2)) -> torch.Tensor:
    """Return logs of Pareto variables of known shapes, `(draws, tails)`, in no order."""
    generator = torch.Generator().manual_seed(draws)
    uniform = torch.rand(draws, len(tails), generator=generator, dtype=torch.float64)
    return -torch.tensor(tails, dtype=torch.float64) * uniform.log()


@pytest.mark.skipif(not hasattr(arviz, "psislw"), reason="ArviZ 1.x has no psislw")
@pytest.mark.parametrize("draws", [21, 100, 1000, 4001])
def test_weights_and_shape_are_those_of_arviz(draws: int) -> None:
    values = ratios(draws) - 300.0
    values[: draws // 3, 1] = values[0, 1]  # ties
    values[: draws // 2, 2] -= 2000.0  # weights that underflow
    smoothed = psis(values)
    weights, k_hat = arviz.psislw(values.numpy().T)
    np.testing.assert_allclose(smoothed.log_weights, np.asarray(weights).T, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(smoothed.k_hat, k_hat, rtol=1e-9)


@pytest.mark.skipif(not hasattr(arviz, "psislw"), reason="ArviZ 1.x has no psislw")
def test_few_draws_above_a_tied_threshold_are_fitted_as_they_are() -> None:
    values = ratios(500, tails=(0.5,))
    ordered = values.sort(0).values
    values = values.clamp(min=ordered[-31])  # a tail of 30 rather than 68
    _, k_hat = arviz.psislw(values.numpy().T)
    np.testing.assert_allclose(psis(values).k_hat, k_hat, rtol=1e-9)
    assert psis(values.clamp(min=ordered[-4])).k_hat == math.inf


def test_shape_is_that_of_pyro(double: None) -> None:
    y = torch.tensor(1.0)

    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    def guide() -> None:
        pyro.sample("z", dist.Normal(0.2, 0.6))

    pyro.set_rng_seed(3)
    theirs = psis_diagnostic(model, guide, num_particles=3000, max_plate_nesting=0)
    pyro.set_rng_seed(3)
    z = dist.Normal(0.2, 0.6).sample((3000,))
    log_p = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(y)
    assert float(psis(log_p - dist.Normal(0.2, 0.6).log_prob(z)).k_hat) == pytest.approx(
        float(theirs), abs=1e-6
    )


def test_shape_finds_that_of_pareto_variables() -> None:
    found = psis(ratios(20_000)).k_hat
    truth = torch.tensor([0.05, 0.3, 0.6, 1.2])
    # The error of the maximum likelihood estimate is (1 + k) / sqrt(tail).
    tail = 3 * math.sqrt(20_000)
    assert ((found - truth).abs() < 3 * (1 + truth) / math.sqrt(tail)).all()


def test_smoothing_lowers_the_error_of_a_heavy_tail() -> None:
    z = torch.randn(400, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = dist.Normal(torch.zeros(()).double(), 1.5)
    log_ratios = target.log_prob(z) - dist.Normal(torch.zeros(()).double(), 1.0).log_prob(z)
    plain = (log_ratios.softmax(0) * z.square()).sum(0)
    smoothed = (psis(log_ratios).log_weights.exp() * z.square()).sum(0)
    assert (smoothed - 2.25).square().mean() < 0.9 * (plain - 2.25).square().mean()


def test_shape_and_dtype_are_kept_and_columns_are_independent() -> None:
    values = ratios(300).reshape(300, 2, 2)
    smoothed = psis(values.float())
    assert smoothed.log_weights.dtype == smoothed.k_hat.dtype == torch.float32
    torch.testing.assert_close(smoothed.log_weights.exp().sum(0), torch.ones(2, 2))
    alone = psis(values[:, 1, 0])
    torch.testing.assert_close(alone.k_hat, psis(values).k_hat[1, 0])
    torch.testing.assert_close(alone.log_weights, psis(values).log_weights[:, 1, 0])
    shifted = psis(values + 700.0)
    torch.testing.assert_close(shifted.k_hat, psis(values).k_hat, rtol=1e-9, atol=1e-9)


def test_equal_weights_have_no_tail() -> None:
    rounding = 1e-13 * torch.randn(1000, 2, dtype=torch.float64)
    smoothed = psis(rounding - 500.0)
    assert (smoothed.k_hat == -math.inf).all()
    torch.testing.assert_close(
        smoothed.effective_draws, torch.full((2,), 1000.0, dtype=torch.float64)
    )


def test_few_draws_are_weighted_but_say_nothing_of_the_tail() -> None:
    values = ratios(20)
    smoothed = psis(values)
    assert (smoothed.k_hat == math.inf).all()
    torch.testing.assert_close(smoothed.log_weights, values.log_softmax(0))
    assert psis(torch.zeros(1)).log_weights.tolist() == [0.0]


def test_draws_of_no_weight_are_allowed() -> None:
    values = ratios(100, tails=(0.5,))
    values[::2] = -math.inf
    smoothed = psis(values)
    assert (smoothed.log_weights[::2] == -math.inf).all()
    assert smoothed.k_hat.isfinite().all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.tensor([0.0, math.nan]), r"log_ratios: expected log ratios below infinity, got nan"),
        (torch.tensor([0.0, math.inf]), r"below infinity, got inf at \(1,\)"),
        (torch.zeros(0, 3), r"at least one draw, got torch.float32 of shape \(0, 3\)"),
        (torch.zeros(()), r"at least one draw, got torch.float32 of shape \(\)"),
        (torch.zeros(5, dtype=torch.long), r"floating-point tensor .* got torch.int64"),
        (
            torch.tensor([[0.0, -math.inf], [0.0, -math.inf]]),
            r"a draw of positive weight in every column, got -inf at \(1,\)",
        ),
    ],
)
def test_refuses_what_has_no_weights(values: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        psis(values)
