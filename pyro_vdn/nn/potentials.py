"""Chains times Gaussian potentials: the posterior of a chain, exactly."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_vdn.nn.chain import GaussianChain
from pyro_vdn.nn.lags import companions
from pyro_vdn.nn.scan import Maps, affine_scan, associative_scan


class Messages(NamedTuple):
    r"""Factors `exp(-1/2 S_t^T J_t S_t + eta_t^T S_t)` on a chain's state after each step.

    The state `S_t` is `(z_t, ..., z_{t-order+1})`.

    Args:
        precision: First row of `J`, `(..., time, units, order)`.
        shift: First entry of `eta`, `(..., time, units)`.

    Example:
        >>> Messages(torch.ones(3, 2, 1), torch.zeros(3, 2)).precision.shape
        torch.Size([3, 2, 1])
    """

    precision: Tensor
    shift: Tensor


def updated(prior: GaussianChain, messages: Messages, batch_shape: torch.Size) -> GaussianChain:
    r"""Multiply each step's conditional `p(z_t | past)` by a factor, and normalise.

    With `k = 1 / (1 + J_11 c^2)`: `Normal(k (a - c^2 J_12..) past + k (b + c^2 eta_1), k c^2)`.

    Args:
        prior: The chain.
        messages: A factor at each step.
        batch_shape: Shape of the result, `(..., time, units)`.
    """
    variance = prior.scale.square()
    precision = messages.precision[..., 0]
    kept = 1 / (1 + precision * variance)
    coefficients = prior.coefficients
    if messages.precision.shape[-1] > 1:
        cross = F.pad(messages.precision[..., 1:], (0, 1))
        coefficients = coefficients - variance.unsqueeze(-1) * cross
    offset = kept * variance * messages.shift
    if not prior.is_centred:
        offset = offset + kept * prior.offset
    return GaussianChain(
        kept.unsqueeze(-1) * coefficients,
        offset,
        kept.sqrt() * prior.scale,
        batch_shape=batch_shape,
        validate_args=False,
    )


def backward_messages(prior: GaussianChain, precision: Tensor, shift: Tensor) -> Messages:
    r"""Return what all potentials from a step on say about the chain's state after that step.

    `J_t = j_t e e^T + A^T (J_{t+1}^{-1} + C)^{-1} A` and `eta_t = e_t e + A^T (I + J_{t+1} C)^{-1}
    (eta_{t+1} - J_{t+1} b)`, with `A`, `b`, `C` of the move from `t` to `t + 1`: the information
    filter, run backwards as an associative scan of the moves' composition.

    Args:
        prior: The chain.
        precision: Precisions `j` of the potentials, `(..., time, units)`, at least 0.
        shift: Precision times location `e`, `(..., time, units)`.

    Source:
        Sarkka, Garcia-Fernandez, *Temporal Parallelization of Bayesian Smoothers*, IEEE TAC 2021.
    """
    if prior.order == 1:
        return _scalar_messages(prior, precision, shift)
    return _matrix_messages(prior, precision, shift)


def _scalar_messages(prior: GaussianChain, j: Tensor, e: Tensor) -> Messages:
    time = e.shape[-2]
    a = _next(prior.coefficients.squeeze(-1), time)
    c = _next(prior.scale.square(), time)
    precision = associative_scan(_join_scalars, (a, c, j), dim=-2, reverse=True)[-1]
    later = _next(precision, time)
    gain = a / (1 + later * c)
    if not prior.is_centred:
        e = e - gain * later * _next(prior.offset, time)
    shift = affine_scan(gain, e, reverse=True)
    return Messages(precision.unsqueeze(-1), shift)


def _join_scalars(earlier: Maps, later: Maps) -> Maps:
    (a, c, j), (next_a, next_c, next_j) = earlier, later
    kept = 1 / (1 + c * next_j)
    through = next_a * kept
    return through * a, next_a * through * c + next_c, j + a.square() * kept * next_j


def _matrix_messages(prior: GaussianChain, j: Tensor, e: Tensor) -> Messages:
    time, order = e.shape[-2], prior.order
    rest = order - 1
    a = _next(companions(prior.coefficients, e.shape), time, dim=-4)
    c = F.pad(_next(prior.scale.square(), time)[..., None, None], (0, rest, 0, rest))
    b = F.pad(_next(prior.offset, time)[..., None, None], (0, 0, 0, rest))
    e_vector = F.pad(e[..., None, None], (0, 0, 0, rest))
    j = F.pad(j[..., None, None], (0, rest, 0, rest))
    precision = associative_scan(_join_matrices, (a, c, j), dim=-4, reverse=True)[-1]
    later = _next(precision, time, dim=-4)
    gain = _solved(c @ later, a).mT  # A^T (I + J C)^{-1}
    vectors = e_vector - gain @ later @ b
    _, shift = associative_scan(_join_backwards, (gain, vectors), dim=-4, reverse=True)
    return Messages(precision[..., 0, :], shift[..., 0, 0])


def _join_matrices(earlier: Maps, later: Maps) -> Maps:
    (a, c, j), (next_a, next_c, next_j) = earlier, later
    # (I + C J)^{-1} applied to A and to C at once.
    shape = torch.broadcast_shapes(a.shape, c.shape)  # type: ignore[no-untyped-call]
    both = torch.cat([a.expand(shape), c.expand(shape)], -1)
    kept_a, kept_c = _solved(c @ next_j, both).chunk(2, -1)
    return next_a @ kept_a, next_a @ kept_c @ next_a.mT + next_c, j + a.mT @ next_j @ kept_a


def _join_backwards(earlier: Maps, later: Maps) -> Maps:
    (gain, vector), (next_gain, next_vector) = earlier, later
    return gain @ next_gain, gain @ next_vector + vector


def _solved(matrices: Tensor, right: Tensor) -> Tensor:
    """Return `(I + M)^{-1} R`, worked out in single precision at least."""
    dtype = torch.promote_types(matrices.dtype, torch.float32)
    one = torch.eye(matrices.shape[-1], dtype=dtype, device=matrices.device)
    solved: Tensor = torch.linalg.solve(one + matrices, right.to(dtype))
    return solved.to(right.dtype)


def _next(values: Tensor, time: int, dim: int = -2) -> Tensor:
    """Return the values of the following step, 0 at the last."""
    if values.dim() < -dim:
        values = values.reshape((1,) * (-dim - values.dim()) + values.shape)
    shape = list(values.shape)
    shape[dim] = time
    values = values.expand(shape)
    return torch.cat(
        [values.narrow(dim, 1, time - 1), torch.zeros_like(values.narrow(dim, 0, 1))], dim
    )
