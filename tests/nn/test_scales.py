"""The raw number behind a scale."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pyro_vdn.nn.scales import raw_scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("floor", [0.0, 1e-3, 0.5])
def test_scales_come_back(floor: float, dtype: torch.dtype) -> None:
    above = torch.tensor([2e-6, 1e-4, 0.03, 1.0, 7.0, 60.0, 1e4], dtype=dtype)
    raw = raw_scale(floor + above, floor)
    assert raw.dtype == dtype
    torch.testing.assert_close(floor + F.softplus(raw), floor + above)
    if floor == 0.0:
        torch.testing.assert_close(F.softplus(raw), above, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("floor", [0.0, 1e-3, 0.5])
def test_what_is_not_above_the_floor_ends_just_above_it(floor: float, dtype: torch.dtype) -> None:
    raw = raw_scale(torch.tensor([floor, 0.5 * floor, 0.0], dtype=dtype), floor)
    assert raw.isfinite().all()
    torch.testing.assert_close(F.softplus(raw), torch.full_like(raw, 1e-6), rtol=1e-5, atol=0.0)
