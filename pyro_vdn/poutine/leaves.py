"""Changing the distribution inside of what other effects made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
from pyro.distributions import MaskedDistribution

from pyro_vdn.nn.markov import ChainStep
from pyro_vdn.nn.sites import DRAWN, POSTERIOR, PRIOR, Message
from pyro_vdn.poutine.averaged import Averaged
from pyro_vdn.poutine.clamp import Held
from pyro_vdn.poutine.dropout import DroppedOut

#: From a distribution, and the number of event dimensions put around it, to another.
Change = Callable[[dist.Distribution, int], dist.Distribution]


def change_leaves(
    posterior: dist.Distribution, change: Change, event_dim: int = 0
) -> dist.Distribution:
    """Change the free distribution of a layer's units, and keep what effects put around it.

    Held units stay held, masks and averages stay, and a point, which has no noise, is left alone.

    Args:
        posterior: A layer's posterior, effects applied.
        change: What becomes of the distribution inside.
        event_dim: Event dimensions that stand around it so far.

    Example:
        >>> import torch
        >>> average = Averaged(dist.Normal(torch.zeros(2), 1.0), 4)
        >>> change_leaves(average, lambda leaf, _: dist.Normal(leaf.loc, 2.0)).variance
        tensor([1., 1.])
    """
    if isinstance(posterior, Averaged):
        return Averaged(change_leaves(posterior.base, change, event_dim), posterior.num_draws)
    if isinstance(posterior, Held):
        free = change_leaves(posterior.base_dist, change, event_dim)
        return Held(free, ~posterior._mask, posterior.values)
    if isinstance(posterior, MaskedDistribution):
        if posterior._mask is False:
            return posterior
        return change_leaves(posterior.base_dist, change, event_dim).mask(posterior._mask)
    if isinstance(posterior, dist.Independent):
        dims = posterior.reinterpreted_batch_ndims
        return change_leaves(posterior.base_dist, change, event_dim + dims).to_event(dims)
    return change(posterior, event_dim)


def is_plain_normal(distribution: dist.Distribution) -> bool:
    """Say whether a distribution is a normal by itself, no step that depends on those before."""
    return isinstance(distribution, dist.Normal) and not isinstance(distribution, ChainStep)


def change_posterior(
    msg: Message, change: Callable[[dist.Distribution], dist.Distribution]
) -> None:
    """Apply `change` to the posterior of a neuron's site, offered or drawn from, not to its prior.

    A model that is replayed against its guide is left alone: it has the guide's offers, where the
    effect has been already, and draws nothing.

    Args:
        msg: The message of the site, changed in place.
        change: From a posterior to the one that takes its place.
    """
    infer: dict[str, Any] = msg["infer"]
    drawn = bool(msg.get(DRAWN))
    if PRIOR in infer and not drawn:
        return
    offer = infer[POSTERIOR]
    infer[POSTERIOR] = lambda: change(offer())
    if drawn or _is_dropped_out(msg["fn"]):
        msg["fn"] = change(msg["fn"])


def _is_dropped_out(distribution: dist.Distribution) -> bool:
    """Say whether dropout stands here, which takes the place of priors too."""
    while isinstance(distribution, Held):
        distribution = distribution.base_dist
    return isinstance(distribution, DroppedOut)
