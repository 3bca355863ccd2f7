"""Chains times potentials against one dense normal per unit."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_vdn.nn import GaussianChain
from pyro_vdn.nn.potentials import Messages, backward_messages, updated

TIME, UNITS, ROWS = 6, 2, 3
ORDERS = [1, 2, 3]


def make_chain(order: int, time: int = TIME, *, centred: bool = False) -> GaussianChain:
    """A chain whose every step has coefficients, an offset and a scale of its own."""
    offset = None if centred else torch.randn(time, UNITS)
    coefficients = 0.5 * torch.randn(time, UNITS, order)
    return GaussianChain(coefficients, offset, torch.rand(time, UNITS) + 0.4)


def make_potentials(time: int = TIME, *, gaps: bool = False) -> tuple[Tensor, Tensor]:
    """Precisions and shifts, `(rows, time, units)`, both 0 at gaps."""
    there = (torch.rand(ROWS, time, 1) > 0.4) | (not gaps)
    precision = torch.where(there, torch.rand(ROWS, time, UNITS) * 3, 0.0)
    return precision, precision * torch.randn(ROWS, time, UNITS)


def moves_of(chain: GaussianChain) -> Tensor:
    """The lower triangular matrix of coefficients, `(units, time, time)`."""
    time = chain.batch_shape[-2]
    moves = torch.zeros(UNITS, time, time)
    a = chain.coefficients.expand(time, UNITS, chain.order)
    for step in range(time):
        for lag in range(1, min(chain.order, step) + 1):
            moves[:, step, step - lag] = a[step, :, lag - 1]
    return moves


def dense_posterior(chain: GaussianChain, precision: Tensor, shift: Tensor) -> dist.Distribution:
    """The normal `p(z) prod_t exp(-j_t z_t^2 / 2 + e_t z_t)`, batch `(rows, units)`."""
    whitened = (torch.eye(chain.batch_shape[-2]) - moves_of(chain)) / chain.scale.mT.unsqueeze(-1)
    prior = whitened.mT @ whitened
    linear = whitened.mT @ (chain.offset / chain.scale).expand(chain.batch_shape).mT.unsqueeze(-1)
    joint = prior + torch.diag_embed(precision.mT)
    mean = torch.linalg.solve(joint, linear + shift.mT.unsqueeze(-1)).squeeze(-1)
    return dist.MultivariateNormal(mean, precision_matrix=joint)


def posterior_of(chain: GaussianChain, precision: Tensor, shift: Tensor) -> GaussianChain:
    messages = backward_messages(chain, precision, shift)
    return updated(chain, messages, torch.Size(precision.shape))


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("time", [1, 2, 3, TIME])
@pytest.mark.parametrize("order", ORDERS)
def test_posterior_is_exact(order: int, time: int, centred: bool, gaps: bool) -> None:
    chain = make_chain(order, time, centred=centred)
    precision, shift = make_potentials(time, gaps=gaps)
    exact, posterior = (
        dense_posterior(chain, precision, shift),
        posterior_of(chain, precision, shift),
    )
    value = torch.randn(ROWS, time, UNITS)
    assert posterior.batch_shape == (ROWS, time, UNITS)
    torch.testing.assert_close(posterior.log_prob(value).sum(-2), exact.log_prob(value.mT))
    torch.testing.assert_close(posterior.mean, exact.mean.mT)
    torch.testing.assert_close(posterior.variance, exact.variance.mT)


@pytest.mark.parametrize("order", ORDERS)
def test_messages_are_what_later_potentials_say(order: int) -> None:
    # The factor of the state after step t is the integral over all later steps, up to a constant.
    chain, (precision, shift) = make_chain(order), make_potentials()
    messages = backward_messages(chain, precision, shift)
    assert messages.precision.shape == (ROWS, TIME, UNITS, order)
    last = torch.cat([precision[:, -1, :, None], torch.zeros(ROWS, UNITS, order - 1)], -1)
    torch.testing.assert_close(messages.precision[:, -1], last)
    torch.testing.assert_close(messages.shift[:, -1], shift[:, -1])
    for unit in range(UNITS):
        for step in range(order - 1, TIME):
            later = torch.arange(step + 1, TIME)
            state = torch.arange(step, step - order, -1)  # the latest first
            moves = (torch.eye(TIME) - moves_of(chain)[unit])[later]
            whitened = moves / chain.scale[later, unit, None]
            own = torch.where(torch.arange(TIME) > step, precision[..., unit], 0.0)
            factors = whitened.mT @ whitened + torch.diag_embed(own)
            inner, cross = factors[:, later][:, :, later], factors[:, later][:, :, state]
            within = factors[:, state][:, :, state]
            reduced = (within - cross.mT @ torch.linalg.solve(inner, cross))[:, 0]
            expected = reduced + F.pad(precision[:, step, unit, None], (0, order - 1))
            torch.testing.assert_close(messages.precision[:, step, unit], expected)


@pytest.mark.parametrize("order", ORDERS)
def test_own_potential_alone_multiplies_each_conditional(order: int) -> None:
    chain, (precision, shift) = make_chain(order), make_potentials()
    rest = torch.zeros(ROWS, TIME, UNITS, order - 1)
    messages = Messages(torch.cat([precision.unsqueeze(-1), rest], -1), shift)
    posterior = updated(chain, messages, torch.Size((ROWS, TIME, UNITS)))
    value = torch.randn(ROWS, TIME, UNITS)
    loc = (moves_of(chain) @ value.mT.unsqueeze(-1)).squeeze(-1).mT + chain.offset
    variance = 1 / (chain.scale**-2 + precision)
    expected = dist.Normal(variance * (loc / chain.scale**2 + shift), variance.sqrt())
    torch.testing.assert_close(posterior.log_prob(value), expected.log_prob(value))


@pytest.mark.parametrize("order", ORDERS)
def test_no_potential_leaves_the_chain(order: int) -> None:
    chain, value = make_chain(order), torch.randn(ROWS, TIME, UNITS)
    nothing = torch.zeros(ROWS, TIME, UNITS)
    posterior = posterior_of(chain, nothing, nothing)
    torch.testing.assert_close(posterior.log_prob(value), chain.log_prob(value))


@pytest.mark.parametrize("order", ORDERS)
def test_a_sharp_potential_fixes_the_value(order: int) -> None:
    chain = make_chain(order)
    precision = torch.full((ROWS, TIME, UNITS), 1e12)
    target = torch.randn(ROWS, TIME, UNITS)
    posterior = posterior_of(chain, precision, precision * target)
    torch.testing.assert_close(posterior.mean, target, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(posterior.variance * 1e12, torch.ones(ROWS, TIME, UNITS))


@pytest.mark.parametrize("order", ORDERS)
def test_gradients(order: int) -> None:
    time, (precision, shift) = 4, make_potentials(4)
    parts = [
        (0.4 * torch.randn(time, UNITS, order)).requires_grad_(),
        torch.randn(time, UNITS, requires_grad=True),
        (torch.rand(time, UNITS) + 0.4).requires_grad_(),
        precision[:1].clone().requires_grad_(),
        shift[:1].clone().requires_grad_(),
    ]

    def moments(a: Tensor, b: Tensor, c: Tensor, j: Tensor, e: Tensor) -> tuple[Tensor, ...]:
        posterior = posterior_of(GaussianChain(a, b, c), j, e)
        return posterior.mean, posterior.variance, posterior.scale

    assert torch.autograd.gradcheck(moments, parts)


@pytest.mark.parametrize("phi", [[0.999], [1.2, -0.21]])
def test_long_series_in_single_precision(phi: list[float]) -> None:
    time = 1_000
    coefficients = torch.tensor(phi).expand(1, UNITS, -1)
    precision = torch.rand(1, time, UNITS) * 10
    shift = precision * torch.randn(1, time, UNITS)
    results = []
    for dtype in (torch.float64, torch.float32):
        chain = GaussianChain(
            coefficients.to(dtype), None, torch.full((time, UNITS), 0.1, dtype=dtype)
        )
        posterior = posterior_of(chain, precision.to(dtype), shift.to(dtype))
        assert posterior.scale.dtype == dtype
        results.append((posterior.mean.double(), posterior.variance.double().sqrt()))
    (mean, spread), (single_mean, single_spread) = results
    assert bool(((single_mean - mean).abs() < 1e-3 * spread).all())
    torch.testing.assert_close(single_spread, spread, rtol=1e-4, atol=0.0)
