"""Chains step by step: the readable program, and the reference for the one without a loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import register_kl

from pyro_vdn.nn.chain import GaussianChain, as_chain
from pyro_vdn.nn.lags import widened
from pyro_vdn.nn.sites import POSTERIOR, Message, latent_site


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
        return self._moved((a * self.mean).sum(-1) + step.on_past.offset, variance, cross)

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
            past: Values of earlier steps, the latest first, each `(..., 1, units)`.
            moments: Their moments under the chain, where it is a posterior.
        """
        a, b = _at(chain.coefficients, time, -3), _at(chain.offset, time, -2)
        loc = sum((a[..., lag] * value for lag, value in enumerate(past[: chain.order])), b)
        shape = torch.Size((*chain.batch_shape[:-2], 1, chain.batch_shape[-1]))
        shape = torch.broadcast_shapes(shape, loc.shape)  # type: ignore[no-untyped-call]
        scale = _at(chain.scale, time, -2)
        return cls(loc.expand(shape), scale.expand(shape), Dependence(a, b, moments))

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> ChainStep:
        """Return the same step over a larger batch."""
        return ChainStep(self.loc.expand(batch_shape), self.scale.expand(batch_shape), self.on_past)


def _at(values: Tensor, time: int, dim: int) -> Tensor:
    """Return the values of a step, its dimension kept, where they vary over time at all."""
    if values.dim() < -dim or values.shape[dim] == 1:
        return values
    return values.narrow(dim, time, 1)


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
    path: str, prior: GaussianChain, posterior: Callable[[], dist.Distribution]
) -> Tensor:
    """Sample a layer's chains step by step, at one site each, in a `pyro.markov` loop.

    Args:
        path: Path of the layer.
        prior: Its prior.
        posterior: Its posterior, evaluated where a step's offer is taken.

    Returns:
        The values of all steps, `(..., time, units)`.
    """
    values: list[Tensor] = []
    moments: PastMoments | None = None
    for time in pyro.markov(range(prior.batch_shape[-2]), history=prior.order):
        past = values[: -prior.order - 1 : -1]
        offer = _Offer(posterior, time, past, moments, prior.order)
        with _Observed() as seen:
            value: Tensor = pyro.sample(
                latent_site(path, time), ChainStep.of(prior, time, past), infer={POSTERIOR: offer}
            )
        values.append(value)
        moments = offer.after(value if seen.observed else None)
    return torch.cat(values, -2)


class _Offer:
    """The posterior of a step, made when it is first asked for."""

    def __init__(
        self,
        posterior: Callable[[], dist.Distribution],
        time: int,
        past: list[Tensor],
        moments: PastMoments | None,
        order: int,
    ) -> None:
        self._posterior, self._time, self._past = posterior, time, past
        self._moments, self._order = moments, order
        self._step: ChainStep | None = None

    def __call__(self) -> ChainStep:
        if self._step is None:
            chain = as_chain(self._posterior())
            if self._moments is None:
                like = _at(chain.scale.expand(chain.batch_shape), self._time, -2)
                self._moments = PastMoments.nothing(like, max(self._order, chain.order))
            self._step = ChainStep.of(chain, self._time, self._past, self._moments)
        return self._step

    def after(self, observed: Tensor | None) -> PastMoments | None:
        """Return the moments of the past after this step, or None where nobody took the offer."""
        if self._step is None and observed is None:
            return None
        moments = self().on_past.moments
        assert moments is not None
        return moments.after(self()) if observed is None else moments.after_value(observed)


class _Observed(Messenger):
    """Notice whether an effect outside observes the site that runs inside."""

    observed = False

    def _pyro_post_sample(self, msg: Message) -> None:
        self.observed = bool(msg["is_observed"])
