from __future__ import annotations

import pytest
import torch

from pyro_vdn.diagnostics import crps_draws, draw_quantiles
from pyro_vdn.diagnostics._sorting import sorted_draws


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int64])
def test_order_and_dtype_are_those_of_torch(dtype: torch.dtype) -> None:
    values = (10 * torch.randn(9, 3, 5)).to(dtype)
    for given in (values, values.expand(2, 9, 3, 5).transpose(0, 1)):
        found = sorted_draws(given)
        assert found.dtype == dtype
        assert torch.equal(found, given.sort(dim=0).values)


def test_gradients_pass_and_inputs_stay() -> None:
    values = torch.randn(9, 4)
    before = values.clone()
    sorted_draws(values)
    assert torch.equal(values, before)
    followed = values.clone().requires_grad_()
    crps_draws(followed, torch.zeros(4)).sum().backward()
    assert followed.grad is not None
    assert followed.grad.abs().sum() > 0
    levels = draw_quantiles(values.requires_grad_(), [0.5])
    assert torch.equal(levels, draw_quantiles(before, [0.5]))
