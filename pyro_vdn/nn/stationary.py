"""Stationary autoregressions: from partial autocorrelations to coefficients, and back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_vdn.errors import InputError


def levinson(partials: Tensor) -> list[Tensor]:
    r"""Return the coefficients of the best prediction from the last 0, 1, ..., p values.

    The Durbin-Levinson recursion: `a^(k)_k = r_k` and `a^(k)_j = a^(k-1)_j - r_k a^(k-1)_{k-j}`.
    Any partial autocorrelations in (-1, 1) give a stationary autoregression, and any stationary
    autoregression has such (Barndorff-Nielsen and Schou, 1973).

    Args:
        partials: Partial autocorrelations `r`, `(..., order)`.

    Returns:
        For each number of values, coefficients `(..., order)` that end with zeros.

    Example:
        >>> levinson(torch.tensor([0.5, 0.2]))[2]
        tensor([0.4000, 0.2000])
    """
    order = partials.shape[-1]
    rows = [torch.zeros_like(partials)]
    for k in range(1, order + 1):
        before, r = rows[-1][..., : k - 1], partials[..., k - 1 : k]
        row = torch.cat([before - r * before.flip(-1), r], -1)
        rows.append(F.pad(row, (0, order - k)))
    return rows


def unexplained(partials: Tensor) -> Tensor:
    r"""Return the share of variance that the last 0, 1, ..., p values leave unexplained.

    It is `prod_{j <= k} (1 - r_j^2)`, of shape `(..., order + 1)`.

    Args:
        partials: Partial autocorrelations `r`, `(..., order)`.
    """
    return torch.cumprod(F.pad(1 - partials.square(), (1, 0), value=1.0), -1)


def partial_autocorrelations(coefficients: Tensor) -> Tensor:
    """Return the partial autocorrelations of stationary autoregressions, the inverse of `levinson`.

    Args:
        coefficients: Coefficients `a`, `(..., order)`.

    Returns:
        Values in (-1, 1), `(..., order)`.

    Raises:
        InputError: For coefficients that are not stationary.

    Example:
        >>> partial_autocorrelations(torch.tensor([0.4, 0.2]))
        tensor([0.5000, 0.2000])
    """
    partials = []
    row = coefficients
    for _ in range(coefficients.shape[-1]):
        r = row[..., -1:]
        if not bool((r.abs() < 1).all()):
            raise InputError(
                "phi",
                expected="coefficients of a stationary autoregression; for order 1 in (-1, 1)",
                got=f"{coefficients.tolist()}",
                hint="phi=0.9",
            )
        partials.append(r)
        row = (row[..., :-1] + r * row[..., :-1].flip(-1)) / (1 - r.square())
    return torch.cat(partials[::-1], -1)
