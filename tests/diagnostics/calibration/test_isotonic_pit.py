from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from pyro_vdn.diagnostics import IsotonicPIT, _checks, coverage, draw_quantiles, isotonic_fit, pit
from pyro_vdn.errors import InputError


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def test_map_is_the_isotonic_regression_of_the_ranks_of_pit_values() -> None:
    values = uniform(200).square()
    ranks = torch.as_tensor(scipy.stats.rankdata(values.numpy())) / 201
    order = values.argsort()
    expected = isotonic_fit(ranks[order])
    torch.testing.assert_close(IsotonicPIT.fit(values).apply(values[order]), expected)


def test_ties_share_the_mean_of_their_ranks() -> None:
    values = torch.tensor([0.2, 0.7, 0.7, 0.7, 0.9, 0.0, 1.0, 0.0], dtype=torch.float64)
    got = IsotonicPIT.fit(values).apply(values.clamp(1e-15, 1 - 1e-15))
    expected = torch.as_tensor(scipy.stats.rankdata(values.numpy())) / 9
    torch.testing.assert_close(got, expected, atol=0.02, rtol=0)
    inner = (values > 0) & (values < 1)
    torch.testing.assert_close(got[inner], expected[inner])


def test_apply_and_levels_undo_each_other() -> None:
    recalibration = IsotonicPIT.fit(uniform(60).sqrt())
    levels = torch.linspace(0.01, 0.99, 99).double()
    torch.testing.assert_close(recalibration.apply(recalibration.levels(levels)), levels)
    grid = torch.linspace(0, 1, 300).double()
    assert bool((recalibration.apply(grid).diff() > 0).all())
    ends = recalibration.apply(torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(ends, torch.tensor([0.0, 1.0]).double())


@pytest.mark.parametrize("spread", [0.5, 2.0], ids=["too wide", "too narrow"])
def test_levels_calibrate_quantiles_of_other_rows(spread: float) -> None:
    model = torch.distributions.Normal(0.0, 1.0)
    target = 0.3 + spread * normal(8000)  # off in location too
    recalibration = IsotonicPIT.fit(model.cdf(target[:4000]))
    wanted = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]).double()
    quantiles = model.icdf(recalibration.levels(wanted))
    below = (target[4000:] <= quantiles[:, None]).double().mean(dim=1)
    torch.testing.assert_close(below, wanted, atol=0.025, rtol=0)
    fresh = recalibration.apply(model.cdf(target[4000:]))
    assert scipy.stats.kstest(fresh.numpy(), "uniform").statistic < 0.035


def test_draws_are_calibrated_on_other_rows_and_keep_their_ranks() -> None:
    draws, target = normal(99, 4000, 1), 0.5 * normal(4000, 1, seed=1) + 0.2
    recalibration = IsotonicPIT.fit(pit(draws[:, :2000], target[:2000]))
    moved = recalibration.apply_draws(draws[:, 2000:])
    assert float(coverage(draws[:, 2000:], target[2000:], 0.8)) > 0.95
    assert float(coverage(moved, target[2000:], 0.8)) == pytest.approx(0.8, abs=0.04)
    assert torch.equal(moved.argsort(dim=0), draws[:, 2000:].argsort(dim=0))


@pytest.mark.parametrize("chunk", [2**24, 50])
def test_moved_draws_are_quantiles_of_the_old_ones(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_checks, "CHUNK_ELEMENTS", chunk)
    draws = normal(20, 3, 2)  # (draws, time, outputs)
    recalibration = IsotonicPIT.fit(0.25 + 0.5 * uniform(500))
    levels = recalibration.levels(torch.arange(1, 21).double() / 21)
    assert float(levels.min()) > 0.2  # so that no quantile lies beyond the draws
    moved = recalibration.apply_draws(draws)
    assert moved.shape == draws.shape
    torch.testing.assert_close(moved.sort(dim=0).values, draw_quantiles(draws, levels))


def test_draws_of_a_narrow_model_end_at_its_outermost_ones() -> None:
    draws = normal(9, 4)
    recalibration = IsotonicPIT.fit(torch.cat([torch.zeros(50), torch.ones(50)]))
    moved = recalibration.apply_draws(draws)
    assert torch.equal(moved.amax(dim=0), draws.amax(dim=0))
    np.testing.assert_array_equal(moved.sort(dim=0).values[0], draws.amin(dim=0))


FIT = IsotonicPIT.fit(torch.tensor([0.5]))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: IsotonicPIT.fit(torch.tensor([1.5])), r"pit_values: .* \[0, 1\], got 1.5"),
        (lambda: IsotonicPIT.fit(torch.zeros(0)), r"pit_values: expected at least one"),
        (lambda: FIT.apply(torch.tensor([-0.5])), r"probability: .* got -0.5 at \(0,\)"),
        (lambda: FIT.levels([1.0]), r"levels: .* got 1.0"),
        (lambda: FIT.apply_draws(torch.tensor(1.0)), r"draws: expected shape \(draws, ...\)"),
        (lambda: FIT.apply_draws(torch.zeros(2) / 0), r"draws: expected finite"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
