from __future__ import annotations

import numpy as np
import pytest
import scoringrules
import torch
from torch import Tensor

from pyro_vdn.diagnostics import (
    _checks,
    crps_draws,
    crps_normal,
    energy_score,
    mixture_log_density,
    pinball,
)
from pyro_vdn.errors import InputError

NAN = float("nan")


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.fixture(params=[None, 64], ids=["one chunk", "many chunks"])
def _chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param is not None:
        monkeypatch.setattr(_checks, "CHUNK_ELEMENTS", request.param)


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize(("fair", "estimator"), [(False, "nrg"), (True, "fair")])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (5, 4), (2, 3, 4)])
def test_crps_draws_equals_reference(shape: tuple[int, ...], fair: bool, estimator: str) -> None:
    draws, target = 2 + 3 * normal(21, *shape), normal(*shape, seed=1)
    expected = scoringrules.crps_ensemble(
        target.numpy(), draws.numpy(), m_axis=0, estimator=estimator
    )
    torch.testing.assert_close(
        crps_draws(draws, target, fair=fair), torch.as_tensor(expected), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("fair", [False, True])
@pytest.mark.parametrize("count", [2, 3, 6])
def test_crps_draws_is_its_definition_with_ties(count: int, fair: bool) -> None:
    draws = normal(count, 3).round()  # rounding makes ties
    target = torch.tensor([0.0, 0.3, 5.0], dtype=torch.float64)
    pairs = (draws[:, None] - draws).abs().sum(dim=(0, 1))
    divisor = count * (count - 1) if fair else count**2
    expected = (draws - target).abs().mean(0) - pairs / (2 * divisor)
    torch.testing.assert_close(crps_draws(draws, target, fair=fair), expected)


def test_crps_of_one_draw_is_the_absolute_error() -> None:
    draws, target = normal(1, 5), normal(5, seed=1)
    torch.testing.assert_close(crps_draws(draws, target), (draws[0] - target).abs())


def test_fair_crps_is_unbiased_and_the_plain_one_is_not() -> None:
    target = torch.zeros(40_000, dtype=torch.float64)
    exact = float(crps_normal(torch.zeros(()), torch.ones(()), torch.zeros(())))
    draws = normal(4, 40_000)
    assert float(crps_draws(draws, target, fair=True).mean()) == pytest.approx(exact, abs=0.006)
    assert float(crps_draws(draws, target).mean()) > exact + 0.1


def test_crps_draws_keeps_dtype_far_from_zero_and_differentiates() -> None:
    draws = normal(50, 3)
    near = crps_draws(draws, torch.zeros(3, dtype=torch.float64))
    far = crps_draws(draws.float() + 4096, torch.full((3,), 4096.0, dtype=torch.float32))
    assert far.dtype == torch.float32
    torch.testing.assert_close(far, near.float(), rtol=2e-3, atol=0)
    leaf = normal(5, 2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: crps_draws(x, torch.zeros(2, dtype=torch.float64)), leaf
    )


@pytest.mark.parametrize("target", [-6.0, 0.0, 0.7, 12.0])
def test_crps_normal_equals_reference(target: float) -> None:
    loc, scale = normal(6), normal(6, seed=1).exp()
    expected = scoringrules.crps_normal(np.full(6, target), loc.numpy(), scale.numpy())
    got = crps_normal(loc, scale, torch.full((6,), target, dtype=torch.float64))
    torch.testing.assert_close(got, torch.as_tensor(expected), rtol=1e-6, atol=1e-9)


def test_crps_normal_broadcasts_parameters_to_the_target() -> None:
    target = normal(3, 4)
    loc, scale = normal(4, seed=1), torch.tensor(0.5, dtype=torch.float64)
    full = crps_normal(loc.expand(3, 4), scale.expand(3, 4), target)
    torch.testing.assert_close(crps_normal(loc, scale, target), full)


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize(("fair", "estimator"), [(False, "nrg"), (True, "fair")])
@pytest.mark.parametrize(("rows", "steps"), [(1, 1), (4, 3), (3, 40)])
def test_energy_score_equals_reference(rows: int, steps: int, fair: bool, estimator: str) -> None:
    draws, target = normal(17, rows, steps), normal(rows, steps, seed=1)
    expected = scoringrules.es_ensemble(
        target.numpy(), draws.numpy(), m_axis=0, v_axis=-1, estimator=estimator
    )
    got = energy_score(draws, target, fair=fair)
    assert got.shape == (rows,)
    torch.testing.assert_close(got, torch.as_tensor(expected), rtol=1e-6, atol=1e-9)


def test_energy_score_of_one_step_is_the_crps() -> None:
    draws, target = normal(30, 6, 1), normal(6, 1, seed=1)
    torch.testing.assert_close(energy_score(draws, target), crps_draws(draws, target)[:, 0])


def test_energy_score_keeps_digits_when_draws_are_close() -> None:
    draws, target = (100 + 1e-3 * normal(40, 2, 60)).float(), torch.zeros(2, 60)
    exact = energy_score(draws.double(), target.double())
    torch.testing.assert_close(energy_score(draws, target).double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("level", [0.05, 0.5, 0.9])
def test_pinball_equals_reference(level: float) -> None:
    quantiles, target = normal(1, 5, 2), normal(5, 2, seed=1)
    expected = scoringrules.quantile_score(target.numpy(), quantiles[0].numpy(), level)
    got = pinball(quantiles, [level], target)
    torch.testing.assert_close(got[0], torch.as_tensor(expected), rtol=1e-6, atol=1e-12)


def test_pinball_pairs_each_level_with_its_quantile() -> None:
    levels = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    quantiles, target = normal(3, 4), normal(4, seed=1)
    got = pinball(quantiles, levels, target)
    assert got.shape == (3, 4)
    for index in range(3):
        alone = pinball(quantiles[index : index + 1], levels[index : index + 1], target)
        torch.testing.assert_close(got[index], alone[0])


def test_mixture_log_density_is_the_log_of_the_mean_density() -> None:
    log_prob = normal(9, 3)
    torch.testing.assert_close(mixture_log_density(log_prob), log_prob.exp().mean(0).log())


@pytest.mark.parametrize("shift", [-2000.0, 2000.0])
def test_mixture_log_density_neither_over_nor_underflows(shift: float) -> None:
    log_prob = normal(9, 3)
    got = mixture_log_density(log_prob + shift)
    torch.testing.assert_close(got, mixture_log_density(log_prob) + shift)


def test_mixture_log_density_accepts_impossible_draws() -> None:
    log_prob = torch.tensor([[-torch.inf, 0.0], [-torch.inf, -torch.inf]])
    expected = torch.tensor([-torch.inf, -0.6931472])
    torch.testing.assert_close(mixture_log_density(log_prob), expected)


ONE, TWO = torch.zeros(1), torch.zeros(2)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: crps_draws(torch.zeros(3, 2), ONE), r"draws: expected shape .*\(3, 2\)"),
        (lambda: crps_draws(torch.tensor(0.0), ONE), r"draws: expected shape"),
        (lambda: crps_draws(torch.tensor([[0.0, NAN]]), TWO), r"draws: .* got nan at \(0, 1\)"),
        (lambda: crps_draws(torch.zeros(2, 1), ONE / 0), r"target: .* got nan at \(0,\)"),
        (lambda: crps_draws(torch.ones(2, 1), -torch.ones(1) / 0), r"target: .* got -inf at"),
        (lambda: crps_draws(torch.zeros(0, 1), ONE), r"draws: expected at least one element"),
        (lambda: crps_draws(torch.zeros(3, 1).long(), ONE), r"draws: .* got torch.int64"),
        (lambda: crps_draws(torch.zeros(1, 1), ONE, fair=True), r"at least 2 draws .* got 1"),
        (lambda: energy_score(torch.zeros(3, 2), TWO), r"target: expected shape \(rows, steps\)"),
        (lambda: energy_score(torch.zeros(3, 2, 1), torch.zeros(1, 2)), r"draws: expected shape"),
        (
            lambda: energy_score(torch.zeros(1, 1, 2), torch.zeros(1, 2), fair=True),
            r"at least 2 draws",
        ),
        (lambda: crps_normal(torch.zeros(2, 1), ONE + 1, TWO), r"loc: expected .* \(2, 1\)"),
        (lambda: crps_normal(TWO, torch.ones(3), TWO), r"scale: expected a shape that broadcasts"),
        (lambda: crps_normal(TWO, TWO, TWO), r"scale: expected positive values, got 0.0 at \(0,\)"),
        (lambda: crps_normal(TWO, TWO + NAN, TWO), r"scale: expected finite values"),
        (lambda: pinball(torch.zeros(3, 2), [0.5], TWO), r"quantiles: .*\(1, 2\), got .*\(3, 2\)"),
        (lambda: pinball(torch.zeros(1, 2), [1.0], TWO), r"levels: .* got 1.0 at \(0,\)"),
        (lambda: pinball(torch.zeros(1, 2), [], TWO), r"levels: expected one non-empty dimension"),
        (lambda: pinball(torch.zeros(1, 2) + NAN, [0.5], TWO), r"quantiles: expected finite"),
        (lambda: mixture_log_density(torch.tensor(0.0)), r"log_prob: expected shape"),
        (lambda: mixture_log_density(torch.zeros(0, 2)), r"log_prob: .* at least one draw"),
        (lambda: mixture_log_density(TWO + NAN), r"log_prob: .* got nan at \(0,\)"),
        (lambda: mixture_log_density(TWO + torch.inf), r"log_prob: .* got inf at \(0,\)"),
    ],
)
def test_bad_input_is_refused_with_its_place(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
