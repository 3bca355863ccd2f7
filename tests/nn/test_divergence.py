"""The KL of neurons against formulas, Monte Carlo and Pyro's own."""

from __future__ import annotations

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from pyro_vdn.nn import (
    ConditionalNormal,
    LearnedNormal,
    NormalPosterior,
    StandardNormal,
    VariationalNeurons,
    closed_form_kl,
    neuron_kl,
)
from pyro_vdn.nn.divergence import monte_carlo_kl, sum_over
from pyro_vdn.nn.normals import ShiftedNormal, _Shift
from pyro_vdn.poutine import PosteriorMessenger, record
from pyro_vdn.testing import randomise

PRIORS = [StandardNormal, LearnedNormal, ConditionalNormal]


def posterior_and_prior(
    make_prior: Callable[[], nn.Module], latent_dim: int, rows: int = 2
) -> tuple[dist.Distribution, dist.Distribution]:
    """Return both distributions of a layer, as a single pass sees them at its site."""
    layer = VariationalNeurons(
        5, 3, latent_dim=latent_dim, prior=make_prior(), posterior=NormalPosterior("input")
    )
    randomise(layer)
    h = torch.randn(rows, 5)
    with torch.no_grad():
        q, p = layer.posterior(h), layer.prior(h)
        shape = torch.Size((rows, 3))
        if p.event_dim < q.event_dim:
            return q, p.expand((*shape, latent_dim)).to_event(1)
        return q, p.expand(shape)


def moments(distribution: dist.Distribution) -> tuple[Tensor, Tensor]:
    return distribution.mean, distribution.variance.sqrt()


def kl_by_hand(q: dist.Distribution, p: dist.Distribution) -> Tensor:
    (m, s), (n, t) = moments(q), moments(p)
    each = torch.log(t / s) + (s**2 + (m - n) ** 2) / (2 * t**2) - 0.5
    return each.sum(-1) if q.event_dim else each


