from __future__ import annotations

import numpy as np
import pytest
import scoringrules
import torch
from torch import Tensor

from pyro_vdn.diagnostics import _checks, crps_draws, crps_mixture, crps_normal
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("fair", [False, True])
def test_crps_draws_of_many_draws_in_half_precision(dtype: torch.dtype, fair: bool) -> None:
    """Half precision holds neither the number of pairs of draws nor, exactly, ranks."""
    draws, target = normal(3000, 2).to(dtype), normal(2, seed=1).to(dtype)
    expected = crps_draws(draws.double(), target.double(), fair=fair)
    found = crps_draws(draws, target, fair=fair)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=0.02, atol=0)


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
@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 2)])
def test_crps_mixture_equals_reference(shape: tuple[int, ...]) -> None:
    loc, scale = 2 * normal(11, *shape), normal(11, *shape, seed=1).exp()
    target, log_weights = normal(*shape, seed=2), 2 * normal(11, *shape, seed=3)
    for given in (None, log_weights):
        weights = None if given is None else given.softmax(dim=0).numpy()
        expected = scoringrules.crps_mixnorm(
            target.numpy(), loc.numpy(), scale.numpy(), weights, m_axis=0
        )
        got = crps_mixture(loc, scale, target, log_weights=given)
        assert got.shape == shape
        torch.testing.assert_close(got, torch.as_tensor(expected), rtol=1e-6, atol=1e-9)


def test_crps_mixture_broadcasts_scales_and_weights_of_draws() -> None:
    loc, target = normal(6, 5), normal(5, seed=1)
    scale, weights = torch.tensor(0.7, dtype=torch.float64), normal(6, seed=2)
    weights[2] = -torch.inf
    full = crps_mixture(
        loc, scale.expand(6, 5), target, log_weights=(weights + 40)[:, None].expand(6, 5)
    )
    torch.testing.assert_close(crps_mixture(loc, scale, target, log_weights=weights), full)
    kept = torch.tensor([0, 1, 3, 4, 5])
    without = crps_mixture(loc[kept], scale, target, log_weights=weights[kept])
    torch.testing.assert_close(full, without)


def test_crps_mixture_of_one_part_is_that_of_a_normal_and_differentiates() -> None:
    loc, scale, target = normal(4), normal(4, seed=1).exp(), normal(4, seed=2)
    torch.testing.assert_close(
        crps_mixture(loc[None], scale[None], target), crps_normal(loc, scale, target)
    )
    leaf = normal(3, 2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: crps_mixture(x, x.exp(), torch.zeros(2, dtype=torch.float64), log_weights=x), leaf
    )


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
        (lambda: crps_normal(torch.zeros(2, 1), ONE + 1, TWO), r"loc: expected .* \(2, 1\)"),
        (lambda: crps_normal(TWO, torch.ones(3), TWO), r"scale: expected a shape that broadcasts"),
        (lambda: crps_normal(TWO, TWO, TWO), r"scale: expected positive values, got 0.0 at \(0,\)"),
        (lambda: crps_normal(TWO, TWO + NAN, TWO), r"scale: expected finite values"),
        (lambda: crps_mixture(TWO, TWO + 1, TWO), r"draws: expected shape"),
        (lambda: crps_mixture(TWO, ONE + 1, TWO[0], log_weights=ONE), r"log_weights: .* \(2,\)"),
        (lambda: crps_mixture(TWO, TWO, TWO[0]), r"scale: expected positive values"),
        (lambda: crps_mixture(TWO, torch.ones(3), TWO[0]), r"scale: .* broadcasts to loc's \(2,"),
        (
            lambda: crps_mixture(TWO, TWO + 1, TWO[0], log_weights=TWO + NAN),
            r"log_weights: expected logs of weights .* got nan at \(0,\)",
        ),
        (
            lambda: crps_mixture(TWO, TWO + 1, TWO[0], log_weights=TWO - torch.inf),
            r"log_weights: expected a weight above zero",
        ),
    ],
)
def test_bad_input_is_refused_with_its_place(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
