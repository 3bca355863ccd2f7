"""Central intervals of draws, and how wide and how often right any intervals are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vdn.diagnostics._checks import check_draws, check_finite, check_level, refuse_where
from pyro_vdn.diagnostics.scoring.quantiles import check_levels, draw_quantiles
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


def sharpness(
    draws: Tensor,
    levels: Sequence[float] | Tensor,
    *,
    dim: int | tuple[int, ...] | None = None,
) -> Tensor:
    r"""Measure the mean width of the central intervals at every level.

    .. math:: \frac{1}{n} \sum_n \big( q_{n, (1+\ell)/2} - q_{n, (1-\ell)/2} \big)

    Among calibrated predictions the sharper ones are better; among others it says nothing.

    Args:
        draws: Draws, shape `(draws, ...)`.
        levels: Nominal shares :math:`\ell`, shape `(levels,)`, each in (0, 1).
        dim: Dimensions of a target, as in :func:`coverage`, to average over; all of them by
            default.

    Returns:
        Mean widths, shape `(levels,)`, or `(levels, ...)` with the dimensions that are left, in the
        units of the draws.

    Raises:
        InputError: As :func:`central_interval`.

    Example:
        >>> draws = torch.arange(1.0, 20.0)[:, None] * torch.tensor([1.0, 3.0])
        >>> sharpness(draws, [0.5, 0.9])
        tensor([20., 36.])

    Source: Gneiting, Balabdaoui and Raftery 2007.
    """
    shares = check_levels(levels)
    bounds = [(1.0 + side * level) / 2.0 for side in (-1.0, 1.0) for level in shares]
    lower, upper = draw_quantiles(draws, bounds).chunk(2)
    width = upper - lower
    if dim is None:
        return width.reshape(len(shares), -1).mean(dim=-1)
    inner = (dim,) if isinstance(dim, int) else dim
    # Past the levels, which come first.
    return width.mean(dim=tuple(place + 1 if place >= 0 else place for place in inner))


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
    return interval_coverage(*central_interval(draws, level), target, dim=dim)


def interval_coverage(
    lower: Tensor, upper: Tensor, target: Tensor, *, dim: int | tuple[int, ...] | None = None
) -> Tensor:
    r"""Measure the share of targets inside given intervals, however they were made.

    .. math:: \frac{1}{n} \sum_n 1[l_n \le y_n \le u_n]

    Args:
        lower: Lower bounds :math:`l`, shape `(...)`; :math:`-\infty` is allowed.
        upper: Upper bounds :math:`u`, shape `(...)`; :math:`\infty` is allowed. Where bounds cross,
            the interval is empty.
        target: Observed values :math:`y`, shape `(...)`.
        dim: Dimensions to average over, as in :func:`coverage`.

    Returns:
        Share in [0, 1], shape `()`, or the dimensions of `target` that are left.

    Raises:
        InputError: If shapes disagree, a bound is NaN, or a target is not finite.

    Example:
        >>> lower, upper = torch.zeros(4), torch.tensor([1.0, 1.0, 1.0, torch.inf])
        >>> interval_coverage(lower, upper, torch.tensor([-0.1, 0.5, 1.0, 99.0]))
        tensor(0.7500)
    """
    check_finite("target", target)
    _check_like("lower", lower, target)
    _check_like("upper", upper, target)
    for what, value in (("lower", lower), ("upper", upper)):
        refuse_where(torch.isnan(value), what, value, "bounds that are not NaN")
    inside = ((lower <= target) & (target <= upper)).to(target.dtype)
    return inside.mean() if dim is None else inside.mean(dim=dim)


def check_interval(lower: Tensor, upper: Tensor, target: Tensor) -> None:
    """Refuse bounds that are not finite, not of the target's shape, or crossed."""
    check_finite("target", target)
    for what, value in (("lower", lower), ("upper", upper)):
        check_finite(what, value)
        _check_like(what, value, target)
    refuse_where(upper < lower, "upper", upper, "bounds that are nowhere below `lower`")


def _check_like(what: str, value: Tensor, target: Tensor) -> None:
    if value.shape != target.shape:
        raise InputError(
            what,
            expected=f"the target's shape {tuple(target.shape)}",
            got=f"shape {tuple(value.shape)}",
            hint="give every target its own bounds",
        )
