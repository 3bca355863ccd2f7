"""Proper scores of predictive draws and distributions; smaller is better."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_vdn.diagnostics._checks import check_draws, check_finite, in_chunks, refuse_where
from pyro_vdn.diagnostics.quantiles import check_levels
from pyro_vdn.errors import InputError


def crps_draws(draws: Tensor, target: Tensor, *, fair: bool = False) -> Tensor:
    r"""Score draws of one number against the truth: continuous ranked probability score.

    .. math:: \frac{1}{S} \sum_s |x_s - y| - \frac{1}{2 M} \sum_{s, s'} |x_s - x_{s'}|

    with :math:`M = S^2` (the score of the draws' own distribution, a V-statistic) or, if `fair`,
    :math:`M = S (S - 1)` (unbiased for the distribution behind the draws, so forecasts with
    different numbers of draws compare). Computed from sorted draws, :math:`O(S \log S)`.

    Args:
        draws: Draws :math:`x_s`, shape `(draws, ...)`.
        target: Observed values :math:`y`, shape `(...)`.
        fair: Remove the bias of finitely many draws; needs at least two.

    Returns:
        Score per target, shape `(...)`, in the units of the target. Differentiable.

    Raises:
        InputError: If shapes disagree, a value is not finite, or a fair score has one draw.

    Example:
        >>> crps_draws(torch.tensor([0.0, 1.0]), torch.tensor(0.0))
        tensor(0.2500)

    Source: Gneiting and Raftery, *Strictly Proper Scoring Rules, Prediction, and Estimation*, 2007;
    fair: Ferro, *Fair Scores for Ensemble Forecasts*, 2014.
    """
    check_draws(draws, target, least=2 if fair else 1)
    count = draws.shape[0]
    pairs = count * (count - 1) if fair else count * count

    def of_columns(x: Tensor, y: Tensor) -> Tensor:  # (draws, columns), (columns,) -> (columns,)
        deviation = (x - y).sort(dim=0).values
        rank = torch.arange(1, count, dtype=deviation.dtype, device=deviation.device)
        # Each gap between neighbours is crossed by rank * (count - rank) unordered pairs.
        spread = (rank * (count - rank)) @ deviation.diff(dim=0) / pairs
        return deviation.abs().mean(dim=0) - spread

    flat = draws.reshape(count, -1)  # (draws, ...) -> (draws, columns)
    return in_chunks(of_columns, flat, target.reshape(-1)).reshape(target.shape)


def crps_normal(loc: Tensor, scale: Tensor, target: Tensor) -> Tensor:
    r"""Score a Normal prediction in closed form: continuous ranked probability score.

    .. math:: \sigma \left( w (2 \Phi(w) - 1) + 2 \varphi(w) - \pi^{-1/2} \right),
        \qquad w = (y - \mu) / \sigma

    Args:
        loc: Location :math:`\mu`; broadcasts to the shape of `target`.
        scale: Standard deviation :math:`\sigma`, positive; broadcasts to the shape of `target`.
        target: Observed values :math:`y`, shape `(...)`.

    Returns:
        Score per target, shape `(...)`, in the units of the target. Differentiable.

    Raises:
        InputError: If a value is not finite, a scale is not positive, or a parameter does not
            broadcast to the target (the target itself is never broadcast).

    Example:
        >>> crps_normal(torch.tensor(0.0), torch.tensor(1.0), torch.tensor([0.0, 1.0]))
        tensor([0.2337, 0.6024])

    Source: Gneiting and Raftery 2007, equation 21.
    """
    check_finite("target", target)
    for what, value in (("loc", loc), ("scale", scale)):
        check_finite(what, value)
        _check_broadcast(what, value, target)
    refuse_where(scale <= 0, "scale", scale, "positive values")
    w = (target - loc) / scale
    density = torch.exp(-0.5 * w.square()) / math.sqrt(2.0 * math.pi)
    return scale * (w * torch.erf(w / math.sqrt(2.0)) + 2.0 * density - 1.0 / math.sqrt(math.pi))


def energy_score(draws: Tensor, target: Tensor, *, fair: bool = False) -> Tensor:
    r"""Score joint draws of whole trajectories: the multivariate form of the CRPS.

    .. math:: \frac{1}{S} \sum_s \|x_s - y\| - \frac{1}{2 M} \sum_{s, s'} \|x_s - x_{s'}\|

    with the Euclidean norm over steps and :math:`M = S^2`, or :math:`S (S - 1)` if `fair`. Rows are
    taken in chunks, so temporaries stay bounded however many rows there are (one row needs
    :math:`S^2` elements).

    Args:
        draws: Joint draws, shape `(draws, rows, steps)`.
        target: Observed trajectories, shape `(rows, steps)`.
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
    if target.ndim != 2:
        raise InputError(
            "target",
            expected="shape (rows, steps)",
            got=f"shape {tuple(target.shape)}",
            hint="flatten every leading dimension into rows",
        )
    check_draws(draws, target, least=2 if fair else 1)
    count = draws.shape[0]
    pairs = count * (count - 1) if fair else count * count

    def of_rows(x: Tensor, y: Tensor) -> Tensor:  # (draws, rows, steps), (rows, steps) -> (rows,)
        error: Tensor = torch.linalg.vector_norm(x - y, dim=-1).mean(dim=0)
        by_row = (x - y).transpose(0, 1)  # (rows, draws, steps)
        # The shortcut through matrix products cancels digits when draws lie close together.
        between: Tensor = torch.cdist(by_row, by_row, compute_mode="donot_use_mm_for_euclid_dist")
        return error - between.sum(dim=(-2, -1)) / (2 * pairs)

    return in_chunks(of_rows, draws, target, elements=count * max(count, target.shape[-1]))


def pinball(quantiles: Tensor, levels: Sequence[float] | Tensor, target: Tensor) -> Tensor:
    r"""Score predicted quantiles: the loss that each quantile minimises.

    .. math:: \max(\tau (y - q_\tau), (\tau - 1) (y - q_\tau))

    Args:
        quantiles: Predicted quantiles :math:`q_\tau`, shape `(levels, ...)`.
        levels: Probabilities :math:`\tau`, shape `(levels,)`, each in (0, 1).
        target: Observed values :math:`y`, shape `(...)`.

    Returns:
        Loss per level and target, shape `(levels, ...)`, in the units of the target. Twice its mean
        over many evenly spread levels approaches the CRPS.

    Raises:
        InputError: If shapes disagree, a value is not finite, or a level lies outside (0, 1).

    Example:
        >>> pinball(torch.tensor([[0.0], [0.0]]), [0.1, 0.9], torch.tensor([2.0]))
        tensor([[0.2000],
                [1.8000]])

    Source: Koenker and Bassett, *Regression Quantiles*, 1978.
    """
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
    error = target - quantiles
    tau = torch.tensor(probabilities, dtype=error.dtype, device=error.device)
    tau = tau.reshape(-1, *(1,) * target.ndim)  # (levels,) -> (levels, 1, ...)
    return torch.maximum(tau * error, (tau - 1.0) * error)


def mixture_log_density(log_prob: Tensor) -> Tensor:
    r"""Average densities over draws: the log of the posterior predictive density.

    .. math:: \log \frac{1}{S} \sum_s p(y \mid z_s) = \operatorname{logsumexp}_s \log p(y \mid z_s)
        - \log S

    Sum joint terms *before* the call, average scores *after* it: averaging log-densities over a
    horizon inside the sum gives a tempered score, not a density.

    Args:
        log_prob: Log-densities :math:`\log p(y \mid z_s)`, shape `(draws, ...)`; :math:`-\infty`
            is allowed.

    Returns:
        Log-density of the mixture, shape `(...)`, in nats.

    Raises:
        InputError: If there is no draw, or a value is NaN or :math:`+\infty`.

    Example:
        >>> mixture_log_density(torch.tensor([[0.0, 0.0], [0.0, -torch.inf]]))
        tensor([ 0.0000, -0.6931])
    """
    if log_prob.ndim == 0 or log_prob.numel() == 0:
        raise InputError(
            "log_prob",
            expected="shape (draws, ...) with at least one draw",
            got=f"shape {tuple(log_prob.shape)}",
            hint="stack the log-densities of the draws along the leftmost dimension",
        )
    bad = torch.isnan(log_prob) | torch.isposinf(log_prob)
    refuse_where(bad, "log_prob", log_prob, "log-densities below infinity")
    return torch.logsumexp(log_prob, dim=0) - math.log(log_prob.shape[0])


def _check_broadcast(what: str, value: Tensor, target: Tensor) -> None:
    try:
        value.expand(target.shape)
    except RuntimeError as error:
        raise InputError(
            what,
            expected=f"a shape that broadcasts to target's {tuple(target.shape)}",
            got=f"shape {tuple(value.shape)}",
            hint="squeeze or unsqueeze it so that it lines up with the target",
        ) from error
