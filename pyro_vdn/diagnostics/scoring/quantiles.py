"""Quantiles of draws, unbiased in coverage."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_vdn.diagnostics._checks import check_count, check_finite, in_chunks
from pyro_vdn.diagnostics._sorting import sorted_draws
from pyro_vdn.errors import InputError


def draw_quantiles(draws: Tensor, levels: Sequence[float] | Tensor) -> Tensor:
    r"""Estimate quantiles from draws.

    .. math:: q_\tau = x_{(h)}, \qquad h = \tau (S + 1)

    interpolated linearly between order statistics (type 6 of Hyndman and Fan): a new draw falls
    below :math:`x_{(h)}` with probability :math:`h / (S + 1) = \tau`. The usual default (type 7)
    makes a 90 % interval of 100 exact draws cover 88 %.

    Args:
        draws: Draws, shape `(draws, ...)`.
        levels: Probabilities :math:`\tau`, shape `(levels,)`, each in (0, 1).

    Returns:
        Quantiles, shape `(levels, ...)`, in the units of the draws.

    Raises:
        InputError: If a level lies outside (0, 1), the draws are not finite, or there are too few
            draws to reach a level (`S + 1 >= 1 / min(tau, 1 - tau)`).

    Example:
        >>> draw_quantiles(torch.arange(1.0, 10.0), [0.1, 0.5, 0.75])
        tensor([1.0000, 5.0000, 7.5000])

    Source: Hyndman and Fan, *Sample Quantiles in Statistical Packages*, 1996.
    """
    probabilities = check_levels(levels)
    check_finite("draws", draws)
    if draws.ndim == 0:
        raise InputError(
            "draws", expected="shape (draws, ...)", got="shape ()", hint="stack the draws first"
        )
    check_count(draws, max(draws_needed(level) for level in probabilities))

    def of_columns(columns: Tensor) -> Tensor:  # (draws, columns) -> (levels, columns)
        ordered = sorted_draws(columns)
        return torch.stack([_order_statistic(ordered, level) for level in probabilities])

    flat = draws.reshape(draws.shape[0], -1)  # (draws, ...) -> (draws, columns)
    return in_chunks(of_columns, flat).reshape(len(probabilities), *draws.shape[1:])


def check_quantiles(
    quantiles: Tensor, levels: Sequence[float] | Tensor, target: Tensor
) -> list[float]:
    """Refuse quantiles that are not `(levels, *target.shape)`; return the levels."""
    check_finite("quantiles", quantiles)
    check_finite("target", target)
    probabilities = check_levels(levels)
    expected = (len(probabilities), *target.shape)
    if tuple(quantiles.shape) != expected:
        raise InputError(
            "quantiles",
            expected=f"shape (levels, *target.shape) = {expected}",
            got=f"shape {tuple(quantiles.shape)}",
            hint="stack one prediction per level along the leftmost dimension",
        )
    return probabilities


def check_levels(levels: Sequence[float] | Tensor) -> list[float]:
    """Refuse levels that are not one non-empty dimension of shares strictly inside (0, 1)."""
    values = torch.as_tensor(levels, dtype=torch.float64)
    if values.ndim != 1 or values.numel() == 0:
        raise InputError(
            "levels",
            expected="one non-empty dimension, shape (levels,)",
            got=f"shape {tuple(values.shape)}",
            hint="pass for example [0.1, 0.5, 0.9]",
        )
    listed: list[float] = values.tolist()
    for index, level in enumerate(listed):
        if not 0.0 < level < 1.0:
            raise InputError(
                "levels",
                expected="shares strictly between 0 and 1",
                got=f"{level} at ({index},)",
                hint="write 90 % as 0.9",
            )
    return listed


def draws_needed(level: float) -> int:
    """Count the draws from which the quantile at `level` lies between two order statistics."""
    # The tiny slack forgives (1 - 0.9) / 2, which is not quite 0.05.
    return math.ceil(1.0 / min(level, 1.0 - level) - 1.0 - 1e-6)


def _order_statistic(ordered: Tensor, level: float) -> Tensor:
    """Interpolate `ordered`, shape `(draws, columns)`, at rank `level * (draws + 1)`."""
    last = ordered.shape[0] - 1
    position = min(max(level * (last + 2) - 1.0, 0.0), float(last))
    below = min(int(position), max(last - 1, 0))
    return torch.lerp(ordered[below], ordered[min(below + 1, last)], position - below)
