from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_vdn.diagnostics import ecdf_band, quantile_reliability
from pyro_vdn.errors import InputError

LEVELS = [0.1, 0.25, 0.5, 0.75, 0.9]


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def exact(*shape: int) -> Tensor:
    """Return the quantiles of standard Normals, `(levels, *shape)`."""
    values = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(LEVELS).double())
    return values.reshape(-1, *(1,) * len(shape)).expand(-1, *shape)


@pytest.mark.parametrize("shape", [(50,), (50, 2), (50, 3, 2)])
def test_shares_are_those_below_by_row_labels_and_by_entry_labels(shape: tuple[int, ...]) -> None:
    target, quantiles = normal(*shape), exact(*shape) + normal(1, *shape, seed=1)
    below = (target <= quantiles).double()
    found = quantile_reliability(quantiles, LEVELS, target)
    torch.testing.assert_close(found.empirical, below.flatten(1).mean(dim=1)[None])
    assert found.groups == ("all",)
    assert found.count.tolist() == [target.numel()]
    gap = (found.empirical - torch.tensor(LEVELS).double()).abs().max()
    torch.testing.assert_close(found.worst_gap(), gap[None])
    rows = torch.tensor([3, 7]).repeat(25)
    by_row = quantile_reliability(quantiles, LEVELS, target, groups=rows)
    assert by_row.groups == (3, 7)
    torch.testing.assert_close(by_row.empirical[1], below[:, rows == 7].flatten(1).mean(dim=1))
    entries = torch.arange(target.numel()).reshape(shape) % 3
    by_entry = quantile_reliability(quantiles, LEVELS, target, groups=entries)
    torch.testing.assert_close(by_entry.empirical[2], below[:, entries == 2].mean(dim=1))
    assert by_entry.count.tolist() == [int((entries == at).sum()) for at in range(3)]


@pytest.mark.parametrize(
    ("effective_count", "by_row", "by_quarter", "by_hour_of_half"),
    [
        (None, [120] * 4, [120] * 4, [40] * 12),
        (20, [5] * 4, [20] * 4, [10] * 12),  # days as they are
        (10, [2] * 4, [10] * 4, [5] * 12),  # days that depend on each other
        (80, [20] * 4, [20] * 4, [10] * 12),  # quarters of a day that do not
    ],
)
def test_groups_count_the_rows_they_have_a_part_of(
    effective_count: int | None,
    by_row: list[int],
    by_quarter: list[int],
    by_hour_of_half: list[int],
) -> None:
    target, hours = normal(20, 24), torch.arange(24).expand(20, 24)
    halves = hours // 4 + 6 * (torch.arange(20) // 10)[:, None]  # four hours of half of the days
    for labels, expected in (
        (torch.arange(20) // 5, by_row),
        (hours // 6, by_quarter),
        (halves, by_hour_of_half),
    ):
        found = quantile_reliability(
            exact(20, 24), LEVELS, target, groups=labels, effective_count=effective_count
        )
        assert found.count.tolist() == expected


def test_bands_of_parts_of_dependent_rows_hold_as_often_as_they_say() -> None:
    # Each of 200 sets has 40 rows, whose 4 steps are equal: two groups of two steps.
    target = normal(200, 40, 1).expand(200, 40, 4)
    labels = (torch.arange(4) // 2).expand(40, 4)
    quantiles = exact(40, 4)
    inside = [
        quantile_reliability(
            quantiles, LEVELS, one, groups=labels, level=0.9, effective_count=40
        ).inside[0]
        for one in target
    ]
    share = float(torch.stack(inside).double().mean())
    assert 0.9 - 0.055 < share < 0.97  # four errors of 200 sets; with 20 targets it is 0.99


def test_band_holds_calibrated_quantiles_as_often_as_it_says() -> None:
    # Each of 600 columns of 80 targets is a group of its own.
    target = normal(80, 600)
    columns = torch.arange(600).expand(80, 600)
    found = quantile_reliability(exact(80, 600), LEVELS, target, groups=columns, level=0.9)
    share = float(found.inside.double().mean())
    assert 0.9 - 0.035 < share < 0.96  # at least 0.9, more as counts are whole


def test_band_is_that_of_uniform_values_below_the_levels() -> None:
    levels = [i / 10 for i in range(1, 10)]
    target = normal(200)
    quantiles = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(levels).double())
    found = quantile_reliability(quantiles[:, None].expand(-1, 200), levels, target, level=0.8)
    band = ecdf_band(200, level=0.8, points=9)
    torch.testing.assert_close(found.lower[0], torch.as_tensor(band.lower.copy()))
    torch.testing.assert_close(found.upper[0], torch.as_tensor(band.upper.copy()))


@pytest.mark.parametrize(("spread", "shift"), [(0.7, 0.0), (1.4, 0.0), (1.0, 0.3)])
def test_wrong_spread_or_location_leaves_the_band(spread: float, shift: float) -> None:
    target = spread * normal(500) + shift
    found = quantile_reliability(exact(500), LEVELS, target)
    assert not bool(found.inside)
    # With ten times fewer independent targets nothing can be said against it.
    assert bool(quantile_reliability(exact(500), LEVELS, target, effective_count=25).inside)


TWO = torch.zeros(2)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: quantile_reliability(TWO, [0.5], TWO), r"quantiles: .*\(1, 2\), got shape \(2,"),
        (lambda: quantile_reliability(TWO[None], [1.5], TWO), r"levels: .* got 1.5"),
        (
            lambda: quantile_reliability(TWO.expand(2, 2), [0.5, 0.4], TWO),
            r"levels: expected rising levels, got \[0.5, 0.4\]",
        ),
        (
            lambda: quantile_reliability(TWO[None], [0.5], TWO, groups=[1, 2, 3]),
            r"groups: expected labels of shape \(2,\)",
        ),
        (
            lambda: quantile_reliability(TWO[None], [0.5], TWO, effective_count=0),
            r"effective_count: expected at least 1, got 0",
        ),
        (lambda: quantile_reliability(TWO[None], [0.5], TWO, level=0.0), r"level: .* got 0.0"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
