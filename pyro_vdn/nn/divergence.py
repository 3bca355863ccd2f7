"""The KL of neurons in closed form, at the cost of what the tensors really hold."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_vdn.nn.chain import GaussianChain
from pyro_vdn.nn.chain_kl import chain_kl
from pyro_vdn.nn.markov import ChainStep, step_kl
from pyro_vdn.nn.normals import UnitNormal, unexpanded


def closed_form_kl(q: dist.Distribution, p: dist.Distribution) -> Tensor | None:
    r"""Return `KL(q || p)` in closed form, or None where there is none.

    For normals, `KL = log(s_p / s_q) + (s_q^2 + (m_q - m_p)^2) / (2 s_p^2) - 1/2`. Scales shared by
    many rows are not copied per row, so a per-unit scale costs its logarithm once a unit rather
    than once a row and unit.

    Args:
        q: The posterior.
        p: The prior, of a batch shape that broadcasts with that of `q`.

    Returns:
        A tensor that broadcasts to the batch shape, smaller where the KL does not vary along a
        dimension.

    Example:
        >>> q = dist.Normal(torch.ones(2, 3), 1.0)
        >>> closed_form_kl(q, dist.Normal(torch.zeros(2, 3), 1.0))[0]
        tensor([0.5000, 0.5000, 0.5000])
        >>> closed_form_kl(q, dist.StudentT(5.0, torch.zeros(2, 3), 1.0)) is None
        True
    """
    if is_silent(q) and is_silent(p):
        nothing: Tensor = q.mean.new_zeros(())
        return nothing
    if isinstance(q, dist.Independent) and isinstance(p, dist.Independent):
        inner = closed_form_kl(q.base_dist, p.base_dist)
        dims = list(range(-q.reinterpreted_batch_ndims, 0))
        return None if inner is None else inner.expand(_joint(q.base_dist, p.base_dist)).sum(dims)
    if isinstance(p, UnitNormal) and isinstance(q, dist.Normal):
        scale = unexpanded(q.scale)
        return 0.5 * unexpanded(q.loc).square() + (0.5 * scale.square() - scale.log() - 0.5)
    if isinstance(p, GaussianChain) and isinstance(q, (GaussianChain, dist.Normal)):
        return chain_kl(q, p)
    if isinstance(q, ChainStep) and isinstance(p, ChainStep):
        return step_kl(q, p)
    if isinstance(q, dist.Normal) and isinstance(p, dist.Normal):
        return _normal_kl(q, p)
    try:
        return torch.as_tensor(kl_divergence(q, p))
    except NotImplementedError:
        return None


def _normal_kl(q: dist.Normal, p: dist.Normal) -> Tensor:
    q_scale, p_loc, p_scale = (unexpanded(value) for value in (q.scale, p.loc, p.scale))
    distance = (unexpanded(q.loc) - p_loc).square() * (0.5 / p_scale.square())
    ratio = q_scale / p_scale
    return distance + (0.5 * ratio.square() - ratio.log() - 0.5)


def is_silent(distribution: dist.Distribution) -> bool:
    """Say whether a distribution's log density is masked out altogether, as a point's is.

    Args:
        distribution: A distribution.
    """
    return getattr(distribution, "_mask", None) is False


def _joint(q: dist.Distribution, p: dist.Distribution) -> torch.Size:
    shape: torch.Size = torch.broadcast_shapes(q.batch_shape, p.batch_shape)  # type: ignore[no-untyped-call]
    return shape


def monte_carlo_kl(q: dist.Distribution, p: dist.Distribution, value: Tensor) -> Tensor:
    """Return the one-draw estimate `log q(z) - log p(z)` of the KL at a draw of `q`.

    The estimate is unbiased and its gradient is pathwise.

    Args:
        q: The posterior.
        p: The prior.
        value: A draw of `q`, shape `batch_shape + event_shape`.

    Returns:
        The estimate, of the batch shape.
    """
    estimate: Tensor = q.log_prob(value) - p.log_prob(value)
    return estimate


def neuron_kl(q: dist.Distribution, p: dist.Distribution, value: Tensor) -> Tensor:
    """Return `KL(q || p)` in closed form where it exists, else its one-draw estimate at `value`.

    Args:
        q: The posterior.
        p: The prior, of a batch shape that broadcasts with that of `q`.
        value: A draw of `q`, shape `batch_shape + event_shape`.

    Returns:
        A tensor that broadcasts to the batch shape.
    """
    exact = closed_form_kl(q, p)
    return monte_carlo_kl(q, p, value) if exact is None else exact


def sum_over(values: Tensor, shape: torch.Size) -> Tensor:
    """Sum values as if expanded, without expanding them.

    Args:
        values: Values of a shape that broadcasts to `shape`.
        shape: The shape to sum over.
    """
    copies = math.prod(shape) / max(values.numel(), 1)
    total = values.sum()
    return total if copies == 1 else total * copies
