"""Pareto-smoothed importance sampling: weights that are worth averaging, and whether they are."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vdn.diagnostics._checks import in_chunks, refuse_where
from pyro_vdn.errors import InputError

LEAST_TAIL = 5
"""Fewest draws of a tail that is fitted: 21 draws have such a tail."""

RELIABLE_K_HAT = 0.7
"""Largest shape of the weights' tail at which an estimate is of use."""

# Prior of Zhang and Stephens on the scale, and the weak prior of Vehtari et al. on the shape.
_SCALE_PRIOR = 3.0
_SHAPE_PRIOR = 10.0
_LEAST_GRID = 30


class Smoothed(NamedTuple):
    r"""Smoothed importance weights and their tail.

    Args:
        log_weights: Logarithms of the weights, which sum to 1 over draws, `(draws, ...)`.
        k_hat: Estimated shape of the weights' tail, `(...)`. Below 0.5 their variance is finite;
            up to 0.7 estimates are of use; above, they are not. :math:`-\infty` where the largest
            weights are all equal, as under an exact guide; :math:`+\infty` where too few draws are
            in the tail to say.

    Example:
        >>> Smoothed(torch.tensor([0.25, 0.75]).log(), torch.tensor(0.1)).effective_draws
        tensor(1.6000)
    """

    log_weights: Tensor
    k_hat: Tensor

    @property
    def effective_draws(self) -> Tensor:
        r"""Draws of equal weight that are worth as much, `1 / sum_s w_s^2`, `(...)`."""
        return torch.exp(-torch.logsumexp(2.0 * self.log_weights, dim=0))


def psis(log_ratios: Tensor) -> Smoothed:
    r"""Smooth importance ratios by a Pareto distribution fitted to the largest of them.

    The largest `M = min(S / 5, 3 sqrt(S))` of `S` ratios are replaced by the quantiles at
    :math:`(m - 1/2) / M` of a generalised Pareto distribution

    .. math:: p(r > u + x \mid r > u) = (1 + \hat k x / \sigma)^{-1 / \hat k}

    above the next smaller ratio `u`, and no weight is above the largest raw one. Its shape
    :math:`\hat k` says how many moments the ratios have: moments below :math:`1 / \hat k`.

    Args:
        log_ratios: Log importance ratios :math:`\log p(z_s) - \log q(z_s)` up to a constant,
            `(draws, ...)`; :math:`-\infty` is allowed. Each trailing place is taken by itself.

    Returns:
        Normalised log weights and the shape of their tail, in the dtype of the ratios.

    Raises:
        InputError: For no draws, numbers that are not floating-point, NaN, :math:`+\infty`, or
            ratios that are all zero.

    Example:
        >>> normal = torch.distributions.Normal(torch.zeros(()), 1.0)
        >>> z = torch.randn(2000, generator=torch.Generator().manual_seed(0))
        >>> wide = torch.distributions.Normal(0.0, 3.0).log_prob(z) - normal.log_prob(z)
        >>> narrow = torch.distributions.Normal(0.0, 0.9).log_prob(z) - normal.log_prob(z)
        >>> psis(torch.stack([wide, narrow], dim=-1)).k_hat > 0.7
        tensor([ True, False])

    Source: Vehtari, Simpson, Gelman, Yao and Gabry, *Pareto Smoothed Importance Sampling*, JMLR
    2024; the fit: Zhang and Stephens, *A New and Efficient Estimation Method for the Generalized
    Pareto Distribution*, 2009.
    """
    _check_ratios(log_ratios)
    count = log_ratios.shape[0]
    size = math.ceil(min(count / 5.0, 3.0 * math.sqrt(count)))
    rounding = 64.0 * torch.finfo(log_ratios.dtype).eps

    def of_columns(columns: Tensor) -> Tensor:  # (draws, columns) -> (draws + 1, columns)
        exact = columns.double()
        largest = exact.amax(dim=0)
        ratios, k_hat = _smooth(exact - largest, size, rounding * largest.abs().clamp(min=1.0))
        return torch.cat([ratios - ratios.logsumexp(dim=0), k_hat.unsqueeze(0)])

    flat = log_ratios.detach().reshape(count, -1)  # (draws, ...) -> (draws, columns)
    most = max(count, size * (_LEAST_GRID + math.isqrt(size)))
    both = in_chunks(of_columns, flat, elements=most).to(log_ratios.dtype)
    return Smoothed(both[:-1].reshape(log_ratios.shape), both[-1].reshape(log_ratios.shape[1:]))


