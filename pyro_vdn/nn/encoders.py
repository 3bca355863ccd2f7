"""Encoders: what stands between the data and the neurons."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.nn.readouts import Units
from pyro_vdn.nn.shapes import check_features, check_positive


class MLPEncoder(nn.Sequential):
    """A multilayer perceptron with relu activations.

    Args:
        in_features: Size of the input.
        hidden: Sizes of the layers, the last of them the size of the output; empty for the
            identity.

    Shape:
        Input `(..., in_features)`; output `(..., hidden[-1])`.

    Example:
        >>> MLPEncoder(8, [50])(torch.zeros(5, 8)).shape
        torch.Size([5, 50])
    """

    def __init__(self, in_features: int, hidden: Sequence[int]) -> None:
        check_positive(in_features=in_features)
        sizes = [in_features, *hidden]
        layers: list[nn.Module] = []
        for size, next_size in pairwise(sizes):
            check_positive(hidden=next_size)
            layers += [nn.Linear(size, next_size), nn.ReLU()]
        super().__init__(*layers)
        self.in_features = in_features
        self.out_features = sizes[-1]


class Window(NamedTuple):
    """A normalised window and the units to restore its forecasts to.

    Args:
        values: `(..., input_length)`, last value 0, unit spread.
        units: Shift and spread of the window, each `(..., 1)`.

    Example:
        >>> window = normalise_window(torch.tensor([[1.0, 3.0, 2.0]]))
        >>> window.units.restore(window.values)
        tensor([[1., 3., 2.]])
    """

    values: Tensor
    units: Units


def normalise_window(x: Tensor, *, min_spread: float = 1e-2) -> Window:
    """Subtract a window's last value and divide by its standard deviation (instance normalisation).

    Args:
        x: Windows, `(..., input_length)`.
        min_spread: Floor under the spread, in the units of `x`: a flat window is not blown up.

    Returns:
        The normalised window with its units.

    Example:
        >>> normalise_window(torch.tensor([[1.0, 3.0, 2.0]])).values[0, -1].item()
        0.0

    Source:
        Kim et al., *Reversible Instance Normalization*, ICLR 2022; the last value as centre follows
        NLinear (Zeng et al., AAAI 2023).
    """
    shift = x[..., -1:]
    spread = (x - shift).std(-1, keepdim=True, correction=0).clamp_min(min_spread)
    return Window((x - shift) / spread, Units(shift, spread))


class TrendSeasonalEncoder(nn.Module):
    """A linear map of a window's trend and of its seasonal part, as in DLinear.

    The trend is the window's moving average; the seasonal part is what remains.

    Args:
        input_length: Length of the window.
        out_features: Size of the output.
        kernel_size: Length of the moving average, odd; the window's ends are repeated to keep its
            length.

    Shape:
        Input `(..., input_length)`, normalised (see `normalise_window`); output
        `(..., out_features)`.

    Raises:
        InputError: For an even kernel, or a window shorter than the kernel.

    Example:
        >>> TrendSeasonalEncoder(336, 128)(torch.zeros(5, 336)).shape
        torch.Size([5, 128])

    Source:
        Zeng et al., *Are Transformers Effective for Time Series Forecasting?*, AAAI 2023.
    """

    def __init__(self, input_length: int, out_features: int, *, kernel_size: int = 25) -> None:
        super().__init__()
        check_positive(input_length=input_length, out_features=out_features)
        if kernel_size % 2 == 0 or not 1 <= kernel_size <= input_length:
            raise InputError(
                "kernel_size",
                expected=f"an odd length of at most {input_length}",
                got=str(kernel_size),
                hint="kernel_size=25 for long windows, 1 for no trend",
            )
        self.input_length = input_length
        self.kernel_size = kernel_size
        self.trend = nn.Linear(input_length, out_features)
        self.seasonal = nn.Linear(input_length, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Encode windows `x` of shape `(..., input_length)`."""
        check_features(f"input of {type(self).__name__}", x, self.input_length)
        trend = self.moving_average(x)
        encoded: Tensor = self.trend(trend) + self.seasonal(x - trend)
        return encoded

    def moving_average(self, x: Tensor) -> Tensor:
        """Return the centred moving average of `x`, of the same shape `(..., input_length)`."""
        half = self.kernel_size // 2
        first, last = x[..., :1], x[..., -1:]
        padded = torch.cat(
            [first.expand(*x.shape[:-1], half), x, last.expand(*x.shape[:-1], half)], -1
        )
        rows = padded.reshape(-1, 1, padded.shape[-1])
        return F.avg_pool1d(rows, self.kernel_size, stride=1).reshape(x.shape)
