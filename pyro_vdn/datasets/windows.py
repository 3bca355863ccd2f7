"""Forecasting windows: an input, the target that follows it, and no leak between parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyro_vdn.datasets.borders import Borders, percent_borders, require_borders
from pyro_vdn.datasets.checks import unknown_name
from pyro_vdn.datasets.series import Series
from pyro_vdn.datasets.standardize import Standardizer
from pyro_vdn.errors import InputError


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """Every window of a stretch of series, one channel at a time.

    A row is one window of one channel; row `r` is window `r // channels` of channel
    `r % channels`. An integer index gives `x` `(input_length,)` and `y` `(horizon,)`; a slice, a
    list or a tensor gives `x` `(rows, input_length)` and `y` `(rows, horizon)`. Windows overlap
    in memory; only what is indexed is copied.

    Args:
        values: The stretch, `(time, channels)`.
        names: A name per channel.
        input_length: Steps to look back on.
        horizon: Steps to forecast.
        stride: Steps from the start of one window to the next.
        first_row: The row of the whole series at which the stretch begins.

    Raises:
        InputError: If a length is not positive or the stretch is shorter than one window.

    Example:
        >>> windows = Windows(torch.arange(6.0)[:, None], ("a",), input_length=3, horizon=2)
        >>> len(windows)
        2
        >>> windows[1]
        (tensor([1., 2., 3.]), tensor([4., 5.]))
    """

    def __init__(
        self,
        values: Tensor,
        names: Sequence[str],
        *,
        input_length: int,
        horizon: int,
        stride: int = 1,
        first_row: int = 0,
    ) -> None:
        """Lay the windows over the values, without copying them."""
        _require_lengths(input_length, horizon, stride)
        if len(values) < input_length + horizon:
            raise _too_short("values", input_length + horizon, f"{len(values)} rows")
        self.names = tuple(names)
        self.input_length = input_length
        self.horizon = horizon
        # (time, channels) -> (windows, channels, input_length + horizon)
        self._view = values.unfold(0, input_length + horizon, stride)
        rows = torch.arange(self._view.shape[0] * self._view.shape[1])
        self._rows = rows
        self.channel = rows % len(self.names)
        self.start = first_row + stride * (rows // len(self.names))

    def __len__(self) -> int:
        """Count the rows, windows times channels."""
        return len(self._rows)

    def __getitem__(self, index: Any) -> tuple[Tensor, Tensor]:
        """Give input and target of one row or of several."""
        rows = self._rows[index]
        window = self._view[rows // len(self.names), rows % len(self.names)]
        return window[..., : self.input_length], window[..., self.input_length :]

    @property
    def target_start(self) -> Tensor:
        """The row of the whole series at which each target begins, `(rows,)`."""
        return self.start + self.input_length

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Copy every row out.

        Returns:
            Inputs `(rows, input_length)` and targets `(rows, horizon)`.
        """
        return self[:]

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through every row once.

        Args:
            batch_size: Rows per batch; the last batch may hold fewer.
            shuffle: Whether to go in random order.
            generator: The source of that order; by default the global one.

        Returns:
            An iterator over inputs `(batch, input_length)` and targets `(batch, horizon)`.

        Raises:
            InputError: If the batch size is not positive.

        Example:
            >>> windows = Windows(torch.randn(9, 1), ("a",), input_length=3, horizon=2)
            >>> [len(x) for x, y in windows.batches(2)]
            [2, 2, 1]
        """
        if batch_size < 1:
            raise InputError(
                "batch_size", expected="at least 1", got=str(batch_size), hint="batch_size=256"
            )
        order = torch.randperm(len(self), generator=generator) if shuffle else self._rows
        return (self[rows] for rows in torch.split(order, batch_size))


class WindowSplits(NamedTuple):
    """The windows of the three parts of a series, in standard units.

    Args:
        train: Windows to fit on.
        validation: Windows to choose by.
        test: Windows to report on.
        standardizer: Mean and scale per channel, `(channels,)`, of the training rows.

    Example:
        >>> from pyro_vdn.datasets import load_series
        >>> windows = forecasting_windows(load_series("etth1"), channels="OT")
        >>> len(windows.train), len(windows.test)
        (8209, 2785)
    """

    train: Windows
    validation: Windows
    test: Windows
    standardizer: Standardizer


def forecasting_windows(
    series: Series,
    *,
    input_length: int = 336,
    horizon: int = 96,
    stride: int = 1,
    channels: str | Sequence[str] = "all",
    borders: Borders | Literal["standard"] = "standard",
) -> WindowSplits:
    """Cut a series into standardised windows for training, validation and test.

    Every target lies inside its own part; only the inputs of the first validation and test windows
    reach back into the part before. Each channel is standardised with its training rows.

    Args:
        series: The series, in its own units.
        input_length: Steps to look back on.
        horizon: Steps to forecast.
        stride: Steps from the start of one window to the next, in every part.
        channels: `"all"` for a row per window and channel, the usual benchmark whose error is
            averaged over channels, or the name or names of the channels wanted.
        borders: Where the parts end; `"standard"` takes those of the series, else 70/10/20 %.

    Returns:
        The windows of each part, of the type of `series.values`.

    Raises:
        InputError: If a channel is unknown or constant in the training rows, the series has gaps,
            a length is not positive, the borders are out of order, or a part is too short for one
            window.

    Example:
        >>> from pyro_vdn.datasets import load_series
        >>> parts = forecasting_windows(load_series("etth1"), channels="OT")
        >>> len(parts.train), len(parts.validation), len(parts.test)
        (8209, 2785, 2785)
        >>> x, y = parts.train[torch.tensor([0, 5])]
        >>> x.shape, y.shape
        (torch.Size([2, 336]), torch.Size([2, 96]))
    """
    _require_lengths(input_length, horizon, stride)
    _require_no_gaps(series)
    names = _channel_names(series, channels)
    columns = [series.names.index(name) for name in names]
    borders = _borders(series, borders)
    _require_room(series, borders, input_length, horizon)
    values = series.values[:, columns]  # (time, channels)
    standardizer = Standardizer.fit(
        values[: borders.train],
        what=f"training rows of series {series.name!r}",
        names=names,
        allow_constant=False,
    )
    values = standardizer.transform(values)
    train, validation, test = (
        Windows(
            values[max(begin - input_length, 0) : end],
            names,
            input_length=input_length,
            horizon=horizon,
            stride=stride,
            first_row=max(begin - input_length, 0),
        )
        for begin, end in borders.parts()
    )
    return WindowSplits(train, validation, test, standardizer)


def _borders(series: Series, borders: Borders | Literal["standard"]) -> Borders:
    if isinstance(borders, Borders):
        return borders
    if borders != "standard":
        raise InputError(
            "borders",
            expected="'standard' or Borders(train, validation, test)",
            got=repr(borders),
            hint="borders='standard'",
        )
    return series.borders or percent_borders(len(series))


def _require_no_gaps(series: Series) -> None:
    gaps = int(series.values.isnan().any(-1).sum())
    if gaps:
        raise InputError(
            f"series {series.name!r}",
            expected="a value at every step",
            got=f"NaN at {gaps} of {len(series)} steps",
            hint="window_sequences(series, ...), which keeps gaps for models that read NaN",
        )


def _channel_names(series: Series, channels: str | Sequence[str]) -> tuple[str, ...]:
    if channels == "all":
        return series.names
    names = (channels,) if isinstance(channels, str) else tuple(channels)
    for name in names:
        if name not in series.names:
            raise unknown_name(f"channel of series {series.name!r}", name, series.names)
    if not names or len(set(names)) < len(names):
        raise InputError(
            "channels",
            expected="at least one name, each once",
            got=repr(names),
            hint="channels='all'",
        )
    return names


def _require_room(series: Series, borders: Borders, input_length: int, horizon: int) -> None:
    names = ("training", "validation", "test")
    needed = (input_length + horizon, horizon, horizon)
    for name, rows, (begin, end) in zip(names, needed, borders.parts(), strict=True):
        if 0 <= end - begin < rows:
            got = f"{end - begin} of the {len(series)} rows of the series"
            raise _too_short(f"{name} part of series {series.name!r}", rows, got)
    require_borders(borders, len(series))


def _require_lengths(input_length: int, horizon: int, stride: int) -> None:
    lengths = {"input_length": input_length, "horizon": horizon, "stride": stride}
    for name, length in lengths.items():
        if length < 1:
            raise InputError(name, expected="at least 1 step", got=str(length), hint=f"{name}=1")


def _too_short(what: str, needed: int, got: str) -> InputError:
    return InputError(
        what,
        expected=f"at least {needed} rows for one window",
        got=got,
        hint="a longer series, or a shorter input_length or horizon",
    )
