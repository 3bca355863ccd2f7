from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_vdn.diagnostics import _checks, draw_quantiles
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


def test_the_median_of_one_draw_is_that_draw() -> None:
    torch.testing.assert_close(draw_quantiles(normal(1, 3), [0.5])[0], normal(1, 3)[0])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: draw_quantiles(torch.tensor(1.0), [0.5]), r"draws: expected shape \(draws, "),
        (lambda: draw_quantiles(torch.zeros(9), [0.5, 0.0]), r"levels: .* got 0.0 at \(1,\)"),
        (lambda: draw_quantiles(torch.zeros(9), [[0.5]]), r"levels: .* got shape \(1, 1\)"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
