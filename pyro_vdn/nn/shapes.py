"""Shapes of a layer, and the checks on what goes into one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vdn.errors import InputError


class LayerShape(NamedTuple):
    """The sizes of a neuron layer, handed to its parts when they make their parameters.

    Args:
        in_features: Size of the layer's input.
        num_units: Number of neurons.
        latent_dim: Latent dimensions of each neuron.

    Example:
        >>> LayerShape(8, 50, 1).latent, LayerShape(8, 50, 3).latent
        (torch.Size([50]), torch.Size([50, 3]))
    """

    in_features: int
    num_units: int
    latent_dim: int

    @property
    def latent(self) -> torch.Size:
        """Shape of one row's latent value.

        It is `(num_units,)`, or `(num_units, latent_dim)` above one latent dimension.
        """
        sizes = (self.num_units, self.latent_dim)
        return torch.Size(sizes if self.latent_dim > 1 else sizes[:1])

    @property
    def event_dim(self) -> int:
        """Number of event dimensions of the latent site."""
        return int(self.latent_dim > 1)


def inverse_softplus(value: float) -> float:
    """Return `x` with `softplus(x) = value`, for a positive `value`."""
    if not value > 0:
        raise InputError(
            "initial_scale",
            expected="a value above min_scale",
            got=f"a difference of {value}",
            hint="raise initial_scale or lower min_scale",
        )
    return value + math.log(-math.expm1(-value))


def check_choice(
    what: str, value: object, choices: Sequence[str], *, hint: str | None = None
) -> None:
    """Raise `InputError` unless a value is one of several.

    Args:
        what: The argument.
        value: Its value.
        choices: What is allowed.
        hint: What to try; by default the first choice.
    """
    if value not in choices:
        raise InputError(
            what,
            expected=f"one of {tuple(choices)}",
            got=repr(value),
            hint=hint or f"{what}={choices[0]!r}",
        )


def check_positive(**sizes: int) -> None:
    """Raise `InputError` for the first size that is not a positive integer."""
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise InputError(
                name, expected="a positive integer", got=repr(size), hint=f"{name}=1 or more"
            )


def check_not_negative(**values: float) -> None:
    """Raise `InputError` for the first number that is negative or not finite."""
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise InputError(name, expected="at least 0", got=str(value), hint=f"{name}=1e-3")


def check_rows_at(what: str, x: Tensor, in_features: int) -> None:
    """Raise `InputError` unless a tensor is floating and has rows of the right width.

    Args:
        what: The argument.
        x: Its value, to be of shape `(..., rows, in_features)`.
        in_features: The width.
    """
    check_features(what, x, in_features)
    if x.dim() < 2 or x.shape[-2] == 0:
        raise InputError(
            what,
            expected=f"shape (..., rows, {in_features}) with at least one row",
            got=f"shape {tuple(x.shape)}",
            hint="`x.unsqueeze(-2)` for a single row; skip empty batches",
        )


def check_sequences_at(what: str, x: Tensor, in_features: int) -> None:
    """Raise `InputError` unless a tensor is floating and has sequences of the right width.

    Args:
        what: The argument.
        x: Its value, to be of shape `(..., rows, time, in_features)`.
        in_features: The width.
    """
    check_features(what, x, in_features)
    if x.dim() < 3 or 0 in x.shape[-3:-1]:
        raise InputError(
            what,
            expected=f"shape (..., rows, time, {in_features}) with at least one row and step",
            got=f"shape {tuple(x.shape)}",
            hint="`x.unsqueeze(0)` for a single sequence; skip empty batches",
        )


def check_features(what: str, x: Tensor, in_features: int) -> None:
    """Raise `InputError` unless `x` is a floating tensor of shape `(..., in_features)`.

    Args:
        what: What the message calls `x`.
        x: The tensor to check, `(..., in_features)`.
        in_features: Size that its last dimension must have.

    Raises:
        InputError: For another dtype or another last dimension.
    """
    if not torch.is_floating_point(x):
        raise InputError(
            what, expected="a floating-point tensor", got=str(x.dtype), hint="call `.float()` on it"
        )
    if x.dim() == 0 or x.shape[-1] != in_features:
        raise InputError(
            what,
            expected=f"shape (..., {in_features})",
            got=f"shape {tuple(x.shape)}",
            hint="put the features in the last dimension, or set in_features to its size",
        )


def check_mask(mask: Tensor, h: Tensor) -> None:
    """Raise `InputError` unless a mask is boolean and has the rows or steps of an input.

    Args:
        mask: The mask, to be of shape `(...)`; leading dimensions may be missing.
        h: The input, `(..., in_features)`.
    """
    if mask.dtype != torch.bool:
        raise InputError(
            "mask", expected="booleans", got=str(mask.dtype), hint="`x.isfinite().all(-1)`"
        )
    hint = "one value per row or step, True where the input is there"
    check_shape("mask", mask, h.shape[:-1][-mask.dim() :], hint=hint)


def check_finite(what: str, value: Tensor) -> None:
    """Raise `InputError` with the first offending place where a tensor holds NaN or an infinity.

    Args:
        what: What the message calls the tensor.
        value: A tensor of any shape and dtype.

    Raises:
        InputError: For a value that is not finite.
    """
    if torch.is_floating_point(value):
        _refuse(what, value, ~torch.isfinite(value), "finite values", "drop or impute such rows")


def check_not_infinite(what: str, value: Tensor) -> None:
    """Raise `InputError` with the first offending place where a tensor holds an infinity.

    Args:
        what: What the message calls the tensor.
        value: A tensor of any shape and dtype; NaN, for what is missing, is let through.

    Raises:
        InputError: For an infinite value.
    """
    if torch.is_floating_point(value):
        expected = "finite values, or NaN for what is missing"
        _refuse(what, value, torch.isinf(value), expected, "NaN where a value is unknown")


def check_counts(what: str, value: Tensor) -> None:
    """Raise `InputError` with the first offending place where a tensor holds what is no count.

    Args:
        what: What the message calls the tensor.
        value: A tensor of any shape, finite.

    Raises:
        InputError: For a value that is negative or not an integer.
    """
    bad = (value < 0) | (value != value.round())
    hint = "counts as they are, not standardised, or another likelihood"
    _refuse(what, value, bad, "counts: integers of at least 0", hint)


def _refuse(what: str, value: Tensor, bad: Tensor, expected: str, hint: str) -> None:
    """Raise `InputError` with the first value that is bad."""
    if bool(bad.any()):
        place = tuple(int(i) for i in bad.nonzero()[0])
        raise InputError(
            what, expected=expected, got=f"{value[place].item()} at {place}", hint=hint
        )


def check_shape(what: str, value: Tensor, expected: Sequence[int], *, hint: str) -> None:
    """Raise `InputError` unless a tensor has the expected shape.

    Args:
        what: The argument.
        value: Its value.
        expected: The shape it should have.
        hint: What to try.
    """
    if tuple(value.shape) != tuple(expected):
        raise InputError(
            what,
            expected=f"shape {tuple(expected)}",
            got=f"shape {tuple(value.shape)}",
            hint=hint,
        )


def check_targets(what: str, y: Tensor | None, x: Tensor, num_outputs: int) -> None:
    """Raise `InputError` unless targets are None or have the rows of their inputs.

    Args:
        what: The argument.
        y: Targets, to be of shape `(..., rows, outputs)`, or None.
        x: Inputs, `(..., rows, features)`.
        num_outputs: Number of outputs.
    """
    if y is not None:
        hint = "`y.unsqueeze(-1)` for a single output"
        check_shape(what, y, (*x.shape[:-1], num_outputs), hint=hint)


def check_rows(
    inputs: Sequence[Tensor], y: Tensor | None, *, missing_allowed: bool = False
) -> None:
    """Raise `InputError` unless inputs and targets are finite, with one number of rows.

    Args:
        inputs: Inputs, each `(rows, ...)`.
        y: Targets, `(rows, ..., outputs)`, or None.
        missing_allowed: Whether NaN is let through, for what is missing.

    Raises:
        InputError: For unequal or zero rows, or values that are not finite.
    """
    rows = {len(value) for value in (*inputs, *(() if y is None else (y,)))}
    if len(rows) != 1 or 0 in rows:
        raise InputError(
            "x",
            expected="inputs and targets of one number of rows, at least 1",
            got=f"{sorted(rows)} rows",
            hint="check the first dimension of each tensor",
        )
    named = [("x" if len(inputs) == 1 else f"x[{i}]", value) for i, value in enumerate(inputs)]
    for name, value in [*named, *([] if y is None else [("y", y)])]:
        (check_not_infinite if missing_allowed else check_finite)(name, value)
