"""Isotonic regression: the nearest sequence that never falls."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vdn.diagnostics._checks import check_finite, refuse_where
from pyro_vdn.errors import InputError

_ROUNDS = 100
"""Rounds that pool everywhere at once; what is left after them is pooled place by place."""


def isotonic_fit(values: Tensor, *, weights: Tensor | None = None) -> Tensor:
    r"""Return the non-decreasing sequences nearest to given ones.

    .. math:: \operatorname{argmin}_{f_1 \le \dots \le f_n} \sum_i w_i (v_i - f_i)^2

    Neighbours in the wrong order share one value in the solution, so all runs that fall are pooled
    at once, in all sequences, until none is left: a few rounds on data with noise. Pooling
    adjacent violators one by one, which takes a time that grows with n whatever the data, finishes
    what many rounds do not.

    Args:
        values: Sequences :math:`v`, shape `(..., n)`.
        weights: Positive weights :math:`w`, shape `(..., n)`; 1 by default.

    Returns:
        The fits :math:`f`, shape `(..., n)`, in the dtype of `values`.

    Raises:
        InputError: If shapes disagree, a value is not finite, or a weight is not positive.

    Example:
        >>> isotonic_fit(torch.tensor([1.0, 3.0, 2.0, 4.0]))
        tensor([1.0000, 2.5000, 2.5000, 4.0000])

    Source: Ayer, Brunk, Ewing, Reid and Silverman, *An Empirical Distribution Function for Sampling
    with Incomplete Information*, 1955.
    """
    check_finite("values", values)
    if values.ndim == 0:
        raise InputError("values", expected="shape (..., n)", got="shape ()", hint="values[None]")
    weight = torch.ones_like(values) if weights is None else weights
    check_finite("weights", weight)
    if weight.shape != values.shape:
        raise InputError(
            "weights",
            expected=f"the shape of values, {tuple(values.shape)}",
            got=f"shape {tuple(weight.shape)}",
            hint="one weight per value",
        )
    refuse_where(weight <= 0, "weights", weight, "positive values")
    # All sequences end to end; a block that starts a sequence is never pooled to its left.
    mass = weight.detach().double().reshape(-1)
    total = values.detach().double().reshape(-1) * mass
    starts = torch.zeros(values.shape, dtype=torch.bool, device=values.device)
    starts[..., 0] = True
    size = torch.ones_like(mass, dtype=torch.long)
    mass, total, size = _pooled(mass, total, size, starts.reshape(-1))
    return (total / mass).repeat_interleave(size).reshape(values.shape).to(values.dtype)


def _pooled(
    mass: Tensor, total: Tensor, size: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Pool runs of falling means until there is none; return weight, sum and size of each block."""
    for _ in range(_ROUNDS):
        mean = total / mass
        fresh = starts.clone()  # whether a block stays apart from the one on its left
        fresh[1:] |= mean[1:] > mean[:-1]
        if bool(fresh.all()):
            return mass, total, size
        block = fresh.cumsum(0) - 1
        mass, total, size = (
            torch.zeros(int(block[-1]) + 1, dtype=v.dtype, device=v.device).index_add_(0, block, v)
            for v in (mass, total, size)
        )
        starts = starts[fresh]
    return _pooled_one_by_one(mass, total, size, starts)


def _pooled_one_by_one(
    mass: Tensor, total: Tensor, size: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Do the same with a stack of blocks, in time that grows with their number."""
    blocks: list[tuple[float, float, int, bool]] = []
    columns = (column.tolist() for column in (mass, total, size, starts))
    for w, t, n, first in zip(*columns, strict=True):
        while not first and blocks and blocks[-1][1] * w >= t * blocks[-1][0]:
            w_left, t_left, n_left, first = blocks.pop()
            w, t, n = w + w_left, t + t_left, n + n_left
        blocks.append((w, t, n, first))
    w_all, t_all, n_all, _ = zip(*blocks, strict=True)
    device = mass.device
    return (
        torch.tensor(w_all, dtype=mass.dtype, device=device),
        torch.tensor(t_all, dtype=total.dtype, device=device),
        torch.tensor(n_all, dtype=size.dtype, device=device),
    )
