from __future__ import annotations

import pytest
import scoringrules
import torch
from torch import Tensor

from pyro_vdn.diagnostics import interval_score, pinball
from pyro_vdn.errors import InputError

NAN, TWO = float("nan"), torch.zeros(2)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


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


@pytest.mark.parametrize("level", [0.05, 0.5, 0.9])
def test_interval_score_equals_reference(level: float) -> None:
    lower, target = normal(40, 2), 2 * normal(40, 2, seed=1)
    upper = lower + normal(40, 2, seed=2).abs()
    expected = scoringrules.interval_score(target.numpy(), lower.numpy(), upper.numpy(), 1 - level)
    got = interval_score(lower, upper, target, level)
    torch.testing.assert_close(got, torch.as_tensor(expected), rtol=1e-6, atol=1e-9)


def test_twice_the_mean_pinball_loss_is_the_weighted_interval_score() -> None:
    quantiles, target = normal(5, 30).sort(dim=0).values, normal(30, seed=1)
    # Bracher et al. 2021: (|y - m| / 2 + sum_k alpha_k / 2 * score_k) / (K + 1 / 2); written out,
    # as scoringrules' own takes m for |y - m|.
    total = (target - quantiles[2]).abs() / 2
    for low, alpha in ((0, 0.2), (1, 0.5)):
        bounds = quantiles[low].numpy(), quantiles[4 - low].numpy()
        one = scoringrules.interval_score(target.numpy(), *bounds, alpha)
        total += alpha / 2 * torch.as_tensor(one)
    got = 2 * pinball(quantiles, [0.1, 0.25, 0.5, 0.75, 0.9], target).mean(dim=0)
    torch.testing.assert_close(got, total / 2.5, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: pinball(torch.zeros(3, 2), [0.5], TWO), r"quantiles: .*\(1, 2\), got .*\(3, 2\)"),
        (lambda: pinball(torch.zeros(1, 2), [1.0], TWO), r"levels: .* got 1.0 at \(0,\)"),
        (lambda: pinball(torch.zeros(1, 2), [], TWO), r"levels: expected one non-empty dimension"),
        (lambda: pinball(torch.zeros(1, 2) + NAN, [0.5], TWO), r"quantiles: expected finite"),
        (lambda: interval_score(TWO, TWO, TWO, 1.0), r"level: expected a share strictly"),
        (lambda: interval_score(TWO, TWO - 1, TWO, 0.5), r"upper: .* nowhere below .* at \(0,\)"),
        (lambda: interval_score(TWO, TWO + NAN, TWO, 0.5), r"upper: expected finite"),
        (lambda: interval_score(TWO[:1], TWO, TWO, 0.5), r"lower: expected the target's shape"),
    ],
)
def test_bad_input_is_refused_with_its_place(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
