"""Means with errors over blocks, against simulation and scipy."""

from __future__ import annotations

import math

import pytest
import torch

from pyro_vdn.report.coverage_findings import Stretch, coverage_check
from pyro_vdn.report.estimates import mean_of, share_of


def test_intervals_of_few_dependent_blocks_hold_the_mean() -> None:
    """Rows of a block are one number and a little noise: 95 % must hold over 4 blocks."""
    simulations, blocks, rows = 200, 4, 5
    shared = torch.randn(simulations, blocks, 1)
    values = (shared + 0.1 * torch.randn(simulations, blocks, rows)).reshape(simulations, -1)
    members = torch.arange(blocks).repeat_interleave(rows)
    found = [mean_of(row, members) for row in values]
    held = sum(not one.differs_from(0.0) for one in found) / len(found)
    assert held == pytest.approx(0.95, abs=0.045)
    alone = [mean_of(row, torch.arange(blocks * rows)) for row in values[:80]]
    assert sum(not one.differs_from(0.0) for one in alone) / len(alone) < 0.75


def test_missing_values_and_unequal_blocks() -> None:
    values = torch.tensor([[1.0, math.nan], [2.0, 4.0], [math.nan, math.nan]])
    found = mean_of(values, torch.tensor([0, 1, 5]))
    sums = [1.0 - 7 / 3, 2.0 + 4.0 - 14 / 3]  # deviations from the mean, by block
    assert found.value == pytest.approx(7 / 3)
    assert found.error == pytest.approx(math.sqrt(2 * sum(s * s for s in sums)) / 3)
    assert found.blocks == 2
    nothing = mean_of(torch.full((2, 1), math.nan), torch.arange(2))
    assert math.isnan(nothing.value)
    assert nothing.half_width == math.inf


def test_one_block_cannot_tell() -> None:
    one = mean_of(torch.tensor([1.0, 3.0]), torch.zeros(2, dtype=torch.long))
    assert one.half_width == math.inf
    assert not one.differs_from(100.0)
    assert coverage_check(0.9, Stretch(1, 1, one)).findings == ()


def test_shares_of_few_rows_that_agree_are_not_sure() -> None:
    none = share_of(torch.zeros(3), torch.arange(3), 0.5)
    assert none.error == pytest.approx(math.sqrt(0.25 / 3))
    assert coverage_check(0.5, Stretch(1, 1, none)).findings == ()
    assert mean_of(torch.zeros(3), torch.arange(3)).differs_from(0.5)  # what it protects from
    apart = torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert share_of(apart, torch.tensor([0, 0, 1, 1]), 0.5) == mean_of(
        apart, torch.tensor([0, 0, 1, 1])
    )
