"""Blocks of observations that depend on each other, such as the tokens of a sequence."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_vdn.errors import InputError


def block_numbers(
    blocks: Tensor | ArrayLike | None, count: int, *, least: int = 1
) -> NDArray[np.intp]:
    """Return the number of the block that each observation is in, `(observations,)`, from 0.

    Args:
        blocks: Labels or numbers of blocks, `(observations,)`; None if each is one by itself.
        count: Number of observations.
        least: Fewest blocks that will do, if labels are given.

    Raises:
        InputError: For another number of labels, or too few blocks.

    Example:
        >>> block_numbers(["b", "a", "b"], 3)
        array([1, 0, 1])
    """
    if blocks is None:
        return np.arange(count)
    labels = np.asarray(blocks.detach().cpu() if isinstance(blocks, Tensor) else blocks)
    check_lengths("blocks", labels, count, hint="number the sequences, and repeat for each token")
    names, numbers = np.unique(labels, return_inverse=True)
    if len(names) < least:
        raise InputError(
            "blocks",
            expected=f"at least {least} blocks, better 30 or more",
            got="one label for all cases" if len(names) == 1 else f"{len(names)}",
            hint="split the text into sequences, and give each its number",
        )
    result: NDArray[np.intp] = numbers
    return result


def check_lengths(
    what: str,
    values: NDArray[np.generic],
    count: int,
    *,
    hint: str = "pass columns of the same tokens",
) -> None:
    """Refuse anything but one value per observation.

    Args:
        what: The argument.
        values: Its value.
        count: Number of observations.
        hint: What to try.
    """
    if values.shape != (count,):
        raise InputError(
            what,
            expected=f"shape ({count},), one for each observation",
            got=f"shape {values.shape}",
            hint=hint,
        )
