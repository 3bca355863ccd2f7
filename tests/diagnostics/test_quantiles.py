from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_vdn.diagnostics import _checks, central_interval, coverage, draw_quantiles, interval_width
from pyro_vdn.errors import InputError


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("chunk", [2**24, 100])
@pytest.mark.parametrize("count", [19, 40, 101])
@pytest.mark.parametrize("shape", [(), (1,), (6,), (5, 3)])
def test_quantiles_equal_numpy(
    shape: tuple[int, ...], count: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_checks, "CHUNK_ELEMENTS", chunk)
    draws, levels = normal(count, *shape), [0.05, 0.3, 0.5, 0.95]
    expected = np.quantile(draws.numpy(), levels, axis=0, method="weibull")
    torch.testing.assert_close(draw_quantiles(draws, levels), torch.as_tensor(expected))


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


def test_the_median_of_one_draw_is_that_draw() -> None:
    torch.testing.assert_close(draw_quantiles(normal(1, 3), [0.5])[0], normal(1, 3)[0])


@pytest.mark.parametrize(("level", "needed"), [(0.5, 3), (0.8, 9), (0.9, 19), (0.99, 199)])
def test_too_few_draws_are_refused(level: float, needed: int) -> None:
    assert interval_width(normal(needed, 2), level).shape == (2,)
    with pytest.raises(InputError, match=f"at least {needed} draws .* got {needed - 1}"):
        interval_width(normal(needed - 1, 2), level)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: central_interval(torch.zeros(99, 2), 90), r"level: .* got 90. Try: write 90 %"),
        (lambda: central_interval(torch.zeros(99, 2), 0.0), r"level: .* got 0.0"),
        (lambda: interval_width(torch.zeros(99, 2) / 0, 0.5), r"draws: expected finite values"),
        (lambda: draw_quantiles(torch.tensor(1.0), [0.5]), r"draws: expected shape \(draws, "),
        (lambda: draw_quantiles(torch.zeros(9), [0.5, 0.0]), r"levels: .* got 0.0 at \(1,\)"),
        (lambda: draw_quantiles(torch.zeros(9), [[0.5]]), r"levels: .* got shape \(1, 1\)"),
        (lambda: coverage(torch.zeros(19, 2), torch.zeros(3), 0.9), r"draws: expected shape"),
        (lambda: coverage(torch.zeros(19, 2), torch.zeros(2) / 0, 0.9), r"target: expected finite"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
