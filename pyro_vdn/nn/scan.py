"""Recurrences over time without a loop over time.

A composition of maps is associative, so the maps of neighbouring steps can be joined pair by pair:
half as many steps remain, which are solved the same way, and the steps in between follow from
them. This takes `log2 T` rounds and work linear in `T` (Blelloch, *Prefix Sums and Their
Applications*, 1990).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_vdn.nn.blocked import product_sum

#: The maps of all steps: tensors that hold time at one and the same dimension.
Maps = tuple[Tensor, ...]
Compose = Callable[[Maps, Maps], Maps]


def affine_scan(coefficient: Tensor, increment: Tensor, *, reverse: bool = False) -> Tensor:
    r"""Solve `x_t = a_t x_{t-1} + u_t`, from `x_{-1} = 0`.

    Args:
        coefficient: `a`, broadcastable to `(..., time, units)`; `a_0` is not read.
        increment: `u`, `(..., time, units)`.
        reverse: Whether time runs backwards: `x_t = a_t x_{t+1} + u_t`, from `x_T = 0`.

    Returns:
        `x`, `(..., time, units)`. Its gradient is one recurrence in the other direction, and needs
        `a` and `x` alone in memory.

    Example:
        >>> affine_scan(torch.full((4, 1), 0.5), torch.ones(4, 1)).squeeze(-1)
        tensor([1.0000, 1.5000, 1.7500, 1.8750])
    """
    shape: torch.Size = torch.broadcast_shapes(  # type: ignore[no-untyped-call]
        coefficient.shape, increment.shape
    )
    time, units = shape[-2:]
    coefficient = coefficient.expand(*coefficient.shape[:-2], time, units)
    solved: Tensor = _AffineScan.apply(  # type: ignore[no-untyped-call]
        coefficient, increment.expand(shape), reverse
    )
    return solved


class _AffineScan(torch.autograd.Function):
    """An affine recurrence, whose adjoint is one in the other direction."""

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], a: Tensor, u: Tensor, reverse: bool
    ) -> tuple[Tensor, int]:
        rank = u.dim() - int(in_dims[1] is not None)
        if in_dims[0] is not None:  # the batch stands left of all that `u` has
            a = a.movedim(in_dims[0], 0)
            a = a.reshape(len(a), *(1,) * (rank + 1 - a.dim()), *a.shape[1:])
        u = u.unsqueeze(0) if in_dims[1] is None else u.movedim(in_dims[1], 0)
        return affine_scan(a, u.expand(info.batch_size, *u.shape[1:]), reverse=reverse), 0

    @staticmethod
    def forward(coefficient: Tensor, increment: Tensor, reverse: bool) -> Tensor:
        solved = increment.new_empty(increment.shape)
        _solve(coefficient, increment, solved, reverse)
        return solved

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: Tensor) -> None:
        coefficient, _, ctx.reverse = inputs
        ctx.save_for_backward(coefficient, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        coefficient, solved = ctx.saved_tensors
        # g_t = grad_t + a_{t+1} g_{t+1}: the coefficients move by a step, and the end is not read.
        adjoint = affine_scan(
            coefficient.roll(1 if ctx.reverse else -1, -2), grad, reverse=not ctx.reverse
        )
        if not ctx.needs_input_grad[0]:
            return None, adjoint, None
        later, earlier = slice(1, None), slice(None, -1)
        here, before = (earlier, later) if ctx.reverse else (later, earlier)
        shape = coefficient[..., here, :].shape
        summed = product_sum(adjoint[..., here, :], solved[..., before, :], shape)
        return F.pad(summed, (0, 0, 0, 1) if ctx.reverse else (0, 0, 1, 0)), adjoint, None


def _solve(a: Tensor, u: Tensor, x: Tensor, reverse: bool) -> None:
    """Solve a recurrence into `x`, by halves."""
    time = u.shape[-2]
    if time == 1:
        x.copy_(u)
        return
    first, then, after = _pairs(time, reverse)
    a_then = a[..., then, :]
    joined = torch.addcmul(u[..., then, :], a_then, u[..., first, :])
    _solve(a_then * a[..., first, :], joined, x[..., then, :], reverse)
    ends = x[..., then, :]
    start = time - 1 if reverse else 0
    x[..., start, :] = u[..., start, :]
    if time > 2:
        reached = ends.narrow(-2, int(reverse and time % 2 == 0), (time - 1) // 2)
        torch.addcmul(u[..., after, :], a[..., after, :], reached, out=x[..., after, :])


def _pairs(time: int, reverse: bool) -> tuple[slice, slice, slice]:
    """Return the first steps of pairs, their second ones, and all other steps but the very first.

    With time running backwards the pairs are counted from the end.
    """
    if not reverse:
        return slice(0, time - 1, 2), slice(1, None, 2), slice(2, None, 2)
    odd = time % 2
    return slice(odd + 1, None, 2), slice(odd, time - 1, 2), slice(1 - odd, time - 2, 2)


def associative_scan(compose: Compose, maps: Maps, *, dim: int, reverse: bool = False) -> Maps:
    """Compose the maps of all steps up to each step.

    Args:
        compose: From the maps of earlier and of later steps to the maps of both, an associative
            function that keeps dimensions.
        maps: The maps of all steps, tensors with time at dimension `dim`; those to its left
            broadcast.
        dim: The dimension of time, counted from the right, negative.
        reverse: Whether each step gets the composition of its own map and all later ones.

    Returns:
        The composed maps, of the same shapes.

    Example:
        >>> (total,) = associative_scan(lambda a, b: (a[0] + b[0],), (torch.ones(5),), dim=-1)
        >>> total
        tensor([1., 2., 3., 4., 5.])
    """
    time = maps[0].shape[dim]
    if time == 1:
        return maps
    first, then, after = _pairs(time, reverse)

    def joined(earlier: Maps, later: Maps) -> Maps:
        return compose(later, earlier) if reverse else compose(earlier, later)

    pairs = joined(_take(maps, dim, first), _take(maps, dim, then))
    ends = associative_scan(compose, pairs, dim=dim, reverse=reverse)
    skip = int(reverse and time % 2 == 0)
    reached = _take(ends, dim, slice(skip, skip + (time - 1) // 2))
    between = joined(reached, _take(maps, dim, after))
    start = slice(time - 1, None) if reverse else slice(0, 1)
    parts = zip(_take(maps, dim, start), ends, between, strict=True)
    places = [_at(dim, steps) for steps in (start, then, after)]
    return tuple(_woven(values, places, dim, time) for values in parts)


def _at(dim: int, steps: slice) -> tuple[Any, ...]:
    return (Ellipsis, steps, *(slice(None),) * (-dim - 1))


def _take(maps: Maps, dim: int, steps: slice) -> Maps:
    return tuple(value[_at(dim, steps)] for value in maps)


def _woven(parts: Maps, places: list[tuple[Any, ...]], dim: int, time: int) -> Tensor:
    """Put the parts of a sequence into their places."""
    shape = list(parts[1].shape)
    shape[dim] = time
    woven = parts[1].new_empty(shape)
    for value, place in zip(parts, places, strict=True):
        woven[place] = value
    return woven
