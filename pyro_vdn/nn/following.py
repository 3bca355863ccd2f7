"""Neurons whose input is missing: they follow their prior."""

from __future__ import annotations

from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vdn.nn.chain import GaussianChain, as_chain
from pyro_vdn.nn.lags import widened


class Present(NamedTuple):
    """Which steps have input.

    Args:
        here: Boolean, `(..., time)`: whether this step has.
        before: Boolean, `(..., time)`: whether any step before has.

    Example:
        >>> Present.of(torch.tensor([False, True, True])).before
        tensor([False, False,  True])
    """

    here: Tensor
    before: Tensor

    @classmethod
    def of(cls, mask: Tensor) -> Present:
        """Return the same of a mask, `(..., time)`."""
        so_far = mask.cummax(-1).values
        return cls(mask, torch.cat([torch.zeros_like(mask[..., :1]), so_far[..., :-1]], -1))

    def at(self, time: int) -> Present:
        """Return that of one step, `(..., 1)`."""
        return Present(*(values[..., time : time + 1] for values in self))


def following(
    prior: dist.Distribution, posterior: dist.Distribution, mask: Tensor
) -> dist.Distribution:
    """Return the posterior where there is input and, elsewhere, what the prior says given the past.

    Args:
        prior: A chain or a normal, which broadcasts to `(..., time, units)`.
        posterior: The same of batch shape `(..., time, units)`.
        mask: Boolean, `(..., time)`: whether a step has input.

    Returns:
        A normal where both are, else a chain.

    Raises:
        InputError: Where either is neither a chain nor a normal.
    """
    if isinstance(posterior, dist.Independent) and isinstance(prior, dist.Independent):
        inner = following(prior.base_dist, posterior.base_dist, mask.unsqueeze(-1))
        return inner.to_event(posterior.reinterpreted_batch_ndims)
    where = mask.unsqueeze(-1)
    if isinstance(posterior, dist.Normal) and isinstance(prior, dist.Normal):
        loc = torch.where(where, posterior.loc, prior.loc)
        scale = torch.where(where, posterior.scale, prior.scale)
        return dist.Normal(loc, scale, validate_args=False)
    q, p = as_chain(posterior), as_chain(prior)
    order = max(q.order, p.order)
    return GaussianChain(
        torch.where(
            where.unsqueeze(-1), widened(q.coefficients, order), widened(p.coefficients, order)
        ),
        torch.where(where, q.offset, p.offset),
        torch.where(where, q.scale, p.scale),
        batch_shape=torch.Size(posterior.batch_shape),
        validate_args=False,
    )
