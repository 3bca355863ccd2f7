"""Proper scores of whole trajectories drawn jointly; smaller is better."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_vdn.diagnostics import _checks
from pyro_vdn.diagnostics._checks import check_draws, check_finite, in_chunks, refuse_where
from pyro_vdn.errors import InputError
from pyro_vdn.nn.unit_measures import precise


def energy_score(draws: Tensor, target: Tensor, *, fair: bool = False) -> Tensor:
    r"""Score joint draws of whole trajectories: the multivariate form of the CRPS.

    .. math:: \frac{1}{S} \sum_s \|x_s - y\| - \frac{1}{2 M} \sum_{s, s'} \|x_s - x_{s'}\|

    with the Euclidean norm over all entries of a row and :math:`M = S^2`, or :math:`S (S - 1)` if
    `fair`. Rows are taken in chunks, so temporaries stay bounded however many rows there are (one
    row needs :math:`S^2` elements).

    Args:
        draws: Joint draws, shape `(draws, rows, steps)` or `(draws, rows, time, outputs)`.
        target: Observed trajectories, shape `(rows, steps)` or `(rows, time, outputs)`.
        fair: Remove the bias of finitely many draws; needs at least two.

    Returns:
        Score per row, shape `(rows,)`, in the units of the target. It grows like the square root of
        the number of steps.

    Raises:
        InputError: If shapes disagree, a value is not finite, or a fair score has one draw.

    Example:
        >>> draws = torch.tensor([[[0.0, 0.0]], [[3.0, 4.0]]])
        >>> energy_score(draws, torch.zeros(1, 2))
        tensor([1.2500])

    Source: Gneiting and Raftery 2007, equation 22.
    """
    draws, target = _rows_of_steps(draws, target, least=2 if fair else 1)
    count = draws.shape[0]
    pairs = count * (count - 1) if fair else count * count

    def of_rows(x: Tensor, y: Tensor) -> Tensor:  # (draws, rows, steps), (rows, steps) -> (rows,)
        deviation = precise(x - y)  # distances between draws are not known in half precision
        error: Tensor = torch.linalg.vector_norm(deviation, dim=-1).mean(dim=0)
        by_row = deviation.transpose(0, 1)  # (rows, draws, steps)
        # The shortcut through matrix products cancels digits when draws lie close together.
        between: Tensor = torch.cdist(by_row, by_row, compute_mode="donot_use_mm_for_euclid_dist")
        return (error - between.sum(dim=(-2, -1)) / (2 * pairs)).to(x.dtype)

    return in_chunks(of_rows, draws, target, elements=count * max(count, target.shape[-1]))


def variogram_score(
    draws: Tensor, target: Tensor, *, order: float = 0.5, weights: Tensor | None = None
) -> Tensor:
    r"""Score how far apart the steps of joint draws lie: sensitive to wrong correlations.

    .. math:: \sum_{i, j} w_{ij} \Big( |y_i - y_j|^p - \frac{1}{S} \sum_s |x_{si} - x_{sj}|^p
        \Big)^2

    A shift of all steps by one number leaves it unchanged: read it next to the energy score, which
    sees locations and hardly sees correlations. Pairs of steps are taken in chunks.

    Args:
        draws: Joint draws :math:`x_s`, shape `(draws, rows, steps)` or
            `(draws, rows, time, outputs)`.
        target: Observed trajectories :math:`y`, shape `(rows, steps)` or `(rows, time, outputs)`.
        order: Power :math:`p`, positive. With 0.5 no large distance dominates.
        weights: Weights :math:`w_{ij}` of pairs, not negative, shape `(steps, steps)`, with
            `time * outputs` entries in place of `steps` where there are outputs; 1 by default. Near
            pairs carry most of the signal: weights that fall with the distance in time sharpen it.

    Returns:
        Score per row, shape `(rows,)`, in the units of the target to the power :math:`2p`.

    Raises:
        InputError: If shapes disagree, a value is not finite, the order is not positive, or a
            weight is negative.

    Example:
        >>> draws = torch.tensor([[[0.0, 1.0]], [[0.0, 4.0]]])
        >>> variogram_score(draws, torch.tensor([[0.0, 4.0]]))  # 2 (2 - 1.5)^2
        tensor([0.5000])

    Source: Scheuerer and Hamill, *Variogram-based Proper Scoring Rules for Probabilistic Forecasts
    of Multivariate Quantities*, 2015.
    """
    draws, target = _rows_of_steps(draws, target, least=1)
    if not (order > 0 and math.isfinite(order)):
        raise InputError("order", expected="a positive power", got=repr(order), hint="order=0.5")
    steps = target.shape[-1]
    weight = _pair_weights(weights, target)

    def of_rows(x: Tensor, y: Tensor) -> Tensor:  # (draws, rows, steps), (rows, steps) -> (rows,)
        total = torch.zeros_like(y[:, 0])
        block = max(1, _checks.CHUNK_ELEMENTS // x.numel())
        for i in range(0, steps, block):
            part = slice(i, i + block)  # (..., steps) -> (..., block, steps)
            observed = (y[:, part, None] - y[:, None]).abs().pow(order)
            drawn = (x[..., part, None] - x[..., None, :]).abs().pow(order).mean(dim=0)
            total = total + (weight[part] * (observed - drawn).square()).sum(dim=(-2, -1))
        return total

    return in_chunks(of_rows, draws, target, elements=draws.shape[0] * steps * steps)


def _rows_of_steps(draws: Tensor, target: Tensor, *, least: int) -> tuple[Tensor, Tensor]:
    """Return draws `(draws, rows, steps)` and targets `(rows, steps)`, whatever a row holds."""
    if target.ndim < 2:
        raise InputError(
            "target",
            expected="shape (rows, steps) or (rows, time, outputs)",
            got=f"shape {tuple(target.shape)}",
            hint="a single trajectory is target[None] and draws[:, None]",
        )
    check_draws(draws, target, least=least)
    return draws.flatten(2), target.flatten(1)


def _pair_weights(weights: Tensor | None, target: Tensor) -> Tensor:
    steps = target.shape[-1]
    if weights is None:
        return target.new_ones(steps, steps)
    check_finite("weights", weights)
    if weights.shape != (steps, steps):
        raise InputError(
            "weights",
            expected=f"shape (steps, steps) = {(steps, steps)}",
            got=f"shape {tuple(weights.shape)}",
            hint="one weight per pair of steps, for example 1 / (1 + distance in time)",
        )
    refuse_where(weights < 0, "weights", weights, "weights of zero or more")
    return weights
