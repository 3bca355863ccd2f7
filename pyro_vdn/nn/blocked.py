"""Sums of products, block by block, so that the products never fill memory."""

from __future__ import annotations

import torch
from torch import Tensor

#: Elements of a block: its products stay in the cache.
_BLOCK = 1 << 18


def product_sum(x: Tensor, y: Tensor, shape: torch.Size) -> Tensor:
    """Return `(x * y).sum_to_size(shape)`.

    Args:
        x: Values, `(...)`.
        y: Values of the same shape.
        shape: A shape that broadcasts to it.

    Example:
        >>> product_sum(torch.ones(5, 2), torch.full((5, 2), 3.0), torch.Size([2]))
        tensor([15., 15.])
    """
    summed_first = x.dim() > len(shape) or (x.dim() > 0 and shape[0] == 1 < len(x))
    if not summed_first or x.numel() <= _BLOCK:
        return (x * y).sum_to_size(shape)
    rows = max(1, _BLOCK * len(x) // x.numel())
    total = x.new_zeros(shape)
    for start in range(0, len(x), rows):
        block = slice(start, start + rows)
        total = total + (x[block] * y[block]).sum_to_size(shape)
    return total
