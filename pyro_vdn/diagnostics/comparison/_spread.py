"""Variance and information of a mixture of predictive distributions, draw by draw."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from pyro.distributions import MaskedDistribution
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.nn.categorical import mean_log_probs

_REACH = 8.0
_REACH_OF_COUNTS = 15.0
"""How many standard deviations around the means are looked at: counts have long tails."""
_MOST_NODES = 4096


class Spread(NamedTuple):
    """What the draws of an outcome's distribution say apart and together.

    Args:
        aleatoric: Mean over draws of the variance, `(rows, ..., outputs)`, of classes that of their
            indicators.
        between: Unbiased variance over draws of the mean, of the same shape.
        information: Mutual information of outcome and draw in nats, of the same shape, of classes
            without their dimension; None for a joint distribution without known marginals.
        error: Its standard error.

    Example:
        >>> spread_of(dist.Normal(torch.tensor([0.0, 2.0]).reshape(2, 1, 1), 1.0)).between
        tensor([[2.]])
    """

    aleatoric: Tensor
    between: Tensor
    information: Tensor | None
    error: Tensor | None


def spread_of(outcome: dist.Distribution) -> Spread:
    """Return the parts of the spread of a mixture.

    Args:
        outcome: Distribution of the outcome, batch shape `(draws, rows, ..., outputs)`, or with 1
            in place of outputs or classes that are no batch dimension.

    Raises:
        InputError: For infinite or undefined moments.
    """
    outcome = _bare(outcome)
    if isinstance(outcome, dist.Categorical):
        return _of_classes(outcome.logits.squeeze(-2).log_softmax(-1))
    known = outcome if outcome.event_dim == 0 else _marginals(outcome)
    mean, variance = (known or outcome).mean, (known or outcome).variance
    if not bool((torch.isfinite(mean) & torch.isfinite(variance)).all()):
        raise InputError(
            "model",
            expected="an outcome of finite mean and variance under every draw",
            got=f"a {type(outcome).__name__} without",
            hint="a Student-t needs more than 2 degrees of freedom",
        )
    information = _of_nodes(known, mean, variance) if known is not None else (None, None)
    parts = (variance.mean(0), mean.var(0), *information)
    if outcome.event_dim:  # (rows, ..., 1, outputs) -> (rows, ..., outputs)
        parts = tuple(None if part is None else part.squeeze(-2) for part in parts)
    return Spread(*parts)


def _bare(outcome: Any) -> Any:
    """Return the distribution inside of masks and events of independent outputs."""
    while isinstance(outcome, MaskedDistribution):
        outcome = outcome.base_dist
    return outcome


def _marginals(outcome: Any) -> Any:
    """Return the distribution of each output by itself, or None where it is not known."""
    if isinstance(outcome, dist.Independent) and outcome.base_dist.event_dim == 0:
        return outcome.base_dist
    return outcome.per_output() if hasattr(outcome, "per_output") else None


def _of_classes(log_probs: Tensor) -> Spread:
    """Return the same of log probabilities, `(draws, rows, ..., classes)`, in closed form."""
    probs, log_mean = log_probs.exp(), mean_log_probs(log_probs)
    least = torch.finfo(log_probs.dtype).min  # 0 times it is 0, not NaN
    gain = (probs * (log_probs.clamp_min(least) - log_mean.clamp_min(least))).sum(-1)
    return Spread((probs - probs.square()).mean(0), probs.var(0), *_averaged(gain))


def _of_nodes(known: Any, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Return the information and its error, summed over nodes on the outcome's axis.

    Each draw's divergence from the mixture is a sum over counts, or an integral by the midpoint
    rule, for which half of the smallest scale is fine enough on the whole line.
    """
    first, step, count = _nodes(known, mean, variance.sqrt())
    gain, mass = torch.zeros_like(mean), torch.zeros_like(mean)
    for node in range(count):
        log_prob = _log_prob(known, first + step * node, mean)
        weight = log_prob.exp() * step
        gain += torch.where(weight > 0, weight * (log_prob - mean_log_probs(log_prob)), 0.0)
        mass += weight
    # Draws so narrow that nodes miss them have hardly anything in common: log S each.
    seen = (mass > 0.5) & (mass < 2.0)
    return _averaged(torch.where(seen, gain / mass, math.log(len(mean))))


def _log_prob(known: Any, value: Tensor, mean: Tensor) -> Tensor:
    """Return log densities of a value, which another draw's support may not hold."""
    support = known.support
    limits = (getattr(support, name, 0.0) for name in ("lower_bound", "upper_bound"))
    if not any(isinstance(limit, Tensor) for limit in limits):
        return torch.as_tensor(known.log_prob(value))
    inside = support.check(value.expand(mean.shape))
    safe = mean.floor() if support.is_discrete else mean
    return torch.where(inside, known.log_prob(torch.where(inside, value, safe)), -math.inf)


def _nodes(known: Any, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor, int]:
    """Return the first node and the step for each output, `(rows, ..., outputs)`, and how many."""
    is_count = bool(known.support.is_discrete)
    reach = (_REACH_OF_COUNTS if is_count else _REACH) * deviation
    low, high = (mean - reach).amin(0), (mean + reach).amax(0)
    least, most = _bounds(known, mean)
    low, high = torch.maximum(low, least), torch.minimum(high, most)
    if is_count:
        low, high = low.floor(), high.ceil()
        count = _bounded((high - low).max() + 1)
        return low, ((high - low + 1) / count).ceil(), count
    scale = getattr(known, "scale", deviation).expand(mean.shape).amin(0)
    # At the edge of a support a density is less smooth than a normal's.
    has_edge = bool((least > -math.inf).any() or (most < math.inf).any())
    per_scale = 16 if has_edge else 2
    count = _bounded((per_scale * (high - low) / scale).max().ceil())
    step = (high - low) / count
    return low + 0.5 * step, step, count


def _bounds(known: Any, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest and largest value that an outcome can take under any draw.

    They are single numbers or, where they are parameters, `(rows, ..., outputs)`.
    """
    support = known.support
    least, most = (
        torch.as_tensor(getattr(support, name, end), dtype=mean.dtype, device=mean.device)
        for name, end in (("lower_bound", -math.inf), ("upper_bound", math.inf))
    )
    if known.has_enumerate_support and bool((least == -math.inf).all()):
        values = known.enumerate_support(expand=False).to(mean)
        least, most = values.min(), values.max()
    if least.dim():
        least = least.expand(mean.shape).amin(0)
    if most.dim():
        most = most.expand(mean.shape).amax(0)
    return least, most


def _bounded(count: Tensor) -> int:
    return int(min(float(count), _MOST_NODES))


def _averaged(gain: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean over draws of each one's divergence from the mixture, and its error.

    To first order, what a draw adds to the information is its own divergence, so that these are as
    good as independent terms.
    """
    return gain.mean(0).clamp_min(0.0), gain.std(0) / len(gain) ** 0.5
