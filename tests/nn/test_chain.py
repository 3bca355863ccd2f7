"""Chains of all steps at once against one dense normal per unit."""

from __future__ import annotations

from typing import NamedTuple

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_vdn.errors import InputError
from pyro_vdn.nn import GaussianChain, closed_form_kl
from pyro_vdn.nn.chain import as_chain
from pyro_vdn.nn.chain_kl import chain_unit_kl

TIME, UNITS, ROWS = 6, 2, 3
ORDERS = [1, 2, 3]


class Dense(NamedTuple):
    """Mean `(..., units, time)` and covariance `(..., units, time, time)`."""

    mean: Tensor
    covariance: Tensor

    @property
    def joint(self) -> dist.MultivariateNormal:
        return dist.MultivariateNormal(self.mean, self.covariance)


def make_chain(order: int, *rows: int, time: int = TIME, shared: bool = False) -> GaussianChain:
    """A chain whose coefficients, offsets and scales all vary, over time too unless shared."""
    coefficients = 0.4 * torch.randn(*rows, 1 if shared else time, UNITS, order)
    offset = torch.randn(*rows, time, UNITS)
    return GaussianChain(coefficients, offset, torch.rand(*rows, time, UNITS) + 0.4)


def dense_of(chain: GaussianChain) -> Dense:
    """Solve `(I - A) z = b + c eps` with the whole matrix `A`."""
    shape = chain.batch_shape
    time = shape[-2]
    a = chain.coefficients.expand(*shape, chain.order).movedim(-2, -3)  # (..., units, time, order)
    moves = torch.zeros(*a.shape[:-1], time)
    for step in range(time):
        for lag in range(1, min(chain.order, step) + 1):
            moves[..., step, step - lag] = a[..., step, lag - 1]
    response = torch.linalg.inv(torch.eye(time) - moves)
    mean = response @ chain.offset.expand(shape).mT.unsqueeze(-1)
    spread = response * chain.scale.expand(shape).mT.unsqueeze(-2)
    return Dense(mean.squeeze(-1), spread @ spread.mT)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("rows", [(), (ROWS,), (2, 1)])
@pytest.mark.parametrize("order", ORDERS)
def test_log_density_and_moments(order: int, rows: tuple[int, ...], shared: bool) -> None:
    chain = make_chain(order, *rows, shared=shared)
    assert chain.batch_shape == (*rows, TIME, UNITS)
    assert chain.event_shape == ()
    dense, value = dense_of(chain), torch.randn(*rows, TIME, UNITS)
    log_prob = chain.log_prob(value)
    assert log_prob.shape == (*rows, TIME, UNITS)
    torch.testing.assert_close(log_prob.sum(-2), dense.joint.log_prob(value.mT))
    torch.testing.assert_close(chain.mean, dense.mean.mT)
    torch.testing.assert_close(chain.variance, dense.joint.variance.mT)


@pytest.mark.parametrize("order", ORDERS)
def test_log_density_is_that_of_each_step_given_the_past(order: int) -> None:
    chain, value = make_chain(order), torch.randn(TIME, UNITS)
    joint = [dense_of(make_shorter(chain, time)).joint for time in range(1, TIME + 1)]
    so_far = torch.stack([d.log_prob(value[: t + 1].mT) for t, d in enumerate(joint)])
    steps = torch.cat([so_far[:1], so_far.diff(dim=0)])
    torch.testing.assert_close(chain.log_prob(value), steps)


def make_shorter(chain: GaussianChain, time: int) -> GaussianChain:
    return GaussianChain(chain.coefficients[:time], chain.offset[:time], chain.scale[:time])


