"""Values of earlier steps, and what recurrences over them make of moments."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_vdn.nn.lags import carried, companions, covariances, lagged, solved, widened

ORDERS = [1, 2, 3, 4]
TIMES = [1, 2, 3, 7]
#: Shapes of coefficients before the order: shared, by unit and step, and by row as well.
LEADS = [(1, 2), (7, 2), (3, 7, 2), (3, 1, 2)]


def by_step(coefficients: Tensor, time: int) -> Tensor:
    """Coefficients of each step, `(..., time, units, order)`."""
    return coefficients.expand(*coefficients.shape[:-3], time, *coefficients.shape[-2:])


def past_by_hand(coefficients: Tensor, values: Tensor) -> Tensor:
    a, total = by_step(coefficients, values.shape[-2]), torch.zeros(3, *values.shape[-2:])
    for step in range(values.shape[-2]):
        for lag in range(1, a.shape[-1] + 1):
            if step >= lag:
                total[:, step] += a[..., step, :, lag - 1] * values[:, step - lag]
    return total


@pytest.mark.parametrize("lag", [1, 2, 4, 5, 9])
def test_lagged(lag: int) -> None:
    values = torch.randn(3, 4, 2)
    expected = torch.zeros(3, 4, 2)
    for step in range(lag, 4):
        expected[:, step] = values[:, step - lag]
    assert torch.equal(lagged(values, lag), expected)


@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("order", [*ORDERS, 9])
def test_carried(order: int, lead: tuple[int, ...]) -> None:
    coefficients, values = torch.randn(*lead, order), torch.randn(3, 7, 2)
    expected = past_by_hand(coefficients, values)
    torch.testing.assert_close(carried(coefficients, values).expand(3, 7, 2), expected)


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("order", ORDERS)
def test_solved_is_where_the_recurrence_holds(order: int, time: int) -> None:
    coefficients = 0.4 * torch.randn(time, 2, order)
    increments = torch.randn(3, time, 2)
    x = solved(coefficients, increments)
    assert x.shape == (3, time, 2)
    torch.testing.assert_close(x, past_by_hand(coefficients, x) + increments)


@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("order", [1, 3])
def test_solved_broadcasts_coefficients(order: int, lead: tuple[int, ...]) -> None:
    coefficients, increments = 0.4 * torch.randn(*lead, order), torch.randn(3, 7, 2)
    x = solved(coefficients, increments)
    torch.testing.assert_close(x, past_by_hand(coefficients, x) + increments)


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("order", ORDERS)
def test_covariances_are_those_of_draws_of_unit_noise(order: int, time: int) -> None:
    coefficients, scale = 0.4 * torch.randn(time, 2, order), torch.rand(time, 2) + 0.5
    # The response to a unit shock at each step, one column each: covariance = G D G^T.
    shocks = torch.eye(time).reshape(time, time, 1) * scale
    response = solved(coefficients, shocks)  # (shock, time, units)
    dense = torch.einsum("kiu,kju->uij", response, response)
    after = covariances(coefficients, scale)
    assert after.shape == (time, 2, order, order)
    for step in range(time):
        for i in range(order):
            for j in range(order):
                inside = step >= max(i, j)
                expected = dense[:, step - i, step - j] if inside else torch.zeros(2)
                torch.testing.assert_close(after[step, :, i, j], expected)


def test_widened_carries_the_same() -> None:
    coefficients, values = torch.randn(7, 2, 2), torch.randn(3, 7, 2)
    wide = widened(coefficients, 4)
    assert wide.shape == (7, 2, 4)
    torch.testing.assert_close(carried(wide, values), carried(coefficients, values))
    assert torch.equal(widened(coefficients, 2), coefficients)


def test_companions_move_the_state_by_a_step() -> None:
    coefficients, state = torch.randn(1, 2, 3), torch.randn(2, 3, 1)
    matrices = companions(coefficients, torch.Size((5, 7, 2)))
    assert matrices.shape == (7, 2, 3, 3)
    moved = (matrices[4] @ state).squeeze(-1)
    torch.testing.assert_close(moved[:, 0], (coefficients[0] * state.squeeze(-1)).sum(-1))
    torch.testing.assert_close(moved[:, 1:], state[:, :2, 0])


@pytest.mark.parametrize("order", [1, 2, 3])
def test_gradients(order: int) -> None:
    coefficients = (0.4 * torch.randn(5, 2, order)).requires_grad_()
    increments = torch.randn(2, 5, 2, requires_grad=True)
    scale = (torch.rand(5, 2) + 0.5).requires_grad_()
    assert torch.autograd.gradcheck(solved, (coefficients, increments))
    assert torch.autograd.gradcheck(carried, (coefficients, increments))
    assert torch.autograd.gradcheck(covariances, (coefficients, scale))
