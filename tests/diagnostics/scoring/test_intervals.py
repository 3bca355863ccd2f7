from __future__ import annotations

import pytest
import scipy.stats
import torch
from torch import Tensor

from pyro_vdn.diagnostics import (
    central_interval,
    coverage,
    draw_quantiles,
    interval_coverage,
    interval_width,
    sharpness,
)
from pyro_vdn.errors import InputError


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("count", [19, 50])
def test_exact_draws_cover_their_level(count: int, level: float) -> None:
    rows = 60_000
    share = coverage(normal(count, rows), normal(rows, seed=1), level)
    assert float(share) == pytest.approx(level, abs=0.006)  # type 7 misses by 0.02 to 0.1


def test_coverage_counts_targets_on_the_bounds_and_by_dimension() -> None:
    draws = torch.arange(1.0, 20.0)[:, None, None].expand(19, 2, 3)
    target = torch.tensor([[1.0, 0.99, 10.0], [19.0, 19.01, 25.0]])
    torch.testing.assert_close(coverage(draws, target, 0.9), torch.tensor(0.5))
    by_step = coverage(draws, target, 0.9, dim=0)
    torch.testing.assert_close(by_step, torch.tensor([1.0, 0.0, 0.5]))
    by_row = coverage(draws, target, 0.9, dim=(1,))
    torch.testing.assert_close(by_row, torch.tensor([2 / 3, 1 / 3]))


def test_width_is_upper_minus_lower() -> None:
    draws = normal(99, 4)
    lower, upper = central_interval(draws, 0.8)
    torch.testing.assert_close(interval_width(draws, 0.8), upper - lower)
    torch.testing.assert_close(lower, draw_quantiles(draws, [0.1])[0])
    assert bool((interval_width(draws, 0.9) > upper - lower).all())


@pytest.mark.parametrize(("level", "needed"), [(0.5, 3), (0.8, 9), (0.9, 19), (0.99, 199)])
def test_too_few_draws_are_refused(level: float, needed: int) -> None:
    assert interval_width(normal(needed, 2), level).shape == (2,)
    with pytest.raises(InputError, match=f"at least {needed} draws .* got {needed - 1}"):
        interval_width(normal(needed - 1, 2), level)


@pytest.mark.parametrize("shape", [(6,), (6, 3), (6, 4, 2)])
def test_sharpness_is_the_mean_width_at_every_level(shape: tuple[int, ...]) -> None:
    draws, levels = normal(39, *shape), [0.2, 0.5, 0.9]
    widths = torch.stack([interval_width(draws, level) for level in levels])
    torch.testing.assert_close(sharpness(draws, levels), widths.flatten(1).mean(dim=1))
    torch.testing.assert_close(sharpness(draws, levels, dim=0), widths.mean(dim=1))
    torch.testing.assert_close(sharpness(draws, levels, dim=-1), widths.mean(dim=-1))


def test_sharpness_of_normal_draws_is_that_of_the_normal() -> None:
    levels = [0.5, 0.9]
    expected = [2 * scipy.stats.norm.ppf((1 + level) / 2) for level in levels]
    got = sharpness(normal(999, 200), levels)
    torch.testing.assert_close(got, torch.tensor(expected).double(), rtol=0.01, atol=0)


def test_interval_coverage_counts_bounds_and_no_empty_interval() -> None:
    lower = torch.tensor([[0.0, 0.0], [-torch.inf, torch.inf], [1.0, 2.0]])
    upper = torch.tensor([[1.0, 1.0], [torch.inf, -torch.inf], [3.0, 1.0]])
    target = torch.tensor([[1.0, 1.1], [9.0, 9.0], [1.0, 1.5]])
    assert float(interval_coverage(lower, upper, target)) == 0.5
    torch.testing.assert_close(
        interval_coverage(lower, upper, target, dim=0), torch.tensor([1.0, 0.0])
    )


ONE = torch.zeros(1)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: central_interval(torch.zeros(99, 2), 90), r"level: .* got 90. Try: write 90 %"),
        (lambda: central_interval(torch.zeros(99, 2), 0.0), r"level: .* got 0.0"),
        (lambda: interval_width(torch.zeros(99, 2) / 0, 0.5), r"draws: expected finite values"),
        (lambda: coverage(torch.zeros(19, 2), torch.zeros(3), 0.9), r"draws: expected shape"),
        (lambda: coverage(torch.zeros(19, 2), torch.zeros(2) / 0, 0.9), r"target: expected finite"),
        (lambda: sharpness(torch.zeros(99, 2), [1.5]), r"levels: .* got 1.5"),
        (lambda: sharpness(torch.zeros(9, 2), [0.9]), r"at least 19 draws"),
        (lambda: interval_coverage(ONE, ONE, ONE / 0), r"target: expected finite"),
        (lambda: interval_coverage(ONE / 0, ONE, ONE), r"lower: expected bounds that are not NaN"),
        (lambda: interval_coverage(ONE, ONE[0], ONE), r"upper: expected the target's shape \(1,"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
