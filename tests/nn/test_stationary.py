"""Stationary autoregressions: coefficients, partial autocorrelations and autocovariances."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.nn.stationary import levinson, partial_autocorrelations, unexplained
from pyro_vdn.testing import LinearGaussianChain


def autocorrelations(coefficients: Tensor, lags: int) -> Tensor:
    """Autocorrelations of a stationary autoregression, from the covariance of its state.

    The covariance solves a linear system; further lags follow from the recursion itself.
    """
    order = len(coefficients)
    chain = LinearGaussianChain(coefficients.unsqueeze(0), torch.ones(1), torch.ones(1))
    known = [float(value) for value in chain.start[0]]
    while len(known) <= lags:
        known.append(sum(float(coefficients[k]) * known[-1 - k] for k in range(order)))
    return torch.tensor(known[: lags + 1]) / known[0]


def yule_walker(correlations: Tensor, order: int) -> Tensor:
    """Coefficients of the best prediction from the last `order` values."""
    index = torch.arange(order)
    matrix = correlations[(index[:, None] - index).abs()]
    return torch.linalg.solve(matrix, correlations[1 : order + 1])


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_levinson_solves_yule_walker(order: int) -> None:
    partials = torch.rand(order) * 1.8 - 0.9
    rows = levinson(partials)
    correlations = autocorrelations(rows[-1], order)
    assert len(rows) == order + 1
    assert torch.equal(rows[0], torch.zeros(order))
    for length in range(1, order + 1):
        expected = yule_walker(correlations, length)
        torch.testing.assert_close(rows[length][:length], expected)
        assert torch.equal(rows[length][length:], torch.zeros(order - length))
        torch.testing.assert_close(rows[length][length - 1], partials[length - 1])


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_unexplained_share_is_that_of_the_best_prediction(order: int) -> None:
    partials = torch.rand(order) * 1.8 - 0.9
    rows = levinson(partials)
    correlations = autocorrelations(rows[-1], order)
    shares = unexplained(partials)
    assert shares.shape == (order + 1,)
    for length in range(order + 1):
        explained = (rows[length][:length] * correlations[1 : length + 1]).sum()
        torch.testing.assert_close(shares[length], 1 - explained)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_round_trip(order: int) -> None:
    partials = torch.rand(4, 3, order) * 1.98 - 0.99
    coefficients = levinson(partials)[-1]
    torch.testing.assert_close(partial_autocorrelations(coefficients), partials)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_any_partial_autocorrelations_are_stationary(order: int) -> None:
    partials = torch.rand(50, order) * 1.98 - 0.99
    for row in levinson(partials)[-1]:
        companion = torch.cat([row.unsqueeze(0), torch.eye(order)[:-1]])
        assert float(torch.linalg.eigvals(companion).abs().max()) < 1


@pytest.mark.parametrize(
    "coefficients",
    [[1.0], [-1.0], [1.3], [0.6, 0.4], [0.6, 0.5], [0.0, -1.0], [1.5, 0.2], [0.5, 0.3, 0.2]],
)
def test_others_are_refused(coefficients: list[float]) -> None:
    message = r"phi: expected coefficients of a stationary autoregression; .*got \["
    with pytest.raises(InputError, match=message):
        partial_autocorrelations(torch.tensor(coefficients))


def test_one_unit_that_is_not_stationary_is_enough() -> None:
    with pytest.raises(InputError, match="stationary"):
        partial_autocorrelations(torch.tensor([[0.5], [1.01]]))


def test_gradient_reaches_every_partial_autocorrelation() -> None:
    partials = torch.tensor([0.5, -0.2, 0.3], requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: tuple(levinson(p)[1:]), (partials,))
    assert torch.autograd.gradcheck(unexplained, (partials,))
