"""A user's own data: a regression table or a time series from a CSV file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from pyro_vdn.datasets.checks import require_varying, unknown_name
from pyro_vdn.datasets.csvfile import DataFrame, import_pandas, numeric_columns, read_frame
from pyro_vdn.datasets.series import Series
from pyro_vdn.datasets.table import Table
from pyro_vdn.errors import InputError

_TIME_NAMES = ("date", "datetime", "time", "timestamp", "ds")


def read_csv_table(
    path: str | os.PathLike[str],
    target: str,
    *,
    features: Sequence[str] | None = None,
    separator: str = ",",
    dtype: torch.dtype = torch.float32,
) -> Table:
    """Read a regression table from a CSV file with a header row.

    Args:
        path: The file, UTF-8 text, plain or `.gz`.
        target: The column to predict.
        features: The columns to predict from; by default every other one.
        separator: The character between fields.
        dtype: The type of the tensors.

    Returns:
        The table, features `(rows, num_features)` and target `(rows, 1)`.

    Raises:
        InputError: If the file cannot be read as CSV, a column is unknown, not numeric, or has a
            missing or infinite value, or the target is constant.

    Example:
        >>> from pyro_vdn.datasets import fetch
        >>> table = read_csv_table(fetch("etth1"), "OT", features=["HUFL", "HULL"])
        >>> table.features.shape, table.target.shape, table.name
        (torch.Size([17420, 2]), torch.Size([17420, 1]), 'ETTh1')
    """
    path = Path(path)
    frame = read_frame(path, separator=separator)
    _require_columns(path, frame, [target], separator)
    if features is None:
        features = [name for name in frame.columns if name != target]
    _require_columns(path, frame, features, separator)
    if not features or target in features:
        raise InputError(
            f"features of {path}",
            expected=f"at least one column other than the target {target!r}",
            got=repr(list(features)),
            hint="name the columns to predict from in features=[...]",
        )
    x = numeric_columns(frame, features, what=str(path), dtype=dtype)
    y = numeric_columns(frame, [target], what=str(path), dtype=dtype)
    require_varying(f"target of {path}", y, [target])
    return Table(x, y, tuple(features), _stem(path), target)


def read_csv_series(
    path: str | os.PathLike[str],
    target: str | Sequence[str] | None = None,
    *,
    time: str | None = None,
    separator: str = ",",
    dtype: torch.dtype = torch.float32,
) -> Series:
    """Read a time series from a CSV file with a header row and a row per time step.

    Args:
        path: The file, UTF-8 text, plain or `.gz`, oldest row first.
        target: The channel or channels to read; by default every column but the time.
        time: The column that holds the time; by default one called date, datetime, time,
            timestamp or ds, if there is one. It must increase from row to row.
        separator: The character between fields.
        dtype: The type of the values.

    Returns:
        The series, values `(time, channels)`; its step is the commonest one in the time column.

    Raises:
        InputError: If the file cannot be read as CSV, a column is unknown, not numeric, constant,
            or has a missing or infinite value, or the time does not increase.

    Example:
        >>> from pyro_vdn.datasets import fetch
        >>> series = read_csv_series(fetch("etth1"), "OT")
        >>> series.values.shape, series.names, series.step
        (torch.Size([17420, 1]), ('OT',), '0 days 01:00:00')
    """
    path = Path(path)
    frame = read_frame(path, separator=separator)
    if time is None:
        time = next((name for name in frame.columns if name.lower() in _TIME_NAMES), None)
    else:
        _require_columns(path, frame, [time], separator)
    if target is None:
        names = [name for name in frame.columns if name != time]
    else:
        names = [target] if isinstance(target, str) else list(target)
    _require_columns(path, frame, names, separator)
    if not names:
        raise InputError(
            str(path),
            expected="at least one channel",
            got="none",
            hint="a numeric column beside the time",
        )
    step = "1 row" if time is None else _step(path, frame, time)
    values = numeric_columns(frame, names, what=str(path), dtype=dtype)
    require_varying(f"channels of {path}", values, names)
    return Series(values, tuple(names), step, _stem(path))


def _require_columns(path: Path, frame: DataFrame, names: Sequence[str], separator: str) -> None:
    available = [str(name) for name in frame.columns]
    for name in names:
        if name in available:
            continue
        for other in (";", "\t", ","):
            if len(available) == 1 and other != separator and other in available[0]:
                raise InputError(
                    str(path),
                    expected=f"fields separated by {separator!r}",
                    got=f"a header with {other!r} and no {separator!r}",
                    hint=f"separator={other!r}",
                )
        raise unknown_name(f"column of {path}", name, available)


def _step(path: Path, frame: DataFrame, time: str) -> str:
    pandas = import_pandas()
    stamps = frame[time]
    if not pandas.api.types.is_numeric_dtype(stamps):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # pandas only warns when it guesses a format
                stamps = pandas.to_datetime(stamps)
        except (ValueError, TypeError, Warning) as error:
            raise InputError(
                f"column {time!r} of {path}",
                expected="times such as 2016-07-01 00:00:00, or numbers",
                got=str(error),
                hint="write the times so, or drop the column",
            ) from error
    wrong = ~(stamps.to_numpy()[1:] > stamps.to_numpy()[:-1])
    if wrong.any():
        row = int(wrong.argmax()) + 1
        raise InputError(
            f"column {time!r} of {path}",
            expected="times that increase from row to row",
            got=f"{stamps.iloc[row]} at row {row}, after {stamps.iloc[row - 1]} "
            "(row 0 is the first data row)",
            hint="sort the rows by time and drop repeated ones",
        )
    return str(stamps.diff().mode().iloc[0])


def _stem(path: Path) -> str:
    return path.name.split(".")[0]
