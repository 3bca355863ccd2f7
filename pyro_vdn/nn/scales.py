"""Scales of likelihoods, and degrees of freedom."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.nn.shapes import check_choice, check_positive, inverse_softplus

LikelihoodScale = Literal["shared", "output", "low_rank"]


class OutputScale(nn.Module):
    r"""The scale of a likelihood: one number, one per output, or low rank in features.

    The low-rank scale is `softplus(U tanh(V f) + b)`, of rank r in features `f`.

    Args:
        num_outputs: Number of outputs.
        mode: ``"shared"``, ``"output"`` or ``"low_rank"``.
        in_features: Size of the features that a low-rank scale reads.
        rank: Rank r of a low-rank scale.
        initial_scale: Scale at the start, positive.
        min_scale: Floor under the scale.

    Raises:
        InputError: For an unknown mode, or a low-rank scale without `in_features`.

    Example:
        >>> OutputScale(2, "low_rank", in_features=3)(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        num_outputs: int,
        mode: LikelihoodScale = "output",
        *,
        in_features: int | None = None,
        rank: int = 8,
        initial_scale: float = 1.0,
        min_scale: float = 1e-3,
    ) -> None:
        super().__init__()
        check_positive(num_outputs=num_outputs, rank=rank)
        check_choice("scale", mode, get_args(LikelihoodScale))
        self.num_outputs = num_outputs
        self.min_scale = min_scale
        raw = inverse_softplus(initial_scale - min_scale)
        self.head: nn.Sequential | None = None
        if mode == "low_rank":
            if in_features is None:
                raise InputError(
                    "in_features",
                    expected="the size of the features",
                    got="None",
                    hint="in_features=h.shape[-1]",
                )
            last = nn.Linear(rank, num_outputs)
            nn.init.normal_(last.weight, std=1e-3)
            nn.init.constant_(last.bias, raw)
            self.head = nn.Sequential(nn.Linear(in_features, rank), nn.Tanh(), last)
        else:
            size = (1,) if mode == "shared" else (num_outputs,)
            self.raw = nn.Parameter(torch.full(size, raw))

    def forward(self, features: Tensor | None) -> Tensor:
        """Return the scale for features of shape `(..., in_features)`.

        Its shape is `(1,)`, `(num_outputs,)` or, for a low-rank scale, `(..., num_outputs)`.
        """
        if self.head is None:
            return self.min_scale + F.softplus(self.raw)
        if features is None:
            raise InputError(
                "features",
                expected="the features that the scale reads",
                got="None",
                hint="likelihood(loc, h)",
            )
        return self.min_scale + F.softplus(self.head(features))


class DegreesOfFreedom(nn.Module):
    r"""Learned degrees of freedom `nu = 2 + exp(raw)`: above 2, so that the variance exists.

    Args:
        initial: Value at the start, above 2.

    Raises:
        InputError: For an initial value of 2 or less.

    Example:
        >>> round(DegreesOfFreedom(5.0)().item(), 4)
        5.0
    """

    def __init__(self, initial: float) -> None:
        super().__init__()
        if not initial > 2:
            raise InputError(
                "initial_df",
                expected="more than 2 degrees of freedom",
                got=str(initial),
                hint="initial_df=6.0",
            )
        self.raw = nn.Parameter(torch.tensor(initial - 2.0).log())

    def forward(self) -> Tensor:
        """Return the degrees of freedom, a scalar."""
        return 2.0 + self.raw.clamp(-6.0, 6.0).exp()


def raw_scale(scale: Tensor, min_scale: float) -> Tensor:
    """Return `raw` with `min_scale + softplus(raw) = scale`; just above the floor at least.

    Args:
        scale: Scales, `(...)`.
        min_scale: Floor under them.

    Example:
        >>> round(float(F.softplus(raw_scale(torch.tensor(0.3), 0.1))), 6)
        0.2
    """
    above = (scale - min_scale).clamp(min=1e-6)
    return above + torch.log(-torch.expm1(-above))