def _smooth(ratios: Tensor, size: int, rounding: Tensor) -> tuple[Tensor, Tensor]:
    """Smooth log ratios with a maximum of 0; return them, `(draws, columns)`, and their shape."""
    if size < LEAST_TAIL:
        return ratios, torch.full_like(rounding, torch.inf)
    ordered, order = ratios.sort(dim=0)
    tail = ordered[-size:]
    cut = ordered[-size - 1].clamp(min=math.log(torch.finfo(ratios.dtype).tiny))
    inside = tail > cut
    excess = torch.where(inside, cut.exp() * torch.expm1(tail - cut), 0.0)
    flat = tail[-1] - cut <= rounding  # what differs differs by rounding: there is no tail
    fitted = (inside.sum(dim=0) >= LEAST_TAIL) & ~flat
    shape, scale = _fit_pareto(torch.where(fitted, excess, _ramp(excess)), inside | ~fitted)
    quantiles = _pareto_quantiles(inside, shape, scale)
    smoothed = torch.log(quantiles + cut.exp()).clamp(max=0.0)
    tail = torch.where(inside & fitted, smoothed, tail)
    unknown = torch.where(flat, -torch.inf, torch.inf).to(shape.dtype)
    return ratios.scatter(0, order[-size:], tail), torch.where(fitted, shape, unknown)


def _ramp(excess: Tensor) -> Tensor:
    """Return harmless numbers to fit where there is no tail: 1, 2, 3, ..."""
    steps = torch.arange(1, len(excess) + 1, dtype=excess.dtype, device=excess.device)
    return steps.unsqueeze(-1).expand_as(excess)


def _fit_pareto(excess: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    r"""Fit a generalised Pareto distribution to sorted excesses; return shape and scale.

    With `b = -k / sigma` the profile likelihood has one parameter; its posterior mean is taken over
    a grid of quantiles of the prior, and the shape is drawn to 1/2 as by ten more observations.

    Args:
        excess: Excesses over the threshold, ascending, `(size, columns)`.
        inside: Which of them lie above it: the last ones of each column.
    """
    size, count = len(excess), inside.sum(dim=0)
    points = _LEAST_GRID + count.double().sqrt().floor()
    grid = torch.arange(1, _LEAST_GRID + math.isqrt(size) + 1, device=excess.device).unsqueeze(-1)
    valid = grid <= points
    place = torch.minimum(grid.double(), points) - 0.5
    quartile = size - count + (count / 4.0 + 0.5).long() - 1
    typical = excess.gather(0, quartile.unsqueeze(0)).squeeze(0)
    b = (1.0 - (points / place).sqrt()) / (_SCALE_PRIOR * typical) + 1.0 / excess[-1]
    k = _mean_log1p(b, excess, inside)  # (points, columns)
    profile = count * (torch.log(-b / k) - k - 1.0)
    weights = profile.masked_fill(~valid, -torch.inf).softmax(dim=0)
    weights = weights.masked_fill(weights < 10.0 * torch.finfo(weights.dtype).eps, 0.0)
    mean = (b * weights).sum(dim=0) / weights.sum(dim=0)
    shape = _mean_log1p(mean.unsqueeze(0), excess, inside).squeeze(0)
    return (count * shape + 0.5 * _SHAPE_PRIOR) / (count + _SHAPE_PRIOR), -shape / mean


def _mean_log1p(b: Tensor, excess: Tensor, inside: Tensor) -> Tensor:
    """Return the mean of `log(1 - b x)` over a column's excesses, `(points, columns)`."""
    logs = torch.log1p(-b.unsqueeze(1) * excess)  # (points, size, columns)
    return logs.masked_fill(~inside, 0.0).sum(dim=1) / inside.sum(dim=0)


def _pareto_quantiles(inside: Tensor, shape: Tensor, scale: Tensor) -> Tensor:
    """Return evenly spread quantiles at the places inside, in ascending order."""
    rank = inside.double().cumsum(dim=0) - 0.5
    level = torch.log1p(-torch.where(inside, rank / inside.sum(dim=0).clamp(min=1), 0.5))
    bent = torch.expm1(-shape * level) / shape
    straight = shape.abs() < torch.finfo(shape.dtype).eps
    return scale * torch.where(straight, -level, bent)


def _check_ratios(log_ratios: Tensor) -> None:
    if log_ratios.ndim == 0 or log_ratios.numel() == 0 or not log_ratios.is_floating_point():
        raise InputError(
            "log_ratios",
            expected="a floating-point tensor (draws, ...) with at least one draw",
            got=f"{log_ratios.dtype} of shape {tuple(log_ratios.shape)}",
            hint="stack the log ratios of the draws along the leftmost dimension",
        )
    bad = torch.isnan(log_ratios) | torch.isposinf(log_ratios)
    refuse_where(bad, "log_ratios", log_ratios, "log ratios below infinity")
    empty = log_ratios.amax(dim=0)
    refuse_where(
        torch.isneginf(empty), "log_ratios", empty, "a draw of positive weight in every column"
    )