@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize("make_prior", PRIORS)
def test_closed_form(make_prior: Callable[[], nn.Module], latent_dim: int) -> None:
    q, p = posterior_and_prior(make_prior, latent_dim)
    exact = closed_form_kl(q, p)
    assert exact is not None
    torch.testing.assert_close(
        exact.expand(2, 3), kl_by_hand(q, p).expand(2, 3), rtol=1e-12, atol=0
    )
    torch.testing.assert_close(exact.expand(2, 3), kl_divergence(q, p), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize("make_prior", PRIORS)
def test_monte_carlo(make_prior: Callable[[], nn.Module], latent_dim: int) -> None:
    q, p = posterior_and_prior(make_prior, latent_dim, rows=1)
    z = q.sample((1_000_000,))
    (m, s), (n, t) = moments(q), moments(p)
    ratio = torch.log(t / s) - 0.5 * ((z - m) / s) ** 2 + 0.5 * ((z - n) / t) ** 2
    ratio = ratio.sum(-1) if latent_dim > 1 else ratio
    error = ratio.std(0) / math.sqrt(len(z))
    exact = closed_form_kl(q, p)
    assert exact is not None
    assert ((ratio.mean(0) - exact).abs() < 5 * error).all()
    assert (error < 0.01 * exact).all()  # the check can tell 5 % apart


def test_one_draw_estimate_is_the_log_ratio() -> None:
    q = dist.Normal(torch.tensor([0.3, -1.0]), torch.tensor([0.5, 2.0]))
    p = dist.StudentT(torch.tensor(4.0), torch.zeros(2), 1.0)
    z = torch.tensor([0.1, 0.7])
    expected = q.log_prob(z) - p.log_prob(z)
    assert closed_form_kl(q, p) is None
    torch.testing.assert_close(monte_carlo_kl(q, p, z), expected)
    torch.testing.assert_close(neuron_kl(q, p, z), expected)


def test_closed_form_is_preferred_to_the_draw() -> None:
    q, p = dist.Normal(torch.ones(2), 1.0), dist.Normal(torch.zeros(2), 1.0)
    torch.testing.assert_close(neuron_kl(q, p, torch.full((2,), 9.0)), torch.full((2,), 0.5))


@pytest.mark.parametrize("rows", [1, 4])
def test_shared_scales_are_not_copied_per_row(rows: int) -> None:
    q = dist.Normal(torch.zeros(3), torch.ones(3)).expand((rows, 3))
    p = dist.Normal(torch.zeros(()), torch.ones(())).expand((rows, 3))
    exact = closed_form_kl(q, p)
    assert exact is not None
    assert exact.numel() == 3


def test_closed_form_keeps_the_gradient_of_expanded_scales() -> None:
    raw = torch.tensor([0.5, 1.5, 2.0], requires_grad=True)
    q = dist.Normal(torch.zeros(4, 3), raw)
    p = dist.Normal(torch.zeros(()), torch.ones(())).expand((4, 3))
    exact = closed_form_kl(q, p)
    assert exact is not None
    exact.expand(4, 3).sum().backward()
    torch.testing.assert_close(raw.grad, 4 * (raw - 1 / raw).detach())


def test_two_silenced_distributions_pay_nothing() -> None:
    silent = dist.Delta(torch.ones(2, 3)).mask(False)
    assert closed_form_kl(silent, silent) == 0
    half = dist.Normal(torch.ones(3), 1.0).mask(torch.tensor([True, False, True]))
    prior = dist.Normal(torch.zeros(3), 1.0).mask(torch.tensor([True, False, True]))
    torch.testing.assert_close(closed_form_kl(half, prior), torch.tensor([0.5, 0.0, 0.5]))


@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize("make_prior", PRIORS)
def test_layer_pays_this_kl(make_prior: Callable[[], nn.Module], latent_dim: int) -> None:
    layer = VariationalNeurons(5, 3, latent_dim=latent_dim, prior=make_prior())
    randomise(layer)
    h = torch.randn(4, 5)
    with record() as seen, PosteriorMessenger():
        layer(h)
    expected = kl_by_hand(layer.posterior(h), layer.prior(h))
    if expected.dim() == 3:  # (rows, units, k) -> (rows, units)
        expected = expected.sum(-1)
    torch.testing.assert_close(seen[""].last_kl, expected.detach().expand(4, 3))


@pytest.mark.parametrize(
    ("shape", "total"),
    [((), 1.5), ((3,), 4.5), ((2, 3), 9.0), ((5, 2, 3), 45.0), ((0, 3), 0.0)],
)
def test_sum_over_a_larger_shape_counts_every_copy(shape: tuple[int, ...], total: float) -> None:
    value = torch.tensor(1.5, requires_grad=True)
    summed = sum_over(value, torch.Size(shape))
    assert summed.item() == total
    summed.backward()
    assert value.grad is not None
    assert value.grad.item() == total / 1.5


def test_sum_over_the_shape_it_has_is_the_sum() -> None:
    values = torch.randn(2, 3)
    assert sum_over(values, values.shape) == values.sum()
    torch.testing.assert_close(sum_over(values[:1], values.shape), 2 * values[0].sum())


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("draws", [(), (4,)])
def test_shifted_normal_draws_as_the_plain_one(shared: bool, draws: tuple[int, ...]) -> None:
    loc = torch.randn(6, 3, requires_grad=True)
    scale = torch.rand(3 if shared else (6, 3)).add(0.1).requires_grad_()
    results = []
    for kind in (ShiftedNormal, dist.Normal):
        pyro.set_rng_seed(2)
        value = kind(loc, scale).rsample(draws)
        results.append((value, *torch.autograd.grad(value.square().sum(), [loc, scale])))
    torch.testing.assert_close(results[0], results[1])
    torch.autograd.gradcheck(lambda m, s: _Shift.apply(m, s, torch.ones(6, 3)), (loc, scale))
