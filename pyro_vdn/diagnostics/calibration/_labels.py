"""Labels of rows or entries, and the groups they make."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pyro_vdn.errors import InputError

Label = str | int | float
Labels = Sequence[Label] | Tensor | ArrayLike

EVERYONE: tuple[Label, ...] = ("all",)
"""Names of the groups where no labels are given."""

_NUMBER = re.compile(r"((?:(?<!\S)-)?\d+(?:\.\d+)?)")
"""A number in text; a dash is its sign only at the start of a word, not in 2020-01."""


def grouped(groups: Labels | None, *shapes: tuple[int, ...]) -> tuple[tuple[Label, ...], Tensor]:
    """Return the names of groups, in order, and the place of each label's group.

    Numbers are ordered by size, also inside of text: "3.5 m" before "7 m" before "10 m".

    Args:
        groups: Labels, or None for a single group.
        shapes: Shapes that labels may have; a group for all has the first.

    Returns:
        Names, and places in the shape of the labels.

    Raises:
        InputError: If labels have another shape.
    """
    if groups is None:
        return EVERYONE, torch.zeros(shapes[0], dtype=torch.long)
    given = np.asarray(groups.detach().cpu() if isinstance(groups, Tensor) else groups)
    if given.shape not in shapes:
        raise InputError(
            "groups",
            expected="labels of shape " + " or ".join(str(shape) for shape in shapes),
            got=f"shape {given.shape}",
            hint="one label per row, in the order of the rows",
        )
    if given.dtype.kind in "OU":
        labels = given.ravel().tolist()
        listed = sorted(set(labels), key=_natural)
        place = {label: at for at, label in enumerate(listed)}
        return tuple(listed), torch.tensor([place[it] for it in labels], dtype=torch.long).reshape(
            given.shape
        )
    names, members = np.unique(given, return_inverse=True)
    return tuple(names.tolist()), torch.from_numpy(members.reshape(given.shape))


def _natural(label: Label) -> tuple[list[tuple[bool, float, str]], str]:
    """Return what text is ordered by: its numbers by size, which come before its words."""
    parts = filter(None, _NUMBER.split(str(label)))
    key = [
        (False, float(part), "") if _NUMBER.fullmatch(part) else (True, 0.0, part) for part in parts
    ]
    return key, str(label)
