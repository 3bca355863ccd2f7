"""Changing the distribution inside of what other effects made of it."""

from __future__ import annotations

from collections.abc import Callable

import pyro.distributions as dist
from pyro.distributions import MaskedDistribution

from pyro_vdn.nn.markov import ChainStep
from pyro_vdn.nn.sites import PRIOR, Message
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


def draws_posterior(msg: Message) -> bool:
    """Say whether a neuron's site is drawn from its posterior, or from what replaced both.

    Args:
        msg: The message of the site.
    """
    fn = msg["fn"]
    while isinstance(fn, Held):
        fn = fn.base_dist
    return PRIOR in msg["infer"] or isinstance(fn, DroppedOut)
