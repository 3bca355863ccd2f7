"""Scans against the loops that they replace."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_vdn.nn.scan import affine_scan, associative_scan

LENGTHS = [1, 2, 3, 4, 5, 7, 8, 16, 17]
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def loop(coefficient: Tensor, increment: Tensor, *, reverse: bool) -> Tensor:
    """Solve the recurrence step by step, the steps unbound first, so that autograd follows."""
    shape = torch.broadcast_shapes(coefficient.shape, increment.shape)
    a, u = coefficient.expand(shape).unbind(-2), increment.expand(shape).unbind(-2)
    order = range(len(u) - 1, -1, -1) if reverse else range(len(u))
    x: dict[int, Tensor] = {}
    last = None
    for time in order:
        last = x[time] = u[time] if last is None else a[time] * last + u[time]
    return torch.stack([x[time] for time in range(len(u))], -2)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("time", LENGTHS)
def test_affine_scan_is_the_loop(time: int, reverse: bool) -> None:
    a, u = torch.randn(3, time, 2), torch.randn(3, time, 2)
    scanned = affine_scan(a, u, reverse=reverse)
    torch.testing.assert_close(scanned, loop(a, u, reverse=reverse), **EXACT)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("a_shape", "u_shape"),
    [
        ((5, 2), (3, 5, 2)),
        ((1, 2), (3, 5, 2)),
        ((2,), (5, 2)),
        ((), (5, 2)),
        ((5, 1), (4, 3, 5, 2)),
        ((4, 1, 5, 2), (3, 5, 2)),
        ((3, 5, 2), (5, 2)),
        ((5, 2), (1, 2)),
        ((5, 2), (0, 5, 2)),
    ],
)
def test_coefficients_and_increments_broadcast(
    a_shape: tuple[int, ...], u_shape: tuple[int, ...], reverse: bool
) -> None:
    a = torch.randn(a_shape, requires_grad=True)
    u = torch.randn(u_shape, requires_grad=True)
    weights = torch.randn(torch.broadcast_shapes(a_shape, u_shape))
    results = []
    for solve in (affine_scan, loop):
        x = solve(a, u, reverse=reverse)
        results.append((x, *torch.autograd.grad((x * weights).sum(), (a, u))))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("time", [1, 2, 5, 8])
def test_gradients_of_first_and_second_order(time: int, reverse: bool) -> None:
    a = torch.randn(time, 2, requires_grad=True)
    u = torch.randn(2, time, 2, requires_grad=True)

    def scan(a: Tensor, u: Tensor) -> Tensor:
        return affine_scan(a, u, reverse=reverse)

    assert torch.autograd.gradcheck(scan, (a, u))
    assert torch.autograd.gradgradcheck(scan, (a, u))


@pytest.mark.parametrize("reverse", [False, True])
def test_first_coefficient_is_not_read(reverse: bool) -> None:
    a, u = torch.randn(5, 2), torch.randn(5, 2)
    other = a.clone()
    other[-1 if reverse else 0] = torch.nan
    torch.testing.assert_close(
        affine_scan(other, u, reverse=reverse), affine_scan(a, u, reverse=reverse)
    )


def test_inputs_are_left_as_they_are() -> None:
    a, u = torch.randn(5, 2), torch.randn(3, 5, 2)
    before = a.clone(), u.clone()
    affine_scan(a, u)
    assert torch.equal(a, before[0])
    assert torch.equal(u, before[1])


def test_gradient_of_many_rows_is_summed_block_by_block() -> None:
    rows, time, units = 2_000, 40, 4  # more than one block
    a = torch.rand(time, units, requires_grad=True)
    u = torch.randn(rows, time, units)
    weights = torch.randn(rows, time, units)
    (mine,) = torch.autograd.grad((affine_scan(a, u) * weights).sum(), a)
    (theirs,) = torch.autograd.grad((loop(a, u, reverse=False) * weights).sum(), a)
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    assert (
        affine_scan(torch.ones(5, 2, dtype=dtype), torch.ones(3, 5, 2, dtype=dtype)).dtype == dtype
    )


def test_long_series_neither_vanish_nor_overflow() -> None:
    u = torch.zeros(100_000, 1)
    u[0] = 1.0
    x = affine_scan(torch.tensor(0.999), u).squeeze(-1)
    torch.testing.assert_close(x, 0.999 ** torch.arange(100_000.0), rtol=1e-9, atol=0.0)


def compose_affine(earlier: tuple[Tensor, ...], later: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    (a, u), (b, v) = earlier, later
    return b @ a, b @ u + v


@pytest.mark.parametrize("time", LENGTHS)
def test_associative_scan_of_matrices_is_the_loop(time: int) -> None:
    matrices = torch.randn(time, 2, 3, 3)  # broadcast over the rows of the vectors
    vectors = torch.randn(4, time, 2, 3, 1)
    _, states = associative_scan(compose_affine, (matrices, vectors), dim=-4)
    state = torch.zeros(4, 2, 3, 1)
    for step in range(time):
        state = matrices[step] @ state + vectors[:, step]
        torch.testing.assert_close(states[:, step], state, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("time", LENGTHS)
def test_reverse_scan_keeps_the_order_of_what_is_composed(time: int) -> None:
    matrices = torch.randn(time, 3, 3)  # these do not commute
    (products,) = associative_scan(lambda m, n: (n[0] @ m[0],), (matrices,), dim=-3, reverse=True)
    product = torch.eye(3)
    for step in reversed(range(time)):
        product = product @ matrices[step]  # later maps stand to the left
        torch.testing.assert_close(products[step], product, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("time", [1, 2, 5, 6])
def test_gradient_of_associative_scan(time: int, reverse: bool) -> None:
    matrices = torch.randn(time, 2, 2, requires_grad=True)
    vectors = torch.randn(time, 2, 1, requires_grad=True)

    def scan(a: Tensor, u: Tensor) -> Tensor:
        return associative_scan(compose_affine, (a, u), dim=-3, reverse=reverse)[1]

    assert torch.autograd.gradcheck(scan, (matrices, vectors))
