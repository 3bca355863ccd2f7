"""Windows in sequence: for each of several windows in a row, what follows it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

from pyro_vdn.datasets.borders import Borders, percent_borders, require_borders
from pyro_vdn.datasets.series import Series
from pyro_vdn.errors import InputError


class Sequences(NamedTuple):
    """Windows in sequence, one channel at a time, and the targets of every window.

    NaN says what was not measured: a window with any NaN is missing, and so is such a target.

    Args:
        x: Windows that follow one another without overlap, `(rows, steps, window)`.
        y: What follows each of them, `(rows, steps, horizon)`.

    Example:
        >>> import torch
        >>> Sequences(torch.zeros(5, 28, 24), torch.zeros(5, 28, 12)).x.shape
        torch.Size([5, 28, 24])
    """

    x: Tensor
    y: Tensor


class SequenceSplits(NamedTuple):
    """The sequences of the three parts of a series.

    Args:
        train: Sequences to fit on.
        validation: Sequences to choose by.
        test: Sequences to report on.
        context: Windows at the start of a sequence whose targets are not to be scored.

    Example:
        >>> from pyro_vdn.datasets import load_series
        >>> parts = window_sequences(
        ...     load_series("co2"), window=4, horizon=8, steps=39, context=13
        ... )
        >>> parts.train.x.shape, parts.test.y.shape
        (torch.Size([1435, 39, 4]), torch.Size([345, 39, 8]))
    """

    train: Sequences
    validation: Sequences
    test: Sequences
    context: int


def window_sequences(
    series: Series,
    *,
    window: int,
    horizon: int,
    steps: int,
    context: int,
    strides: tuple[int, int] = (1, 1),
    borders: Borders | Literal["standard"] = "standard",
) -> SequenceSplits:
    """Cut a series into sequences of windows, one channel at a time.

    Every sequence is centred on the mean of what was measured in its first `context` windows, which
    is known when anything after them is forecast, and divided by the root mean square of the
    channel's centred training sequences: so a drift of years is nothing to extrapolate. All scored
    targets lie inside their own part; only the context may reach back into the part before.

    Args:
        series: The series, in its own units; NaN where nothing was measured.
        window: Length of a window.
        horizon: Length of the target after each window.
        steps: Windows in a sequence.
        context: Windows at the start of a sequence that are not scored.
        strides: Steps of the series from one sequence to the next, for training and for the other
            parts.
        borders: Where the parts end; `"standard"` takes those of the series, else 70/10/20 %.

    Returns:
        The sequences of each part; row `r` is of channel `r % channels`.

    Raises:
        InputError: For a length below 1, a context that leaves nothing to score, or a part too
            short for one sequence.

    Example:
        >>> import torch
        >>> values = torch.arange(200.0)[:, None]
        >>> ramp = Series(values, ("a",), "1 day", "ramp")
        >>> parts = window_sequences(ramp, window=2, horizon=1, steps=5, context=2)
        >>> x, y = parts.test.x[0] * 3.0, parts.test.y[0] * 3.0
        >>> bool(torch.allclose(x[1:, 0] - x[:-1, 1], y[:-1, 0] - x[:-1, 1], atol=1e-3))
        True
    """
    _check_lengths(window=window, horizon=horizon, steps=steps, context=context)
    _check_lengths(train_stride=strides[0], stride=strides[1])
    if context >= steps:
        raise InputError(
            "context",
            expected=f"fewer than steps={steps} windows",
            got=str(context),
            hint=f"context={steps // 4}",
        )
    chosen = series.borders or percent_borders(len(series)) if borders == "standard" else borders
    require_borders(chosen, len(series))
    length = steps * window + horizon
    parts = []
    train_stride, stride_of_others = strides
    each = (train_stride, stride_of_others, stride_of_others)
    for (begin, end), stride in zip(chosen.parts(), each, strict=True):
        stretch = series.values[max(begin - context * window, 0) : end]
        if len(stretch) < length:
            raise InputError(
                f"part of series {series.name!r}",
                expected=f"at least {length} rows for one sequence, context included",
                got=f"{len(stretch)} rows",
                hint="fewer steps, or shorter windows",
            )
        rows = stretch.unfold(0, length, stride)  # (starts, channels, length)
        rows = rows - rows[..., : context * window].nanmean(-1, keepdim=True)
        parts.append(rows)
    scale = parts[0].square().nanmean(-1).nanmean(0).sqrt()  # (channels,)
    bad = ~(scale.isfinite() & (scale > 0))
    if bool(bad.any()):
        channel = int(bad.nonzero()[0])
        raise InputError(
            f"channel {series.names[channel]!r} of series {series.name!r}",
            expected="values that vary within training sequences",
            got=f"a spread of {float(scale[channel])}",
            hint="drop the channel; or a context long enough to hold a measurement",
        )
    train, validation, test = (
        _laid_out(rows / scale[:, None], window, horizon, steps) for rows in parts
    )
    return SequenceSplits(train, validation, test, context)


def _laid_out(rows: Tensor, window: int, horizon: int, steps: int) -> Sequences:
    """Cut `(starts, channels, length)` into windows and what follows each."""
    flat = rows.flatten(0, 1)
    x = flat[:, : steps * window].reshape(-1, steps, window)
    y = flat[:, window:].unfold(-1, horizon, window)[:, :steps]
    return Sequences(x, y.contiguous())


def _check_lengths(**lengths: int) -> None:
    for name, length in lengths.items():
        if length < 1:
            raise InputError(name, expected="at least 1", got=str(length), hint=f"{name}=1")
