"""Comparing the states of runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def same_state(left: Any, right: Any) -> bool:
    """Say whether two nests of tensors and plain values are equal bit for bit.

    Args:
        left: Mappings, lists and tuples of tensors, of any shape, and plain values.
        right: What it is compared with.

    Example:
        >>> state = {"step": 3, "moments": [torch.ones(2)]}
        >>> same_state(state, {"step": 3, "moments": [torch.ones(2)]})
        True
        >>> same_state(state, {"step": 3, "moments": [torch.zeros(2)]})
        False
    """
    if isinstance(left, Tensor):
        return torch.equal(left, right)
    if isinstance(left, Mapping):
        return left.keys() == right.keys() and all(same_state(left[k], right[k]) for k in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same_state, left, right))
    return bool(left == right)
