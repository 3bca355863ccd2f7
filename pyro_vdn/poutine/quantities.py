"""What is recorded at a neuron's site."""

from __future__ import annotations

from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vdn.nn.chain import GaussianChain
from pyro_vdn.nn.divergence import neuron_kl
from pyro_vdn.nn.markov import ChainStep, PastMoments
from pyro_vdn.nn.normals import UnitNormal, unexpanded
from pyro_vdn.nn.sites import PRIOR, Message, layer_of, step_of
from pyro_vdn.nn.unit_measures import precise
from pyro_vdn.poutine.clamp import Held


class Quantities(NamedTuple):
    """What a record takes in of a batch, in the order of `LayerRecord.update`.

    Args:
        loc: Locations of the posterior, `(..., num_units[, latent_dim])`.
        scale: Its scales, of the same shape.
        kl: KLs, `(..., num_units)`.
        prior_scale: Scales of the prior, of the shape of `loc`.
        prior_loc: Its locations, which broadcast to that shape; None for 0.
        innovation: Squared innovations of all steps but the first, `(..., steps, num_units)`; None
            without memory.

    Example:
        >>> import torch
        >>> half = torch.tensor([0.5])
        >>> Quantities(half, half, half, half).innovation is None
        True
    """

    loc: Tensor
    scale: Tensor
    kl: Tensor
    prior_scale: Tensor
    prior_loc: Tensor | None = None
    innovation: Tensor | None = None


class PriorPasts:
    """Moments of the past under the prior, of the layers that run as a `pyro.markov` loop.

    A step of a posterior knows those under the posterior; the prior's are followed from step to
    step.

    Example:
        >>> len(PriorPasts().by_layer)
        0
    """

    def __init__(self) -> None:
        self.by_layer: dict[str, PastMoments] = {}

    def advance(self, name: str, prior: ChainStep) -> PastMoments:
        """Return the moments after a step, the latest value first, and remember them.

        Args:
            name: Name of the step's site.
            prior: The prior's step.
        """
        path, order = layer_of(name), prior.on_past.coefficients.shape[-1]
        before = self.by_layer.get(path)
        if before is None or step_of(name) == 0:
            before = PastMoments.nothing(prior.scale.detach(), order)
        self.by_layer[path] = before.after(prior)
        return self.by_layer[path]

    def fix(self, msg: Message) -> None:
        """Take in a step that is observed.

        Args:
            msg: The message of its site.
        """
        if isinstance(msg["fn"], ChainStep):
            self.advance(msg["name"], msg["fn"])
            path = layer_of(msg["name"])
            self.by_layer[path] = self.by_layer[path].after_value(msg["value"].detach())


def quantities(msg: Message, posterior: dist.Distribution, pasts: PriorPasts) -> Quantities:
    """Return what is recorded at a neuron's site.

    Args:
        msg: The message of the site.
        posterior: The posterior that is offered there.
        pasts: What the prior says of the steps before.
    """
    prior, value = msg["fn"], msg["value"]
    if PRIOR in msg["infer"]:  # drawn from the posterior; `fn` is it, or in a replayed model not
        prior = msg["infer"][PRIOR]
        if posterior.batch_shape != msg["fn"].batch_shape:
            posterior = posterior.expand(msg["fn"].batch_shape)
    else:
        value = posterior.sample()
    kl = neuron_kl(posterior, prior, value).expand(posterior.batch_shape)
    free, free_prior = _free(posterior), _free(prior)
    if isinstance(free, ChainStep) and isinstance(free_prior, ChainStep):
        seen = _of_step(msg["name"], free, free_prior, kl, pasts)
        if isinstance(posterior, Held) and isinstance(prior, Held):
            return _with_held(seen, posterior, prior)
        return seen
    prior_scale = _scale(prior).expand(posterior.batch_shape + posterior.event_shape)
    prior_loc = None if _is_centred(prior) else _loc(prior)
    innovation = None
    if isinstance(prior, GaussianChain) and isinstance(posterior, (GaussianChain, dist.Normal)):
        innovation = _innovation(posterior, prior, kl)[..., 1:, :]
    return Quantities(_loc(posterior), _scale(posterior), kl, prior_scale, prior_loc, innovation)


def _free(distribution: dist.Distribution) -> dist.Distribution:
    """Return the distribution of the units that no clamp holds."""
    while isinstance(distribution, Held):
        distribution = distribution.base_dist
    return distribution


def _with_held(seen: Quantities, posterior: Held, prior: Held) -> Quantities:
    """Return the quantities with those of held units in their place."""
    held = ~posterior._mask
    return seen._replace(
        loc=torch.where(held, precise(posterior.mean), seen.loc),
        scale=torch.where(held, precise(posterior.variance).sqrt(), seen.scale),
        prior_scale=torch.where(held, precise(prior.variance).sqrt(), seen.prior_scale),
    )


def _of_step(
    name: str, posterior: ChainStep, prior: ChainStep, kl: Tensor, pasts: PriorPasts
) -> Quantities:
    """Return what is recorded at one step of a loop, with the past averaged out."""
    assert posterior.on_past.moments is not None
    after, prior_after = posterior.on_past.moments.after(posterior), pasts.advance(name, prior)
    shape = posterior.batch_shape
    loc, prior_loc, variance, prior_variance = (
        precise(values).expand(shape)
        for values in (
            after.mean[..., 0],
            prior_after.mean[..., 0],
            after.covariance[..., 0, 0],
            prior_after.covariance[..., 0, 0],
        )
    )
    innovation = None if step_of(name) == 0 else _innovation(posterior, prior, kl)
    return Quantities(loc, variance.sqrt(), kl, prior_variance.sqrt(), prior_loc, innovation)


def _innovation(
    posterior: GaussianChain | dist.Normal, prior: GaussianChain | dist.Normal, kl: Tensor
) -> Tensor:
    r"""Return `E_q[(z_t - E_p[z_t | past])^2]` of each step, from its KL.

    The KL of a step is `log(c_p / c_q) - 1/2` plus this over `2 c_p^2`.
    """
    scale, prior_scale = unexpanded(posterior.scale), prior.scale
    exponent = precise(kl) + precise(scale / prior_scale).log() + 0.5
    return (2 * precise(prior_scale).square() * exponent).clamp(min=0).expand(kl.shape)


def _is_centred(prior: dist.Distribution) -> bool:
    alone = prior.base_dist if isinstance(prior, dist.Independent) else prior
    return isinstance(alone, UnitNormal) or (isinstance(alone, GaussianChain) and alone.is_centred)


def squared(values: Tensor) -> Tensor:
    """Return squares, `(...)`, in memory of their own size where all rows share them.

    Args:
        values: Values, `(...)`.
    """
    return unexpanded(values).square().expand(values.shape)


def _loc(distribution: dist.Distribution) -> Tensor:
    mean = distribution.mean
    return precise(unexpanded(mean).detach()).expand(mean.shape)


def _scale(distribution: dist.Distribution) -> Tensor:
    """Return standard deviations, in memory of their own size where all rows share them."""
    if isinstance(distribution, dist.Independent):
        return _scale(distribution.base_dist)
    if isinstance(distribution, dist.Normal):
        scale = distribution.scale
        return precise(unexpanded(scale).detach()).expand(scale.shape)
    variance = distribution.variance
    return precise(unexpanded(variance).detach()).sqrt().expand(variance.shape)
