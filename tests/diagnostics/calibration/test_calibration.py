from __future__ import annotations

import pytest
import scipy.stats
import torch
from torch import Tensor

from pyro_vdn.diagnostics import calibration_curve, pit
from pyro_vdn.errors import InputError


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("count", [1, 4, 50])
@pytest.mark.parametrize("grid", [None, 1.0], ids=["continuous", "with ties"])
def test_randomised_pit_of_exact_draws_is_uniform(count: int, grid: float | None) -> None:
    draws, target = normal(count, 5000), normal(5000, seed=1)
    if grid is not None:
        draws, target = draws.round(), target.round()
    # The default seed equals that of the draws: the two streams must still differ.
    values = pit(draws, target)
    assert values.dtype == torch.float64
    assert scipy.stats.kstest(values.numpy(), "uniform").pvalue > 0.01


def test_mid_rank_pit_is_its_definition() -> None:
    draws = torch.tensor([1.0, 2.0, 2.0, 3.0])[:, None].expand(4, 5)
    target = torch.tensor([0.0, 1.0, 2.0, 2.5, 9.0])
    # below + (ties + 1) / 2, over draws + 1
    expected = torch.tensor([0.5, 0.0 + 1.0, 1.0 + 1.5, 3.5, 4.5]) / 5
    torch.testing.assert_close(pit(draws, target, randomised=False), expected)


def test_randomised_pit_stays_in_its_cell_and_follows_the_seed() -> None:
    draws, target = normal(9, 4, 3), normal(4, 3, seed=1)
    middle, values = pit(draws, target, randomised=False), pit(draws, target)
    assert bool(((values - middle).abs() <= 0.05).all())
    assert not torch.equal(values, middle)
    assert torch.equal(values, pit(draws, target, seed=0))
    assert not torch.equal(values, pit(draws, target, seed=1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pit_of_half_precision_is_single(dtype: torch.dtype) -> None:
    draws = torch.arange(3000).div(3000).to(dtype)[:, None].expand(3000, 400)
    target = torch.linspace(0, 1, 400).to(dtype)
    values = pit(draws, target)
    assert values.dtype == torch.float32
    torch.testing.assert_close(
        values.double(), pit(draws.double(), target.double()), atol=0.01, rtol=0
    )
    assert values.unique().numel() == 400
    assert float(values.max()) < 1.0


def test_pit_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    pit(normal(3, 4), normal(4))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("spread", "sign"), [(0.5, 1), (1.0, 0), (2.0, -1)])
def test_curve_tells_wide_from_narrow(spread: float, sign: int) -> None:
    curve = calibration_curve(pit(normal(99, 4000), spread * normal(4000, seed=1)))
    gap = (curve.empirical - curve.nominal) / curve.standard_error
    if sign == 0:
        assert float(gap.abs().max()) < 3.5
        assert curve.worst_gap() < 0.03
    else:
        assert float((sign * gap).min()) > 3.5
        assert curve.worst_gap() > 0.1


def test_curve_is_its_definition() -> None:
    values = torch.tensor([[0.0, 0.3], [0.5, 0.96]], dtype=torch.float64)
    curve = calibration_curve(values, [0.2, 0.4, 0.93])
    torch.testing.assert_close(curve.empirical, torch.tensor([0.25, 0.5, 0.75]).double())
    torch.testing.assert_close(curve.nominal, torch.tensor([0.2, 0.4, 0.93]).double())
    torch.testing.assert_close(curve.standard_error[0], torch.tensor(0.2).double())
    assert curve.count == 4
    assert curve.worst_gap() == pytest.approx(0.18)


@pytest.mark.parametrize(("value", "level"), [(0.35, 0.3), (0.3, 0.4), (0.75, 0.5)])
def test_a_value_on_the_bound_is_inside_despite_rounding(value: float, level: float) -> None:
    curve = calibration_curve(torch.tensor([value], dtype=torch.float64), [level])
    assert float(curve.empirical) == 1.0


def test_effective_count_widens_the_error_only() -> None:
    values = torch.rand(100, generator=torch.Generator().manual_seed(0))
    plain, honest = calibration_curve(values), calibration_curve(values, effective_count=25)
    torch.testing.assert_close(honest.standard_error, 2 * plain.standard_error)
    torch.testing.assert_close(honest.empirical, plain.empirical)
    assert honest.count == 25


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: pit(torch.zeros(3, 2), torch.zeros(3)), r"draws: expected shape"),
        (lambda: pit(torch.zeros(3, 2) / 0, torch.zeros(2)), r"draws: expected finite"),
        (lambda: calibration_curve(torch.tensor([0.5, 1.5])), r"pit_values: .* 1.5 at \(1,\)"),
        (lambda: calibration_curve(torch.tensor([-0.5])), r"pit_values: .* -0.5 at \(0,\)"),
        (lambda: calibration_curve(torch.zeros(0)), r"pit_values: expected at least one"),
        (lambda: calibration_curve(torch.zeros(2), [1.2]), r"levels: .* got 1.2"),
        (lambda: calibration_curve(torch.zeros(2), effective_count=0), r"effective_count: .* 0"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