@pytest.mark.parametrize("time", [1, 2, 7])
@pytest.mark.parametrize("p_order", ORDERS)
@pytest.mark.parametrize("q_order", ORDERS)
def test_kl_between_chains(q_order: int, p_order: int, time: int) -> None:
    q = make_chain(q_order, ROWS, time=time)
    p = make_chain(p_order, time=time)
    kl = closed_form_kl(q, p)
    assert kl is not None
    assert kl.shape == q.batch_shape
    exact = kl_divergence(dense_of(q).joint, dense_of(p).joint.expand(torch.Size((ROWS, UNITS))))
    torch.testing.assert_close(kl.sum(-2), exact)
    torch.testing.assert_close(kl_divergence(q, p), kl)
    assert bool((kl > -1e-12).all())


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("scale_shape", [(), (UNITS,), (TIME, UNITS), (ROWS, TIME, UNITS)])
@pytest.mark.parametrize("order", ORDERS)
def test_kl_of_independent_steps(order: int, scale_shape: tuple[int, ...], centred: bool) -> None:
    scale = torch.rand(scale_shape) + 0.4
    q = dist.Normal(torch.randn(ROWS, TIME, UNITS), scale).expand([ROWS, TIME, UNITS])
    p = make_chain(order)
    if centred:
        p = GaussianChain(p.coefficients, None, p.scale)
    kl = closed_form_kl(q, p)
    assert kl is not None
    covariance = torch.diag_embed(q.variance.mT)
    independent = dist.MultivariateNormal(q.mean.mT, covariance)
    prior = dense_of(p).joint.expand(torch.Size((ROWS, UNITS)))
    torch.testing.assert_close(kl.sum(-2), kl_divergence(independent, prior))
    torch.testing.assert_close(closed_form_kl(as_chain(q), p), kl)


@pytest.mark.parametrize("order", ORDERS)
def test_kl_is_per_step_in_expectation_over_the_past(order: int) -> None:
    q, p = make_chain(order), make_chain(order)
    draws = q.sample(torch.Size((200_000,)))
    sampled = q.log_prob(draws) - p.log_prob(draws)
    error = sampled.std(0) / len(draws) ** 0.5
    kl = closed_form_kl(q, p)
    assert kl is not None
    assert bool(((sampled.mean(0) - kl).abs() < 5 * error).all())


