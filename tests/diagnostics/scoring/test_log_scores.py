from __future__ import annotations

import pytest
import scoringrules
import torch
from torch import Tensor

from pyro_vdn.diagnostics import log_score, log_score_normal
from pyro_vdn.errors import InputError

NAN, TWO = float("nan"), torch.zeros(2)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def normal_log_prob(target: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    return torch.distributions.Normal(loc, scale).log_prob(target)


def test_marginal_score_equals_that_of_a_mixture_of_normals() -> None:
    loc, scale, target = normal(9, 5, 2), normal(9, 5, 2, seed=1).exp(), normal(5, 2, seed=2)
    expected = scoringrules.logs_mixnorm(target.numpy(), loc.numpy(), scale.numpy(), mc_axis=0)
    got = log_score(normal_log_prob(target, loc, scale))
    torch.testing.assert_close(got, torch.as_tensor(expected), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("shape", [(4,), (4, 2), (4, 3, 2)])
def test_joint_score_is_the_log_of_the_mean_product(shape: tuple[int, ...]) -> None:
    log_prob = normal(7, *shape)
    product = log_prob.exp().reshape(7, 4, -1).prod(dim=-1)
    got = log_score(log_prob, joint=True)
    assert got.shape == (4,)
    torch.testing.assert_close(got, -product.mean(dim=0).log())


def test_joint_score_is_lower_where_shared_neurons_are_right() -> None:
    z, shared = normal(500, 200, 1), normal(200, 1, seed=1)
    target = shared + 0.3 * normal(200, 4, seed=2)
    log_prob = normal_log_prob(target, z.expand(500, 200, 4), torch.tensor(0.3).double())
    apart = log_score(log_prob).sum(dim=-1)
    assert float((apart - log_score(log_prob, joint=True)).mean()) > 1.0


@pytest.mark.parametrize("shift", [-2000.0, 2000.0])
def test_score_neither_over_nor_underflows(shift: float) -> None:
    log_prob = normal(9, 3)
    torch.testing.assert_close(log_score(log_prob + shift), log_score(log_prob) - shift)


def test_score_accepts_impossible_draws() -> None:
    log_prob = torch.tensor([[-torch.inf, 0.0], [-torch.inf, -torch.inf]])
    torch.testing.assert_close(log_score(log_prob), torch.tensor([torch.inf, 0.6931472]))


def test_normal_score_equals_reference_and_broadcasts() -> None:
    loc, scale, target = normal(4), normal(1, seed=1).exp(), 3 * normal(6, 4, seed=2)
    expected = scoringrules.logs_normal(target.numpy(), loc.numpy(), scale.numpy())
    got = log_score_normal(loc, scale, target)
    torch.testing.assert_close(got, torch.as_tensor(expected), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: log_score(torch.tensor(0.0)), r"log_prob: expected floating-point shape \(draws"),
        (lambda: log_score(torch.zeros(0, 2)), r"log_prob: .* at least one draw"),
        (lambda: log_score(torch.zeros(2, 2).long()), r"log_prob: .* got torch.int64"),
        (lambda: log_score(TWO, joint=True), r"log_prob: .*\(draws, rows, ...\)"),
        (lambda: log_score(TWO + NAN), r"log_prob: .* got nan at \(0,\)"),
        (lambda: log_score(TWO + torch.inf), r"log_prob: .* got inf at \(0,\)"),
        (lambda: log_score_normal(TWO, TWO, TWO), r"scale: expected positive values, got 0.0"),
    ],
)
def test_bad_input_is_refused_with_its_place(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
