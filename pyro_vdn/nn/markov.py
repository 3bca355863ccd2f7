"""Chains step by step: the readable program, and the reference for the one without a loop."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import register_kl

from pyro_vdn.errors import InputError
from pyro_vdn.nn.chain import GaussianChain, as_chain
from pyro_vdn.nn.following import Present
from pyro_vdn.nn.lags import widened
from pyro_vdn.nn.sites import POSTERIOR, PRESENT, Message, latent_site, step_plate


class PastMoments(NamedTuple):
    """Moments of the last values of a chain before a step, the latest first.

    Args:
        mean: `(..., 1, units, order)`.
        covariance: `(..., 1, units, order, order)`.

    Example:
        >>> PastMoments.nothing(torch.zeros(1, 3), 2).mean.shape
        torch.Size([1, 3, 2])
    """

    mean: Tensor
    covariance: Tensor

    @classmethod
    def nothing(cls, like: Tensor, order: int) -> PastMoments:
        """Return those before the first step, where all is fixed at 0.

        Args:
            like: A tensor `(..., 1, units)`.
            order: Number of values.
        """
        mean = like.new_zeros(*like.shape, order)
        return cls(mean, mean.new_zeros(*mean.shape, order))

    def after(self, step: ChainStep) -> PastMoments:
        """Return those after a step of the chain."""
        a = widened(step.on_past.coefficients, self.mean.shape[-1])
        cross = (self.covariance @ a.unsqueeze(-1)).squeeze(-1)
        variance = (a * cross).sum(-1) + step.scale.square()
        return self._moved(step.mean_over_past(self), variance, cross)

    def after_value(self, value: Tensor) -> PastMoments:
        """Return those after a step that an observation fixed."""
        return self._moved(value, torch.zeros_like(value), torch.zeros_like(self.mean))

    def _moved(self, mean: Tensor, variance: Tensor, cross: Tensor) -> PastMoments:
        kept = self.mean.shape[-1] - 1
        shape: torch.Size = torch.broadcast_shapes(  # type: ignore[no-untyped-call]
            mean.shape, variance.shape, self.mean.shape[:-1]
        )
        earlier = self.mean[..., :kept].expand(*shape, kept)
        cross = cross[..., :kept].expand(*shape, kept)
        top = torch.cat([variance.expand(shape).unsqueeze(-1), cross], -1)
        within = self.covariance[..., :kept, :kept].expand(*shape, kept, kept)
        bottom = torch.cat([cross.unsqueeze(-1), within], -1)
        return PastMoments(
            torch.cat([mean.expand(shape).unsqueeze(-1), earlier], -1),
            torch.cat([top.unsqueeze(-2), bottom], -2),
        )


class Dependence(NamedTuple):
    """How a step depends on the values before it.

    Args:
        coefficients: `a`, `(..., 1, units, order)`.
        offset: `b`, broadcastable to `(..., 1, units)`.
        moments: Moments of the past under the chain, where it is a posterior.

    Example:
        >>> Dependence(torch.ones(1, 2, 1), torch.zeros(())).moments is None
        True
    """

    coefficients: Tensor
    offset: Tensor
    moments: PastMoments | None = None


class ChainStep(dist.Normal):
    """One step of a chain given the values before it; it knows how it depends on them.

    Args:
        loc: Location, `(..., 1, units)`.
        scale: Scale, `(..., 1, units)`.
        on_past: How the location came from earlier values.

    Example:
        >>> chain = GaussianChain(torch.full((1, 2, 1), 0.5), None, torch.ones(3, 2))
        >>> ChainStep.of(chain, 1, [torch.ones(1, 2)]).loc
        tensor([[0.5000, 0.5000]])
    """

    def __init__(self, loc: Tensor, scale: Tensor, on_past: Dependence) -> None:
        super().__init__(loc, scale, validate_args=False)
        self.on_past = on_past

    @classmethod
    def of(
        cls,
        chain: GaussianChain,
        time: int,
        past: list[Tensor],
        moments: PastMoments | None = None,
    ) -> ChainStep:
        """Return a step of a chain.

        Args:
            chain: The chain.
            time: The step.
            past: Values of all earlier steps, each `(..., 1, units)`.
            moments: Their moments under the chain, where it is a posterior.
        """
        a, b = at_step(chain.coefficients, time, -3), at_step(chain.offset, time, -2)
        latest_first = past[: -chain.order - 1 : -1]
        loc = sum((a[..., lag] * value for lag, value in enumerate(latest_first)), b)
        shape = torch.Size((*chain.batch_shape[:-2], 1, chain.batch_shape[-1]))
        shape = torch.broadcast_shapes(shape, loc.shape)  # type: ignore[no-untyped-call]
        scale = at_step(chain.scale, time, -2)
        return cls(loc.expand(shape), scale.expand(shape), Dependence(a, b, moments))

    def mean_over_past(self, moments: PastMoments) -> Tensor:
        """Return the mean of the step where the past has these moments, `(..., 1, units)`."""
        a = widened(self.on_past.coefficients, moments.mean.shape[-1])
        return (a * moments.mean).sum(-1) + self.on_past.offset

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> ChainStep:
        """Return the same step over a larger batch."""
        return ChainStep(self.loc.expand(batch_shape), self.scale.expand(batch_shape), self.on_past)


def at_step(values: Tensor, time: int, dim: int) -> Tensor:
    """Return the values of a step, its dimension kept, where they vary over time at all.

    Args:
        values: Values with time at `dim`, or of size 1 there, or without that dimension.
        time: The step.
        dim: The dimension of time, negative.
    """
    if values.dim() < -dim or values.shape[dim] == 1:
        return values
    return values.narrow(dim, time, 1)


def marginal_mean(distribution: dist.Distribution) -> Tensor:
    """Return the mean of a posterior, for a step of a chain that over its past.

    Args:
        distribution: A posterior that a layer offers.

    Returns:
        Means, of batch and event shape.
    """
    if isinstance(distribution, ChainStep) and distribution.on_past.moments is not None:
        return distribution.mean_over_past(distribution.on_past.moments).expand(
            distribution.batch_shape
        )
    mean: Tensor = distribution.mean
    return mean


def step_kl(q: ChainStep, p: ChainStep) -> Tensor:
    """Return the KL of a step, in expectation over the past under the posterior chain.

    Args:
        q: A step of the posterior, with the moments of the past.
        p: That of the prior.

    Returns:
        KLs in nats, `(..., 1, units)`.
    """
    (a, b, moments), (prior_a, prior_b, _) = q.on_past, p.on_past
    assert moments is not None
    order = moments.mean.shape[-1]
    weights = widened(a, order) - widened(prior_a, order)
    distance = (weights * moments.mean).sum(-1) + b - prior_b
    spread = (weights.unsqueeze(-2) @ moments.covariance @ weights.unsqueeze(-1))[..., 0, 0]
    ratio = q.scale / p.scale
    error = (distance.square() + spread) / p.scale.square()
    kl: Tensor = 0.5 * (error + ratio.square() - 1) - ratio.log()
    return kl


register_kl(ChainStep, ChainStep)(step_kl)  # type: ignore[no-untyped-call]


def run_chain(
    path: str,
    prior: GaussianChain,
    posterior: Callable[[], dist.Distribution],
    mask: Tensor | None = None,
) -> Tensor:
    """Sample a layer's chains step by step, at one site each, in a `pyro.markov` loop.

    Args:
        path: Path of the layer.
        prior: Its prior.
        posterior: Its posterior, evaluated where a step's offer is taken.
        mask: Boolean, `(..., time)`: which steps have input; None for all.

    Returns:
        The values of all steps, `(..., time, units)`.

    Raises:
        InputError: For a weight or mask per step, which one site per step cannot tell apart.
    """
    walk = _Walk(prior, posterior)
    present = None if mask is None else Present.of(mask)
    with pyro.plate(step_plate(path), 1, dim=-2):  # each step keeps the place of time
        for time in pyro.markov(range(prior.batch_shape[-2]), history=prior.order):
            infer: dict[str, Any] = {
                POSTERIOR: functools.cache(functools.partial(walk.posterior_step, time))
            }
            if present is not None:
                infer[PRESENT] = present.at(time)
            step = ChainStep.of(prior, time, walk.values)
            with _Effects() as effects:
                value: Tensor = pyro.sample(latent_site(path, time), step, infer=infer)
            walk.values.append(value)
            walk.observed.append(effects.observed)
    lead = torch.broadcast_shapes(*(value.shape for value in walk.values))  # type: ignore[no-untyped-call]
    return torch.cat([value.expand(lead) for value in walk.values], -2)


class _Walk:
    """A run over the steps: values, and the moments of the past where someone asks for them."""

    def __init__(self, prior: GaussianChain, posterior: Callable[[], dist.Distribution]) -> None:
        self._prior, self._posterior = prior, posterior
        self.values: list[Tensor] = []
        self.observed: list[bool] = []
        self._moments: list[PastMoments] = []

    def posterior_step(self, time: int) -> ChainStep:
        """Return the posterior of a step, given the values of those before."""
        chain = as_chain(self._posterior())
        if not self._moments:
            like = at_step(chain.scale.expand(chain.batch_shape), 0, -2)
            order = max(self._prior.order, chain.order)
            self._moments.append(PastMoments.nothing(like, order))
        while len(self._moments) <= time:
            self._moments.append(self._next_moments(chain))
        return ChainStep.of(chain, time, self.values[:time], self._moments[time])

    def _next_moments(self, chain: GaussianChain) -> PastMoments:
        last = len(self._moments) - 1
        before = self._moments[last]
        if self.observed[last]:
            return before.after_value(self.values[last])
        return before.after(ChainStep.of(chain, last, self.values[:last]))


class _Effects(Messenger):
    """Notice whether effects outside observe the step that runs inside; refuse one per step."""

    observed = False

    def _pyro_post_sample(self, msg: Message) -> None:
        self.observed = bool(msg["is_observed"])
        for name in ("scale", "mask"):
            effect = msg[name]
            if isinstance(effect, Tensor) and effect.dim() > 1 and effect.shape[-2] > 1:
                raise InputError(
                    f"{name} of site '{msg['name']}'",
                    expected="one that is the same for all steps of a loop over time",
                    got=f"one of shape {tuple(effect.shape)}",
                    hint='steps="parallel", which has all steps at one site',
                )
