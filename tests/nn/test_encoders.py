"""Encoders against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pyro_vdn.errors import InputError
from pyro_vdn.nn import MLPEncoder, TrendSeasonalEncoder, normalise_window


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_normalise_window(batch: tuple[int, ...]) -> None:
    x = 3 + 2 * torch.randn(*batch, 24)
    window = normalise_window(x)
    torch.testing.assert_close(window.units.restore(window.values), x)
    assert (window.values[..., -1] == 0).all()
    np.testing.assert_allclose(window.units.spread[..., 0].numpy(), x.numpy().std(-1), rtol=1e-12)
    torch.testing.assert_close(window.values.std(-1, correction=0), torch.ones(batch))


@pytest.mark.parametrize("factor", [0.1, 100.0])
def test_normalised_window_has_no_units(factor: float) -> None:
    x = torch.randn(5, 24)
    moved = normalise_window(factor * x - 7.0, min_spread=1e-9)
    torch.testing.assert_close(moved.values, normalise_window(x).values)


@pytest.mark.parametrize("min_spread", [1e-2, 0.5])
def test_flat_window_is_not_blown_up(min_spread: float) -> None:
    window = normalise_window(torch.full((2, 6), 4.0), min_spread=min_spread)
    assert (window.values == 0).all()
    assert (window.units.spread == min_spread).all()


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
@pytest.mark.parametrize("kernel_size", [1, 3, 11])
def test_moving_average(kernel_size: int, batch: tuple[int, ...]) -> None:
    encoder = TrendSeasonalEncoder(11, 2, kernel_size=kernel_size)
    x = torch.randn(*batch, 11)
    half = kernel_size // 2
    padded = np.pad(x.numpy(), [(0, 0)] * len(batch) + [(half, half)], mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel_size, axis=-1)
    torch.testing.assert_close(encoder.moving_average(x), torch.from_numpy(windows.mean(-1)))


def test_trend_and_seasonal_by_hand() -> None:
    encoder, x = TrendSeasonalEncoder(9, 4, kernel_size=3), torch.randn(5, 9)
    trend = encoder.moving_average(x)
    by_hand = trend @ encoder.trend.weight.T + encoder.trend.bias
    by_hand = by_hand + (x - trend) @ encoder.seasonal.weight.T
    torch.testing.assert_close(encoder(x), by_hand)
    assert encoder(x.new_zeros(2, 3, 9)).shape == (2, 3, 4)


@pytest.mark.parametrize("hidden", [(), (5,), (5, 2)])
def test_mlp(hidden: tuple[int, ...]) -> None:
    encoder, x = MLPEncoder(3, hidden), torch.randn(4, 3)
    h = x
    for layer in list(encoder)[::2]:
        h = torch.relu(h @ layer.weight.T + layer.bias)
    torch.testing.assert_close(encoder(x), h)
    assert encoder.out_features == (hidden or (3,))[-1]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: MLPEncoder(0, [5]), "in_features: expected a positive integer"),
        (lambda: MLPEncoder(3, [5, 0]), "hidden: expected a positive integer, got 0"),
        (lambda: TrendSeasonalEncoder(9, 0), "out_features: expected a positive integer"),
        (lambda: TrendSeasonalEncoder(9, 4, kernel_size=4), "kernel_size: expected an odd length"),
        (lambda: TrendSeasonalEncoder(9, 4, kernel_size=11), "of at most 9, got 11"),
        (lambda: TrendSeasonalEncoder(9, 4, kernel_size=-1), "kernel_size: expected an odd"),
        (
            lambda: TrendSeasonalEncoder(9, 4, kernel_size=3)(torch.zeros(2, 8)),
            r"input of TrendSeasonalEncoder: expected shape \(\.\.\., 9\), got shape \(2, 8\)",
        ),
    ],
)
def test_refusals(make: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        make()
