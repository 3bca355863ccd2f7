"""Continuous ranked probability scores of draws, Normals and mixtures; smaller is better."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_vdn.diagnostics import _checks
from pyro_vdn.diagnostics._checks import check_draws, check_finite, in_chunks, refuse_where
from pyro_vdn.diagnostics._sorting import sorted_draws
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
        deviation = sorted_draws(x - y)
        # Each gap between neighbours is crossed by rank * (count - rank) unordered pairs, a number
        # that half precision cannot hold; its share of all pairs is below one.
        rank = torch.arange(1, count, dtype=torch.float64, device=deviation.device)
        share = (rank * (count - rank) / pairs).to(deviation.dtype)
        return deviation.abs().mean(dim=0) - share @ deviation.diff(dim=0)

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
    check_normal(loc, scale, target)
    return scale * _expected_distance((target - loc) / scale) - scale / math.sqrt(math.pi)


def crps_mixture(
    loc: Tensor, scale: Tensor, target: Tensor, *, log_weights: Tensor | None = None
) -> Tensor:
    r"""Score a mixture of Normals in closed form: continuous ranked probability score.

    .. math:: \sum_s w_s A(y - \mu_s, \sigma_s) - \frac12 \sum_{s, s'} w_s w_{s'}
        A\Big(\mu_s - \mu_{s'}, \sqrt{\sigma_s^2 + \sigma_{s'}^2}\Big), \qquad
        A(e, \sigma) = \sigma \, E|e / \sigma + \epsilon|, \ \epsilon \sim N(0, 1)

    The predictive distribution behind S draws of the neurons is such a mixture where the likelihood
    is Normal: this score has no noise of outcome draws. It takes :math:`O(S^2)` per target, in
    chunks.

    Args:
        loc: Locations :math:`\mu_s`, shape `(draws, ...)`.
        scale: Standard deviations :math:`\sigma_s`, positive; broadcasts to the shape of `loc`.
        target: Observed values :math:`y`, shape `(...)`.
        log_weights: Logs of the weights :math:`w_s` up to a constant, shape `(draws,)` or
            `(draws, ...)`; :math:`-\infty` is a weight of 0. Equal weights by default.

    Returns:
        Score per target, shape `(...)`, in the units of the target. Differentiable.

    Raises:
        InputError: If shapes disagree, a value is not finite, a scale is not positive, or no
            weight is.

    Example:
        >>> loc, scale = torch.tensor([-1.0, 1.0]), torch.tensor(0.5)
        >>> crps_mixture(loc, scale, torch.tensor(0.0))
        tensor(0.3672)

    Source: Grimit, Gneiting, Berrocal and Johnson, *The Continuous Ranked Probability Score for
    Circular Variables and its Application to Mesoscale Forecast Ensemble Verification*, 2006.
    """
    check_draws(loc, target)
    _check_scale(scale, loc, "loc")
    weights = _mixture_weights(log_weights, loc)
    shape = (loc.shape[0], -1)

    def of_columns(parts: Tensor, y: Tensor) -> Tensor:  # (draws, columns, 3), (columns,)
        mu, sigma, w = parts.unbind(-1)
        error = (w * _distance(y - mu, sigma)).sum(dim=0)
        return error - 0.5 * _mixture_spread(mu, sigma, w)

    parts = torch.stack([v.reshape(shape) for v in (loc, scale.expand_as(loc), weights)], dim=-1)
    flat = in_chunks(of_columns, parts, target.reshape(-1), elements=loc.shape[0] ** 2)
    return flat.reshape(target.shape)


def check_normal(loc: Tensor, scale: Tensor, target: Tensor) -> None:
    """Refuse parameters of Normals that are not finite, positive, or of the target's shape."""
    check_finite("target", target)
    check_finite("loc", loc)
    _check_broadcast("loc", loc, target, "target")
    _check_scale(scale, target, "target")


def _check_scale(scale: Tensor, like: Tensor, name: str) -> None:
    check_finite("scale", scale)
    _check_broadcast("scale", scale, like, name)
    refuse_where(scale <= 0, "scale", scale, "positive values")


def _check_broadcast(what: str, value: Tensor, like: Tensor, name: str) -> None:
    try:
        value.expand(like.shape)
    except RuntimeError as error:
        raise InputError(
            what,
            expected=f"a shape that broadcasts to {name}'s {tuple(like.shape)}",
            got=f"shape {tuple(value.shape)}",
            hint=f"squeeze or unsqueeze it so that it lines up with the {name}",
        ) from error


def _expected_distance(shift: Tensor) -> Tensor:
    """Return `E|shift + e|` for a standard Normal e."""
    density = torch.exp(-0.5 * shift.square()) / math.sqrt(2.0 * math.pi)
    return shift * torch.erf(shift / math.sqrt(2.0)) + 2.0 * density


def _distance(error: Tensor, scale: Tensor) -> Tensor:
    """Return the mean absolute value of a Normal around `error`."""
    return scale * _expected_distance(error / scale)


def _mixture_weights(log_weights: Tensor | None, loc: Tensor) -> Tensor:
    """Return weights that add up to one over draws, of the shape of `loc`."""
    if log_weights is None:
        return torch.full_like(loc, 1.0 / loc.shape[0])
    if log_weights.shape not in (loc.shape, loc.shape[:1]):
        raise InputError(
            "log_weights",
            expected=f"shape {tuple(loc.shape[:1])} or that of loc, {tuple(loc.shape)}",
            got=f"shape {tuple(log_weights.shape)}",
            hint="one weight per draw, or per draw and target",
        )
    bad = torch.isnan(log_weights) | torch.isposinf(log_weights)
    refuse_where(bad, "log_weights", log_weights, "logs of weights below infinity")
    most = log_weights.amax(dim=0)
    refuse_where(torch.isneginf(most), "log_weights", most, "a weight above zero")
    weights = log_weights.softmax(dim=0)
    inner = (1,) * (loc.ndim - weights.ndim)  # (draws,) -> (draws, 1, ...)
    return weights.reshape(*weights.shape, *inner).expand_as(loc)


def _mixture_spread(mu: Tensor, sigma: Tensor, w: Tensor) -> Tensor:
    """Return the mean distance of two independent draws of each mixture, `(columns,)`."""
    block = max(1, _checks.CHUNK_ELEMENTS // mu.numel())
    total = torch.zeros_like(mu[0])
    for i in range(0, len(mu), block):
        part = slice(i, i + block)  # (draws, columns) -> (block, draws, columns)
        between = _distance(
            mu[part, None] - mu, (sigma[part, None].square() + sigma.square()).sqrt()
        )
        total = total + (w[part, None] * w * between).sum(dim=(0, 1))
    return total
