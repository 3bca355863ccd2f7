"""The KL between chains over time, in closed form, step by step or averaged per unit."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import register_kl

from pyro_vdn.nn.blocked import product_sum
from pyro_vdn.nn.chain import GaussianChain
from pyro_vdn.nn.lags import carried, covariances, lagged, widened
from pyro_vdn.nn.normals import unexpanded


class Difference(NamedTuple):
    r"""How the steps of a posterior differ from what a prior says given the same past.

    The difference of locations is `w^T past + b`.

    Args:
        weights: `w = a_q - a_p`, `(..., time or 1, units, order)`.
        past_mean: `E_q[z]` of all steps, `(..., time, units)`.
        offset: `b = b_q - b_p`, `(..., time, units)`.
        spread: `w^T Cov_q(past) w + c_q^2`, broadcastable to `(..., time, units)`.

    Example:
        >>> zero = torch.zeros(3, 2)
        >>> Difference(zero.unsqueeze(-1), zero, zero, zero).weights.shape
        torch.Size([3, 2, 1])
    """

    weights: Tensor
    past_mean: Tensor
    offset: Tensor
    spread: Tensor


def chain_kl(q: dist.Distribution, p: GaussianChain) -> Tensor:
    r"""Return `E_q KL(q(z_t | past) || p(z_t | past))` of each step; their sum is `KL(q || p)`.

    `log(c_p / c_q) - 1/2 + ((w^T E[past] + b)^2 + w^T Cov(past) w + c_q^2) / (2 c_p^2)`, with
    `w = a_q - a_p` and `b = b_q - b_p`.

    Args:
        q: The posterior, a chain or a normal of independent steps, `(..., time, units)`.
        p: The prior.

    Returns:
        KLs in nats, `(..., time, units)`.

    Example:
        >>> p = GaussianChain(torch.full((1, 2, 1), 0.5), None, torch.ones(3, 2))
        >>> chain_kl(dist.Normal(torch.zeros(3, 2), 1.0), p)[:, 0]
        tensor([0.0000, 0.1250, 0.1250])
    """
    weights, past_mean, offset, spread = _difference(q, p)
    distance = carried(weights, past_mean) + offset
    precision = 0.5 / p.scale.square()
    kl = distance.square() * precision + _rest(q, p, spread, precision)
    shape = torch.broadcast_shapes(q.batch_shape, p.batch_shape)  # type: ignore[no-untyped-call]
    return kl.expand(shape)


def chain_unit_kl(q: dist.Distribution, p: GaussianChain) -> Tensor:
    """Return each unit's mean KL over steps and rows, `(num_units,)`, in nats.

    It is the mean of `chain_kl`, without holding that in memory where coefficients and scales do
    not vary by row.

    Args:
        q: The posterior, a chain or a normal of independent steps, `(..., time, units)`.
        p: The prior.
    """
    weights, past_mean, offset, spread = _difference(q, p)
    time, units = q.batch_shape[-2:]
    rows = max(q.batch_shape[:-2].numel(), 1)
    shared = weights.dim() <= 3 and weights.shape[-1] == 1 and p.scale.dim() <= 2
    if not shared:
        return chain_kl(q, p).reshape(-1, units).mean(0)
    weights = weights.squeeze(-1).expand(time, units)
    flat = [
        values.expand(q.batch_shape).reshape(rows, time, units) for values in (offset, past_mean)
    ]
    squares, _ = _SquaredError.apply(*flat, weights)  # type: ignore[no-untyped-call]
    precision = 0.5 / p.scale.square()
    rest = _rest(q, p, spread, precision)
    rest = rest.reshape(-1, *rest.shape[-2:]).mean(0) if rest.dim() > 2 else rest
    per_step: Tensor = squares / rows * precision + rest
    return per_step.expand(time, units).mean(0)


def _difference(q: dist.Distribution, p: GaussianChain) -> Difference:
    if isinstance(q, GaussianChain):
        order = max(q.order, p.order)
        weights = widened(q.coefficients, order) - widened(p.coefficients, order)
        spread = _past_spread(q, weights) + q.scale.square()
        return Difference(weights, q.mean, _minus(q.offset, p), spread)
    loc, variance = unexpanded(q.loc), unexpanded(q.scale).square()
    loc = loc.expand(q.batch_shape)
    over_time = variance.expand(*variance.shape[:-2], *q.batch_shape[-2:])
    spread = variance + carried(p.coefficients.square(), over_time)
    return Difference(-p.coefficients, loc, _minus(loc, p), spread)


def _minus(offset: Tensor, p: GaussianChain) -> Tensor:
    return offset if p.is_centred else offset - p.offset


def _rest(q: dist.Distribution, p: GaussianChain, spread: Tensor, precision: Tensor) -> Tensor:
    """Return what does not depend on the posterior's mean."""
    return spread * precision + (p.scale / unexpanded(q.scale)).log() - 0.5


def _past_spread(q: GaussianChain, weights: Tensor) -> Tensor:
    """Return the variance of `sum_k w_tk z_{t-k}` under a chain, `(..., time, units)`."""
    order = weights.shape[-1]
    after = covariances(widened(q.coefficients, order), q.scale)  # (..., time, units, order, order)
    if order == 1:
        return weights.squeeze(-1).square() * lagged(after[..., 0, 0], 1)
    before = F.pad(after[..., :-1, :, :, :], (0, 0, 0, 0, 0, 0, 1, 0))
    column = weights.unsqueeze(-1)
    return (column.mT @ before @ column)[..., 0, 0]


class _SquaredError(torch.autograd.Function):
    """`sum_rows (b_t + w_t m_{t-1})^2`, there and back in few passes over memory.

    `b` and `m` are `(rows, time, units)`, `w` is `(time, units)`, and so is the result.
    """

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        batch = (
            values.unsqueeze(0) if dim is None else values.movedim(dim, 0)
            for values, dim in zip(inputs, in_dims, strict=True)
        )
        offset, mean, weights = batch
        error = offset + weights.unsqueeze(1) * lagged(mean, 1)
        error = error.expand(info.batch_size, *error.shape[1:])
        return (error.square().sum(1), error), (0, 0)

    @staticmethod
    def forward(offset: Tensor, mean: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        error = offset.clone()
        error[:, 1:].addcmul_(mean[:, :-1], weights[1:])
        return product_sum(error, error, weights.shape), error

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        offset, mean, weights, error = ctx.saved_tensors
        if torch.is_grad_enabled():  # second derivatives go through the error too
            error = offset + weights * lagged(mean, 1)
        to_offset = error * (2 * grad)
        nothing = torch.zeros_like(to_offset[:, :1])
        to_mean = torch.cat([to_offset[:, 1:] * weights[1:], nothing], 1)
        to_weights = product_sum(to_offset[:, 1:], mean[:, :-1], weights[1:].shape)
        return to_offset, to_mean, F.pad(to_weights, (0, 0, 1, 0))


register_kl(GaussianChain, GaussianChain)(chain_kl)  # type: ignore[no-untyped-call]
register_kl(dist.Normal, GaussianChain)(chain_kl)  # type: ignore[no-untyped-call]
