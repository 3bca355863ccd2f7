"""Reading a user's CSV file into named columns of numbers, or saying exactly why not."""

from __future__ import annotations

import csv
import importlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import torch
from torch import Tensor

from pyro_vdn.datasets.checks import require_finite
from pyro_vdn.datasets.checksum import read_file
from pyro_vdn.errors import InputError

DataFrame: TypeAlias = Any  # a pandas.DataFrame; pandas is imported only when it is needed


def read_frame(path: Path, *, separator: str = ",") -> DataFrame:
    """Read a CSV file with a header row, plain or `.gz`.

    Args:
        path: The file, UTF-8 text.
        separator: The character between fields.

    Returns:
        The table, a column per name in the header and at least two rows.

    Raises:
        InputError: If pandas is not installed, the file is missing, damaged, not text, or empty,
            or its header does not name every column once.

    Example:
        >>> from pyro_vdn.datasets import fetch
        >>> read_frame(fetch("etth1")).shape
        (17420, 8)
    """
    pandas = import_pandas()
    text = _text(path)
    names = _header(path, text, separator)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            frame = pandas.read_csv(
                io.StringIO(text),
                sep=separator,
                header=0,
                names=names,
                index_col=False,
                skipinitialspace=True,
                low_memory=False,
            )
    except (ValueError, pandas.errors.ParserWarning) as error:
        raise InputError(
            str(path),
            expected=f"{len(names)} fields in every row, as in the header",
            got=str(error).strip(),
            hint="look at that row, or pass separator=';' if the fields are separated so",
        ) from error
    if len(frame) < 2:
        raise InputError(
            str(path),
            expected="at least 2 data rows below the header",
            got=f"{len(frame)}",
            hint="check that the file is complete",
        )
    return frame


def numeric_columns(
    frame: DataFrame, columns: Sequence[str], *, what: str, dtype: torch.dtype
) -> Tensor:
    """Take columns out of a table as finite numbers.

    Args:
        frame: The table.
        columns: The names of the columns wanted.
        what: What an error should call the table.
        dtype: The type of the result.

    Returns:
        The numbers, `(rows, columns)`.

    Raises:
        InputError: If a column holds something that is not a number, is missing, or is infinite.

    Example:
        >>> from pyro_vdn.datasets import fetch
        >>> frame = read_frame(fetch("etth1"))
        >>> numeric_columns(frame, ["OT"], what="ETTh1", dtype=torch.float32).shape
        torch.Size([17420, 1])
    """
    pandas = import_pandas()
    numbers = {}
    for column in columns:
        raw = frame[column]
        numbers[column] = pandas.to_numeric(raw, errors="coerce")
        wrong = (numbers[column].isna() & raw.notna()).to_numpy()
        if wrong.any():
            row = int(wrong.argmax())
            raise InputError(
                what,
                expected=f"numbers in column {column!r}",
                got=f"{str(raw.iloc[row])[:60]!r} at row {row} (row 0 is the first data row)",
                hint="name only the numeric columns, or encode this one as numbers",
            )
    array = pandas.DataFrame(numbers).to_numpy(dtype="float64")  # (rows, columns)
    values = torch.tensor(array).to(dtype)
    require_finite(what, values, list(columns))
    return values


def import_pandas() -> ModuleType:
    """Import pandas when it is first needed.

    Returns:
        The module.

    Raises:
        InputError: If it is not installed.

    Example:
        >>> import_pandas().__name__
        'pandas'
    """
    try:
        return importlib.import_module("pandas")
    except ImportError as error:
        raise InputError(
            "reading CSV files",
            expected="the package pandas",
            got=str(error),
            hint="pip install 'pyro-vdn[train]'",
        ) from error


def _text(path: Path) -> str:
    try:
        text = read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_csv(
            path, f"bytes that are not text ({error.reason} at {error.start})"
        ) from error
    if "\0" in text:
        raise _not_csv(path, f"a zero byte at character {text.index(chr(0))}")
    if not text.strip():
        raise _not_csv(path, "an empty file")
    return text


def _not_csv(path: Path, got: str) -> InputError:
    return InputError(
        str(path),
        expected="a CSV file of UTF-8 text with a header row",
        got=got,
        hint="export the table as CSV, in UTF-8",
    )


def _header(path: Path, text: str, separator: str) -> list[str]:
    first = csv.reader(text.lstrip().splitlines()[:1], delimiter=separator)
    names = [name.strip() for name in next(first)]
    problem = None
    if all(_is_number(name) for name in names):
        problem = "a first row of numbers"
    elif "" in names:
        problem = f"no name for column {names.index('')} (0 is the first)"
    elif len(set(names)) < len(names):
        problem = f"{next(name for name in names if names.count(name) > 1)!r} twice"
    if problem:
        raise InputError(
            str(path),
            expected="a header row that names every column once",
            got=problem,
            hint="add the names; with pandas, to_csv(index=False)",
        )
    return names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
