from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_vdn.diagnostics import VarianceScaling, crps_draws, log_score_normal
from pyro_vdn.errors import InputError


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


DIMS = [(None, (1, 1, 1)), ((0,), (1, 4, 2)), ((0, 1), (1, 1, 2)), ((0, -1), (1, 4, 1))]


@pytest.mark.parametrize(("dim", "shape"), DIMS)
def test_normal_factor_is_where_the_log_score_is_flat(
    dim: tuple[int, ...] | None, shape: tuple[int, ...]
) -> None:
    mean, variance, target = normal(50, 4, 2), normal(50, 4, 2, seed=1).exp(), normal(50, 4, 2)
    target = mean + 3 * target.roll(1, 0)
    scaling = VarianceScaling.fit(mean, variance, target, dim=dim)
    assert scaling.factor.shape == shape
    factor = scaling.factor.clone().requires_grad_()
    score = log_score_normal(mean, factor * variance.sqrt(), target).sum()
    (slope,) = torch.autograd.grad(score, factor)
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-9, rtol=0)
    torch.testing.assert_close(
        scaling.apply_variance(variance), (scaling.factor * variance.sqrt()) ** 2
    )


@pytest.mark.parametrize(("dim", "shape"), DIMS)
def test_factor_of_draws_has_the_smallest_crps_of_all(
    dim: tuple[int, ...] | None, shape: tuple[int, ...]
) -> None:
    draws, target = 0.4 * normal(15, 30, 4, 2), normal(30, 4, 2, seed=1)
    draws[0] = draws[1:].mean(dim=0)  # a draw at the mean, where the ratio has no value
    scaling = VarianceScaling.fit_draws(draws, target, dim=dim)
    assert scaling.factor.shape == shape
    pooled = (0, 1, 2) if dim is None else dim

    def score(factor: Tensor) -> Tensor:
        scaled = VarianceScaling(factor).apply(draws)
        return crps_draws(scaled, target).mean(dim=pooled, keepdim=True)

    best = score(scaling.factor)
    for change in (0.5, 0.97, 1.03, 2.0):
        assert bool((score(change * scaling.factor) > best).all())


@pytest.mark.parametrize("count", [5, 20, 100])
def test_exact_draws_are_left_alone_however_few(count: int) -> None:
    factor = VarianceScaling.fit_draws(normal(count, 4000), normal(4000, seed=1)).factor
    assert float(factor) == pytest.approx(1.0, abs=0.05)


def test_scaled_draws_keep_mean_order_and_come_back() -> None:
    draws, target = normal(20, 30, 2), 3 * normal(30, 2, seed=1)
    scaling = VarianceScaling.fit_draws(draws, target, dim=(0,))
    scaled = scaling.apply(draws)
    torch.testing.assert_close(scaled.mean(dim=0), draws.mean(dim=0))
    torch.testing.assert_close(scaled.argsort(dim=0), draws.argsort(dim=0))
    torch.testing.assert_close(scaled.std(dim=0), scaling.factor * draws.std(dim=0))
    torch.testing.assert_close(scaling.inverse.apply(scaled), draws)


def test_scaling_chosen_on_one_set_calibrates_another() -> None:
    scale = normal(6000, 1, seed=1).exp()
    target = 2.5 * scale * normal(6000, 1, seed=2)
    mean = torch.zeros_like(target)
    scaling = VarianceScaling.fit(mean[:3000], scale[:3000].square(), target[:3000])
    variance = scaling.apply_variance(scale[3000:].square())
    inside = (target[3000:].abs() <= 1.6449 * variance.sqrt()).double().mean()
    assert float(inside) == pytest.approx(0.9, abs=0.02)


ONE, ROWS, DRAWS = torch.ones(1), torch.ones(3, 2), torch.ones(4, 3, 2)
FIT = VarianceScaling(torch.ones(1, 2))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: VarianceScaling.fit(ROWS[:2], ROWS, ROWS), r"mean: expected the target's shape"),
        (lambda: VarianceScaling.fit(ROWS, ROWS, ROWS / 0), r"target: expected finite"),
        (lambda: VarianceScaling.fit(ROWS, -ROWS, ROWS), r"variance: expected positive values"),
        (lambda: VarianceScaling.fit(ROWS, ROWS, ROWS), r"target: expected values that differ"),
        (lambda: VarianceScaling.fit(ROWS, ROWS, 0 * ROWS, dim=(1,)), r"dim: .* 0 \(rows\) among"),
        (lambda: VarianceScaling.fit(ROWS, ROWS, 0 * ROWS, dim=(0, 2)), r"dim: .* got \(0, 2\)"),
        (lambda: VarianceScaling.fit_draws(DRAWS, ROWS), r"draws: expected draws that differ"),
        (lambda: VarianceScaling.fit_draws(DRAWS[:1], ROWS), r"at least 2 draws"),
        (
            lambda: VarianceScaling.fit_draws(DRAWS.cumsum(0), 2.5 * ROWS),
            r"target: expected values that differ from their means, got -?0.0",
        ),
        (lambda: FIT.apply(torch.ones(4, 3, 3)), r"draws: expected rows of shape \(2,\)"),
        (lambda: FIT.apply_variance(torch.ones(3)), r"variance: .* got rows of shape \(\)"),
        (lambda: FIT.apply(DRAWS / 0), r"draws: expected finite"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
