"""Parts of a layer: they make their parameters once they know it."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from pyro_vdn.errors import InputError
from pyro_vdn.nn.shapes import LayerShape


def bound(part: nn.Module, shape: LayerShape) -> nn.Module:
    """Let a part make its parameters for its layer, where it has any to make, and return it.

    Args:
        part: A prior or posterior.
        shape: The layer's sizes.

    Raises:
        InputError: For a part of another layer.
    """
    bind: Callable[[LayerShape], None] | None = getattr(part, "bind", None)
    if bind is None:
        return part
    if getattr(part, "is_bound", False):
        raise InputError(
            type(part).__name__,
            expected="a part of one layer",
            got="one that another layer has already bound",
            hint="make a new one for each layer",
        )
    bind(shape)
    part.is_bound = True  # type: ignore[assignment]
    return part