@pytest.mark.parametrize("steps", ["chain", "normal"])
@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("order", [1, 2])
def test_kl_per_unit_is_the_mean_over_rows_and_steps(order: int, by_row: bool, steps: str) -> None:
    q: dist.Distribution = make_chain(order, ROWS, shared=not by_row)
    if not by_row:
        q = GaussianChain(q.coefficients[0], q.offset, q.scale[0], batch_shape=q.batch_shape)
    if steps == "normal":
        q = dist.Normal(q.offset, 0.7)
    parts = [torch.rand(TIME, UNITS, order, requires_grad=True), torch.rand(TIME, UNITS) + 0.3]
    p = GaussianChain(parts[0], None, parts[1].requires_grad_())
    mine, kl = chain_unit_kl(q, p), closed_form_kl(q, p)
    assert kl is not None
    assert mine.shape == (UNITS,)
    torch.testing.assert_close(mine, kl.mean((0, 1)))
    weights = torch.tensor([1.0, -2.0])
    for a, b in zip(
        torch.autograd.grad((mine * weights).sum(), parts, retain_graph=True),
        torch.autograd.grad((kl.mean((0, 1)) * weights).sum(), parts),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_kl_of_a_chain_with_itself_is_zero() -> None:
    chain = make_chain(2, ROWS)
    torch.testing.assert_close(closed_form_kl(chain, chain), torch.zeros(ROWS, TIME, UNITS))


@pytest.mark.parametrize("order", ORDERS)
def test_draws_have_the_moments(order: int) -> None:
    chain, number = make_chain(order), 100_000
    dense = dense_of(chain)
    draws = chain.sample(torch.Size((number,))).mT  # (draws, units, time)
    error = dense.joint.variance.sqrt() / number**0.5
    assert bool(((draws.mean(0) - dense.mean).abs() < 5 * error).all())
    for unit in range(UNITS):
        exact = dense.covariance[unit]
        diagonal = exact.diagonal()
        error = (exact.square() + diagonal[:, None] * diagonal).sqrt() / number**0.5
        assert bool(((torch.cov(draws[:, unit].mT) - exact).abs() < 5 * error).all())
    assert float(torch.corrcoef(draws[..., -1].mT)[0, 1].abs()) < 5 / number**0.5  # of two units


@pytest.mark.parametrize("sample_shape", [(), (4,), (2, 3)])
def test_expand_and_sample_shape(sample_shape: tuple[int, ...]) -> None:
    chain = make_chain(2)
    expanded = chain.expand(torch.Size((ROWS, TIME, UNITS)))
    assert expanded.batch_shape == (ROWS, TIME, UNITS)
    draws = expanded.rsample(torch.Size(sample_shape))
    assert draws.shape == (*sample_shape, ROWS, TIME, UNITS)
    assert draws.flatten(0, -3).unique(dim=0).shape[0] == max(1, len(draws.flatten(0, -3)))
    torch.testing.assert_close(expanded.log_prob(draws), chain.log_prob(draws))
    torch.testing.assert_close(expanded.mean, chain.mean.expand(ROWS, TIME, UNITS))
    torch.testing.assert_close(expanded.variance, chain.variance.expand(ROWS, TIME, UNITS))


@pytest.mark.parametrize(
    "shape", [(), (UNITS,), (1, UNITS), (TIME, 1), (TIME, UNITS), (ROWS, 1, 1)]
)
def test_a_value_of_fewer_dimensions_is_that_of_all_rows_and_steps(shape: tuple[int, ...]) -> None:
    chain = make_chain(2).expand(torch.Size((ROWS, TIME, UNITS)))
    value = torch.randn(shape)
    log_prob = chain.log_prob(value)
    assert log_prob.shape == (ROWS, TIME, UNITS)
    torch.testing.assert_close(log_prob, chain.log_prob(value.expand(ROWS, TIME, UNITS).clone()))


def test_a_chain_without_offset_is_one_of_offset_zero() -> None:
    chain = make_chain(2)
    centred = GaussianChain(chain.coefficients, None, chain.scale)
    zero = GaussianChain(chain.coefficients, torch.zeros(TIME, UNITS), chain.scale)
    value = torch.randn(ROWS, TIME, UNITS)
    torch.testing.assert_close(centred.log_prob(value), zero.log_prob(value))
    torch.testing.assert_close(closed_form_kl(chain, centred), closed_form_kl(chain, zero))
    assert torch.equal(centred.mean, torch.zeros(TIME, UNITS))
    assert centred.expand(torch.Size((ROWS, TIME, UNITS))).is_centred
    assert not chain.expand(torch.Size((ROWS, TIME, UNITS))).is_centred


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("order", [1, 2])
def test_dtype_is_kept(order: int, dtype: torch.dtype) -> None:
    parts = (torch.rand(1, UNITS, order), torch.zeros(()), torch.ones(TIME, UNITS))
    chain = GaussianChain(*(part.to(dtype) for part in parts))
    draw = chain.rsample()
    values = (draw, chain.log_prob(draw), chain.mean, chain.variance, kl_divergence(chain, chain))
    assert {value.dtype for value in values} == {dtype}


@pytest.mark.parametrize("order", ORDERS)
def test_gradients(order: int) -> None:
    parts = [
        (0.4 * torch.randn(4, UNITS, order)).requires_grad_(),
        torch.randn(2, 4, UNITS, requires_grad=True),
        (torch.rand(4, UNITS) + 0.4).requires_grad_(),
    ]
    value = torch.randn(2, 4, UNITS, requires_grad=True)
    prior, q = make_chain(2, time=4), make_chain(2, 2, time=4)

    def draw(*parts: Tensor) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return GaussianChain(*parts).rsample()

    assert torch.autograd.gradcheck(lambda v, *p: GaussianChain(*p).log_prob(v), (value, *parts))
    assert torch.autograd.gradcheck(lambda *p: GaussianChain(*p).variance, parts)
    assert torch.autograd.gradcheck(lambda *p: closed_form_kl(GaussianChain(*p), prior), parts)
    assert torch.autograd.gradcheck(lambda *p: closed_form_kl(q, GaussianChain(*p)), parts)
    assert torch.autograd.gradcheck(draw, parts)
    assert not make_chain(1).sample().requires_grad


def test_normal_as_a_chain_is_the_same_distribution() -> None:
    normal = dist.Normal(torch.randn(ROWS, TIME, UNITS), torch.rand(UNITS) + 0.5)
    chain = as_chain(normal)
    value = torch.randn(ROWS, TIME, UNITS)
    assert chain.batch_shape == normal.batch_shape
    torch.testing.assert_close(chain.log_prob(value), normal.log_prob(value))
    torch.testing.assert_close(chain.mean, normal.mean)
    torch.testing.assert_close(chain.variance, normal.variance)
    assert as_chain(chain) is chain


def test_nothing_else_is_a_chain() -> None:
    message = "step by step or miss input: expected a Normal or a GaussianChain, got Laplace"
    with pytest.raises(InputError, match=message):
        as_chain(dist.Laplace(torch.zeros(TIME, UNITS), 1.0))
