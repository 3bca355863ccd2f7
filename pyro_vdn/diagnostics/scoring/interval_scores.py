"""Proper scores of quantiles and intervals; smaller is better."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_vdn.diagnostics._checks import check_level
from pyro_vdn.diagnostics.scoring.intervals import check_interval
from pyro_vdn.diagnostics.scoring.quantiles import check_quantiles


def pinball(quantiles: Tensor, levels: Sequence[float] | Tensor, target: Tensor) -> Tensor:
    r"""Score predicted quantiles: the loss that each quantile minimises.

    .. math:: \max(\tau (y - q_\tau), (\tau - 1) (y - q_\tau))

    Args:
        quantiles: Predicted quantiles :math:`q_\tau`, shape `(levels, ...)`.
        levels: Probabilities :math:`\tau`, shape `(levels,)`, each in (0, 1).
        target: Observed values :math:`y`, shape `(...)`.

    Returns:
        Loss per level and target, shape `(levels, ...)`, in the units of the target. Twice its mean
        over many evenly spread levels approaches the CRPS; over a median and the bounds of central
        intervals it is the weighted interval score (Bracher et al. 2021).

    Raises:
        InputError: If shapes disagree, a value is not finite, or a level lies outside (0, 1).

    Example:
        >>> pinball(torch.tensor([[0.0], [0.0]]), [0.1, 0.9], torch.tensor([2.0]))
        tensor([[0.2000],
                [1.8000]])

    Source: Koenker and Bassett, *Regression Quantiles*, 1978.
    """
    probabilities = check_quantiles(quantiles, levels, target)
    error = target - quantiles
    tau = torch.tensor(probabilities, dtype=error.dtype, device=error.device)
    tau = tau.reshape(-1, *(1,) * target.ndim)  # (levels,) -> (levels, 1, ...)
    return torch.maximum(tau * error, (tau - 1.0) * error)


def interval_score(lower: Tensor, upper: Tensor, target: Tensor, level: float) -> Tensor:
    r"""Score central intervals: their width, and a penalty for every target outside.

    .. math:: (u - l) + \frac{2}{\alpha} (l - y)_+ + \frac{2}{\alpha} (y - u)_+,
        \qquad \alpha = 1 - \ell

    Args:
        lower: Lower bounds :math:`l`, shape `(...)`.
        upper: Upper bounds :math:`u`, shape `(...)`, nowhere below `lower`.
        target: Observed values :math:`y`, shape `(...)`.
        level: Nominal share :math:`\ell` in (0, 1) that the intervals are to hold.

    Returns:
        Score per target, shape `(...)`, in the units of the target. It is
        :math:`2 / \alpha` times the pinball loss of both bounds.

    Raises:
        InputError: If shapes disagree, a value is not finite, bounds cross, or the level lies
            outside (0, 1).

    Example:
        >>> lower, upper = torch.zeros(3), torch.ones(3)
        >>> interval_score(lower, upper, torch.tensor([0.5, 1.5, -1.0]), 0.5)
        tensor([1., 3., 5.])

    Source: Winkler, *A Decision-Theoretic Approach to Interval Estimation*, 1972; Gneiting and
    Raftery 2007, equation 43.
    """
    check_level(level)
    check_interval(lower, upper, target)
    outside = (lower - target).clamp_min(0) + (target - upper).clamp_min(0)
    return (upper - lower) + (2.0 / (1.0 - level)) * outside
