"""Checks shared by the diagnostics: finite values, matching shapes, probabilities."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_vdn.errors import InputError

CHUNK_ELEMENTS = 2**24
"""Most elements of a temporary array: 64 MiB in float32."""


def check_finite(what: str, value: Tensor) -> None:
    """Refuse an empty, non-floating, NaN or infinite tensor, naming the first bad place."""
    if not value.is_floating_point():
        raise InputError(
            what, expected="a floating-point tensor", got=str(value.dtype), hint="call .double()"
        )
    if value.numel() == 0:
        raise InputError(
            what,
            expected="at least one element",
            got=f"shape {tuple(value.shape)}",
            hint="check the split or the mask that made it",
        )
    refuse_where(~torch.isfinite(value), what, value, "finite values")


def refuse_where(bad: Tensor, what: str, value: Tensor, expected: str) -> None:
    """Raise if any place is `bad`, naming the first one and the value found there."""
    if bool(bad.any()):
        place = tuple(int(index) for index in bad.nonzero()[0])
        raise InputError(
            what,
            expected=expected,
            got=f"{float(value[place])} at {place}",
            hint="find what produced it, or drop that row",
        )


def check_draws(draws: Tensor, target: Tensor, *, least: int = 1) -> None:
    """Refuse draws that are not `(draws, *target.shape)` or are fewer than `least`."""
    check_finite("draws", draws)
    check_finite("target", target)
    if draws.ndim == 0 or draws.shape[1:] != target.shape:
        raise InputError(
            "draws",
            expected=f"shape (draws, *target.shape) = (draws, {_inner(target)})",
            got=f"shape {tuple(draws.shape)}",
            hint="put the draws on the leftmost dimension and give every draw the target's shape",
        )
    check_count(draws, least)


def check_count(draws: Tensor, least: int) -> None:
    """Refuse fewer than `least` draws."""
    if draws.shape[0] < least:
        raise InputError(
            "draws",
            expected=f"at least {least} draws for what is asked",
            got=f"{draws.shape[0]}",
            hint="draw more samples from the posterior predictive",
        )


def check_level(level: float) -> None:
    """Refuse an interval level outside the open interval (0, 1)."""
    if not 0.0 < level < 1.0:
        raise InputError(
            "level",
            expected="a share strictly between 0 and 1",
            got=repr(level),
            hint="write 90 % as 0.9",
        )


def as_array(what: str, value: Tensor | ArrayLike, *, ndim: int, sizes: str) -> NDArray[np.float64]:
    """Convert to a finite float64 array with `ndim` dimensions, described by `sizes`."""
    plain = value.detach().cpu().double().numpy() if isinstance(value, Tensor) else value
    array = np.array(plain, dtype=np.float64)
    if array.ndim != ndim or array.size == 0:
        raise InputError(
            what,
            expected=f"a non-empty array of shape {sizes}",
            got=f"shape {array.shape}",
            hint=f"reshape it to {sizes}",
        )
    check_finite(what, torch.from_numpy(array))
    return array


def check_layers(what: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuse paths of layers that are not among the known ones."""
    for path in given:
        if path not in known:
            raise InputError(
                what,
                expected=f"paths of layers, of {list(known)}",
                got=repr(path),
                hint="a layer is named by its attribute path, its site without the `.z`",
            )


def check_runs(layers: Collection[str]) -> None:
    """Refuse a guide in which no layer of neurons ran."""
    if not layers:
        raise InputError(
            "guide",
            expected="one that takes the posteriors that neurons offer",
            got="one in which no layer of neurons runs",
            hint="guide = NeuronGuide(model)",
        )


def in_chunks(
    function: Callable[..., Tensor], draws: Tensor, *others: Tensor, elements: int | None = None
) -> Tensor:
    """Apply `function` to slices of columns so that temporaries stay bounded.

    Args:
        function: From `(draws, columns, ...)` and `(columns, ...)` to `(..., columns)`.
        draws: Shape `(draws, columns, ...)`.
        others: Tensors of shape `(columns, ...)`, sliced alongside.
        elements: Elements of the largest temporary per column; those of `draws` by default.

    Returns:
        The results joined along the last dimension.
    """
    columns = draws.shape[1]
    per_column = draws[:, 0].numel() if elements is None else elements
    size = max(1, CHUNK_ELEMENTS // per_column)
    parts = [
        function(draws[:, i : i + size], *(other[i : i + size] for other in others))
        for i in range(0, columns, size)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def _inner(target: Tensor) -> str:
    return ", ".join(str(size) for size in target.shape)
