"""Checks shared by the loaders: names that exist, values that are finite."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_vdn.errors import InputError


def unknown_name(what: str, name: object, options: Sequence[str]) -> InputError:
    """Build the error for a name that is not among the options, with the closest match.

    Args:
        what: What the name was to be a name of.
        name: The name that came.
        options: Every name that exists.

    Returns:
        The error, to be raised by the caller.

    Example:
        >>> raise unknown_name("channel", "0T", ["HUFL", "OT"])
        Traceback (most recent call last):
            ...
        pyro_vdn.errors.InputError: channel: expected one of 'HUFL', 'OT', got '0T'. Try: 'OT'
    """
    folded = {option.casefold(): option for option in options}
    close = difflib.get_close_matches(str(name).casefold(), folded, n=1, cutoff=0.5)
    hint = repr(folded[close[0]]) if close else "one of the names listed"
    return InputError(
        what, expected=f"one of {', '.join(map(repr, options))}", got=repr(name), hint=hint
    )


def require_finite(what: str, values: Tensor, names: Sequence[str]) -> None:
    """Refuse NaN and infinities, and name the first place where one stands.

    Args:
        what: What the values belong to.
        values: The values, `(rows, columns)`.
        names: A name per column.

    Raises:
        InputError: If a value is not finite.

    Example:
        >>> require_finite("x", torch.tensor([[1.0], [float("nan")]]), ["a"])
        Traceback (most recent call last):
            ...
        pyro_vdn.errors.InputError: x: expected finite values, got nan at row 1, column 'a' \
(row 0 is the first data row). Try: drop or fill the row
    """
    bad = ~torch.isfinite(values)
    if bad.any():
        row, column = bad.nonzero()[0].tolist()
        raise InputError(
            what,
            expected="finite values",
            got=f"{values[row, column].item()} at row {row}, column {names[column]!r} "
            "(row 0 is the first data row)",
            hint="drop or fill the row",
        )


def require_varying(what: str, values: Tensor, names: Sequence[str]) -> None:
    """Refuse a column that holds one value only.

    Args:
        what: What the values belong to.
        values: The values, `(rows, columns)`.
        names: A name per column.

    Raises:
        InputError: If a column is constant.

    Example:
        >>> require_varying("target", torch.ones(3, 1), ["y"])
        Traceback (most recent call last):
            ...
        pyro_vdn.errors.InputError: target: expected values that vary, got column 'y' with \
1.0 in all 3 rows. Try: another target, or more rows
    """
    constant = values.amin(0) == values.amax(0)
    if constant.any():
        column = int(constant.nonzero()[0])
        raise InputError(
            what,
            expected="values that vary",
            got=f"column {names[column]!r} with {values[0, column].item()} "
            f"in all {len(values)} rows",
            hint="another target, or more rows",
        )
