"""Logarithmic scores: the negative log predictive density of what came; smaller is better."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_vdn.diagnostics._checks import refuse_where
from pyro_vdn.diagnostics.scoring.scores import check_normal
from pyro_vdn.errors import InputError


def log_score(log_prob: Tensor, *, joint: bool = False) -> Tensor:
    r"""Score the mixture of the draws' densities, entry by entry or of all entries of a row.

    .. math:: -\log \frac{1}{S} \sum_s p(y_{nj} \mid z_s) \quad \text{or} \quad
        -\log \frac{1}{S} \sum_s \prod_j p(y_{nj} \mid z_s)

    Joint terms are added up *before* the average over draws, marginal scores after it: averaging
    log-densities over a horizon inside the sum gives a tempered score, not a density. Entries that
    depend on the same neurons have a joint score below the sum of the marginal ones if their
    dependence is right.

    Args:
        log_prob: Log-densities :math:`\log p(y_{nj} \mid z_s)`, shape `(draws, rows, ...)`;
            :math:`-\infty` is allowed. Without rows, a single value each.
        joint: Whether to score all entries of a row together.

    Returns:
        Score in nats, shape `(rows, ...)`, or `(rows,)` if joint.

    Raises:
        InputError: If there is no draw, or a value is NaN or :math:`+\infty`; if joint, without
            rows.

    Example:
        >>> log_prob = torch.tensor([[[-1.0, -3.0]], [[-3.0, -1.0]]])  # (draws, rows, outputs)
        >>> log_score(log_prob), log_score(log_prob, joint=True)
        (tensor([[1.5662, 1.5662]]), tensor([4.]))

    Source: Good, *Rational Decisions*, 1952; Gneiting and Raftery 2007.
    """
    least = 2 if joint else 1
    if log_prob.ndim < least or log_prob.numel() == 0 or not log_prob.is_floating_point():
        raise InputError(
            "log_prob",
            expected=f"floating-point shape {'(draws, rows, ...)' if joint else '(draws, ...)'} "
            "with at least one draw",
            got=f"{log_prob.dtype} of shape {tuple(log_prob.shape)}",
            hint="stack the log-densities of the draws along the leftmost dimension",
        )
    bad = torch.isnan(log_prob) | torch.isposinf(log_prob)
    refuse_where(bad, "log_prob", log_prob, "log-densities below infinity")
    if joint:
        log_prob = log_prob.reshape(*log_prob.shape[:2], -1).sum(dim=-1)
    return math.log(log_prob.shape[0]) - torch.logsumexp(log_prob, dim=0)


def log_score_normal(loc: Tensor, scale: Tensor, target: Tensor) -> Tensor:
    r"""Score a Normal prediction: its negative log density at the target.

    .. math:: \frac{(y - \mu)^2}{2 \sigma^2} + \log \sigma + \tfrac12 \log 2 \pi

    Args:
        loc: Location :math:`\mu`; broadcasts to the shape of `target`.
        scale: Standard deviation :math:`\sigma`, positive; broadcasts to the shape of `target`.
        target: Observed values :math:`y`, shape `(...)`.

    Returns:
        Score per target, shape `(...)`, in nats. Differentiable.

    Raises:
        InputError: As :func:`~pyro_vdn.diagnostics.crps_normal`.

    Example:
        >>> log_score_normal(torch.tensor(0.0), torch.tensor(1.0), torch.tensor([0.0, 2.0]))
        tensor([0.9189, 2.9189])

    Source: Good, *Rational Decisions*, 1952.
    """
    check_normal(loc, scale, target)
    squared = ((target - loc) / scale).square()
    return 0.5 * squared + scale.log() + 0.5 * math.log(2.0 * math.pi)
