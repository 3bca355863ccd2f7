"""Time series of several channels, and the benchmark ones."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyro_vdn.datasets.borders import ETT_HOURLY, Borders
from pyro_vdn.datasets.cache import read_dataset
from pyro_vdn.datasets.checks import require_finite, unknown_name
from pyro_vdn.errors import InputError

SERIES_NAMES = ("etth1", "etth2", "exchange", "co2")


@dataclass(frozen=True, eq=False)
class Series:
    """Channels measured at the same regular steps.

    Args:
        values: The measurements, `(time, channels)`, in their own units.
        names: A name per channel.
        step: The time from one row to the next, in words.
        name: The name of the series.
        borders: Where the standard split of the series lies; None for 70/10/20 per cent.
        has_gaps: Whether NaN may stand for a value that was not measured.

    Raises:
        InputError: If the shapes do not agree or a value is infinite, or NaN in a series without
            gaps.

    Example:
        >>> Series(torch.randn(100, 2), ("a", "b"), "1 hour", "mine").values.shape
        torch.Size([100, 2])
    """

    values: Tensor
    names: tuple[str, ...]
    step: str
    name: str
    borders: Borders | None = None
    has_gaps: bool = False

    def __post_init__(self) -> None:
        """Check shapes and values."""
        if self.values.dim() != 2 or self.values.shape[1] != len(self.names):
            raise InputError(
                f"series {self.name!r}",
                expected=f"values (time, {len(self.names)}), a column per name",
                got=f"shape {tuple(self.values.shape)}",
                hint="values[:, None] for a single channel",
            )
        values = self.values
        if self.has_gaps:
            values = values.masked_fill(values.isnan(), 0.0)
        require_finite(f"series {self.name!r}", values, self.names)

    def __len__(self) -> int:
        """Count the time steps."""
        return len(self.values)


def load_series(name: str, *, dtype: torch.dtype = torch.float32) -> Series:
    """Load a forecasting benchmark, in its own units.

    Args:
        name: `"etth1"` and `"co2"`, which ship with the library, `"etth2"` or `"exchange"`. Weeks
            without a measurement are NaN in `"co2"`.
        dtype: The type of the values.

    Returns:
        The series, values `(time, channels)`.

    Raises:
        InputError: If the name is unknown, or as for `fetch`.

    Example:
        >>> series = load_series("etth1")
        >>> series.values.shape, series.names[-1], series.step
        (torch.Size([17420, 7]), 'OT', '1 hour')
    """
    if name not in SERIES_NAMES:
        raise unknown_name("series", name, SERIES_NAMES)
    text = read_dataset(name).decode()
    if name == "exchange":
        values = np.loadtxt(io.StringIO(text), delimiter=",", ndmin=2)  # (time, channels)
        names = tuple(f"rate{channel}" for channel in range(values.shape[1]))
        return Series(torch.as_tensor(values, dtype=dtype), names, "1 day", name)
    names, columns = _columns(text)
    series = torch.as_tensor(columns, dtype=dtype)  # (time, channels)
    if name == "co2":
        return Series(series, names, "1 week", name, has_gaps=True)
    return Series(series, names, "1 hour", name, ETT_HOURLY)


def _columns(text: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Read the columns after the first, which holds the date; an empty field is NaN."""
    header = next(csv.reader([text[: text.index("\n")]]))
    lines = io.StringIO(text.replace(",\n", ",nan\n"))
    columns = range(1, len(header))
    values = np.loadtxt(lines, delimiter=",", skiprows=1, usecols=columns, ndmin=2)
    return tuple(header[1:]), values
