"""Quantiles and central intervals of draws, unbiased in coverage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vdn.diagnostics._checks import (
    check_count,
    check_draws,
    check_finite,
    check_level,
    in_chunks,
)
from pyro_vdn.errors import InputError


class Interval(NamedTuple):
    """A lower and an upper bound, in the units of the draws.

    Args:
        lower: Lower bound, shape `(...)`.
        upper: Upper bound, shape `(...)`.

    Example:
        >>> Interval(torch.zeros(()), torch.ones(())).upper
        tensor(1.)
    """

    lower: Tensor
    upper: Tensor


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
        ordered = columns.sort(dim=0).values
        return torch.stack([_order_statistic(ordered, level) for level in probabilities])

    flat = draws.reshape(draws.shape[0], -1)  # (draws, ...) -> (draws, columns)
    return in_chunks(of_columns, flat).reshape(len(probabilities), *draws.shape[1:])


def central_interval(draws: Tensor, level: float) -> Interval:
    r"""Bound the central interval :math:`[q_{(1-\ell)/2}, q_{(1+\ell)/2}]` of the draws.

    Args:
        draws: Draws, shape `(draws, ...)`.
        level: Nominal share :math:`\ell` in (0, 1).

    Returns:
        Lower and upper bound, each of shape `(...)`, in the units of the draws.

    Raises:
        InputError: If the level lies outside (0, 1), the draws are not finite, or they are too few:
            a central 90 % interval needs 19 draws, a 99 % interval 199.

    Example:
        >>> central_interval(torch.arange(1.0, 20.0), 0.9)
        Interval(lower=tensor(1.), upper=tensor(19.))
    """
    check_level(level)
    lower, upper = draw_quantiles(draws, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(lower, upper)


def interval_width(draws: Tensor, level: float) -> Tensor:
    """Measure the width of the central interval: sharpness, smaller is better *if* calibrated.

    Args:
        draws: Draws, shape `(draws, ...)`.
        level: Nominal share in (0, 1).

    Returns:
        Width, shape `(...)`, in the units of the draws.

    Raises:
        InputError: As :func:`central_interval`.

    Example:
        >>> interval_width(torch.arange(1.0, 20.0), 0.9)
        tensor(18.)
    """
    lower, upper = central_interval(draws, level)
    return upper - lower


def coverage(
    draws: Tensor, target: Tensor, level: float, *, dim: int | tuple[int, ...] | None = None
) -> Tensor:
    r"""Measure the share of targets inside the central interval of the draws.

    .. math:: \frac{1}{n} \sum_n 1[q_{(1-\ell)/2} \le y_n \le q_{(1+\ell)/2}]

    Args:
        draws: Draws, shape `(draws, ...)`.
        target: Observed values, shape `(...)`.
        level: Nominal share :math:`\ell` in (0, 1).
        dim: Dimensions of `target` to average over; all of them by default. With a target of
            shape `(rows, steps)`, `dim=0` gives the coverage at each step ahead.

    Returns:
        Share in [0, 1], shape `()`, or the dimensions of `target` that are left.

    Raises:
        InputError: If shapes disagree, a value is not finite, the level lies outside (0, 1), or the
            draws are too few for the level.

    Example:
        >>> draws = torch.arange(1.0, 20.0)[:, None].expand(19, 4)
        >>> coverage(draws, torch.tensor([0.0, 1.5, 10.0, 18.0]), 0.9)
        tensor(0.7500)

    Source: Gneiting, Balabdaoui and Raftery, *Probabilistic Forecasts, Calibration and Sharpness*,
    2007.
    """
    check_draws(draws, target)
    lower, upper = central_interval(draws, level)
    inside = ((lower <= target) & (target <= upper)).to(lower.dtype)
    return inside.mean() if dim is None else inside.mean(dim=dim)


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
