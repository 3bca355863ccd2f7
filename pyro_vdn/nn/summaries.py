"""Summaries of what came before, or comes after, by recurrences that need no loop."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_vdn.nn.scan import affine_scan
from pyro_vdn.nn.shapes import check_positive

#: Logarithms to base 2 of the first and last channel's half-life at the start, in steps.
_LOG_HALF_LIVES = (0.0, 5.0)


class DecayingSummary(nn.Module):
    r"""The summary `r_t = lambda r_{t-1} + (1 - lambda) (W h_t + v)`, a decay per channel.

    Steps without input add nothing, not even `v`: so a summary also knows how much input it has
    seen. Solved by `affine_scan`, without a loop over time.

    Args:
        in_features: Size of the input.
        size: Number of channels.
        reverse: Whether it summarises the steps from `t` on, instead of those up to `t`.

    Shape:
        Input `(..., time, in_features)` and mask `(..., time)`; output `(..., time, size)`.

    Example:
        >>> DecayingSummary(3, 4)(torch.zeros(5, 10, 3)).shape
        torch.Size([5, 10, 4])
    """

    def __init__(self, in_features: int, size: int, *, reverse: bool = False) -> None:
        super().__init__()
        check_positive(in_features=in_features, size=size)
        self.reverse = reverse
        self.linear = nn.Linear(in_features, size)
        half_lives = torch.logspace(*_LOG_HALF_LIVES, size, base=2.0)
        self.raw_decay = nn.Parameter(torch.logit(0.5 ** (1 / half_lives)))

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the summary at each step.

        Args:
            h: Input, `(..., time, in_features)`.
            mask: Boolean, `(..., time)`: which steps have input.
        """
        decay = torch.sigmoid(self.raw_decay)
        weight, bias = (
            (1 - decay).unsqueeze(-1) * self.linear.weight,
            (1 - decay) * self.linear.bias,
        )
        increments = F.linear(h, weight, bias)
        if mask is not None:
            increments = increments.masked_fill(~mask.unsqueeze(-1), 0.0)
        return affine_scan(decay.unsqueeze(-2), increments, reverse=self.reverse)
