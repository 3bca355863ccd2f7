"""Values of earlier steps, and the moments of linear-Gaussian recurrences over them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_vdn.nn.scan import Maps, affine_scan, associative_scan


def lagged(values: Tensor, lag: int) -> Tensor:
    """Return the values of `lag` steps before, `(..., time, units)`; before the first they are 0.

    Args:
        values: Values, `(..., time, units)`.
        lag: Number of steps, at least 1.

    Example:
        >>> lagged(torch.tensor([[1.0], [2.0], [3.0]]), 1).squeeze(-1)
        tensor([0., 1., 2.])
    """
    kept = max(values.shape[-2] - lag, 0)
    return torch.cat([torch.zeros_like(values[..., kept:, :]), values[..., :kept, :]], -2)


def carried(coefficients: Tensor, values: Tensor) -> Tensor:
    r"""Return what the past carries into each step, `sum_k a_tk x_{t-k}`, `(..., time, units)`.

    Args:
        coefficients: `a`, `(..., time or 1, units, order)`.
        values: `x`, `(..., time, units)`.
    """
    terms = [
        coefficients[..., lag] * lagged(values, lag + 1) for lag in range(coefficients.shape[-1])
    ]
    total: Tensor = torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]
    return total


def solved(coefficients: Tensor, increments: Tensor) -> Tensor:
    r"""Solve `x_t = sum_k a_tk x_{t-k} + u_t` for `x`, `(..., time, units)`.

    Args:
        coefficients: `a`, `(..., time or 1, units, order)`.
        increments: `u`, `(..., time, units)`.
    """
    if coefficients.shape[-1] == 1:
        return affine_scan(coefficients.squeeze(-1), increments)
    matrices = companions(coefficients, increments.shape)
    vectors = F.pad(increments.unsqueeze(-1), (0, coefficients.shape[-1] - 1)).unsqueeze(-1)
    _, states = associative_scan(_join_affine, (matrices, vectors), dim=-4)
    return states[..., 0, 0]


def covariances(coefficients: Tensor, scale: Tensor) -> Tensor:
    r"""Return the covariance of the last `order` values of a chain after each step.

    Args:
        coefficients: `a`, `(..., time or 1, units, order)`.
        scale: Innovation scales, `(..., time, units)`.

    Returns:
        Covariances of `(z_t, ..., z_{t-order+1})`, `(..., time, units, order, order)`; steps before
        the first count as fixed at 0.
    """
    shape: torch.Size = torch.broadcast_shapes(  # type: ignore[no-untyped-call]
        coefficients.shape[:-1], scale.shape
    )
    order = coefficients.shape[-1]
    variance = scale.square().expand(shape)
    if order == 1:
        return affine_scan(coefficients.square().squeeze(-1), variance)[..., None, None]
    matrices = companions(coefficients, shape)
    noise = F.pad(variance[..., None, None], (0, order - 1, 0, order - 1))
    _, states = associative_scan(_join_covariance, (matrices, noise), dim=-4)
    return states


def widened(coefficients: Tensor, order: int) -> Tensor:
    """Return coefficients with zeros for further lags, `(..., order)`."""
    return F.pad(coefficients, (0, order - coefficients.shape[-1]))


def companions(coefficients: Tensor, shape: torch.Size) -> Tensor:
    """Return the matrices that move `(z_{t-1}, ..., z_{t-order})` on by a step.

    Args:
        coefficients: `a`, `(..., time or 1, units, order)`.
        shape: A shape that ends with time and units.
    """
    order = coefficients.shape[-1]
    rows = coefficients.expand(*coefficients.shape[:-3], *shape[-2:], order)
    shift = torch.eye(order - 1, order, dtype=rows.dtype, device=rows.device)
    return torch.cat([rows.unsqueeze(-2), shift.expand(*rows.shape[:-1], order - 1, order)], -2)


def _join_affine(earlier: Maps, later: Maps) -> Maps:
    (a, u), (b, v) = earlier, later
    return b @ a, b @ u + v


def _join_covariance(earlier: Maps, later: Maps) -> Maps:
    (a, p), (b, q) = earlier, later
    return b @ a, b @ p @ b.mT + q
