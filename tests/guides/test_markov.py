"""Posteriors of neurons with memory: what they read, and when they are exact."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro_vdn.guides import FilteringPosterior, SmoothingPosterior, StructuredPosterior
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.nn import (
    AutoregressiveNormal,
    GaussianChain,
    LayerShape,
    NormalPosterior,
    VariationalNeurons,
    closed_form_kl,
)
from pyro_vdn.poutine import PosteriorMessenger
from pyro_vdn.testing import LinearGaussianChain, randomise

ROWS, TIME, UNITS = 3, 8, 2
PHI = {
    1: torch.tensor([[0.9], [-0.5]], dtype=torch.float64),
    2: torch.tensor([[0.6, 0.3], [0.5, -0.7]], dtype=torch.float64),
    3: torch.tensor([[0.8, -0.3, 0.2], [-0.4, 0.1, 0.3]], dtype=torch.float64),
}
SCALE = torch.tensor([0.5, 1.5], dtype=torch.float64)
NOISE = torch.tensor([0.7, 0.4], dtype=torch.float64)
POSTERIORS: dict[str, Callable[..., Any]] = {
    "filtering": FilteringPosterior,
    "smoothing": SmoothingPosterior,
    "structured": StructuredPosterior,
}


def make_layer(posterior: nn.Module, order: int = 1, in_features: int = 3) -> VariationalNeurons:
    prior = AutoregressiveNormal(UNITS, phi=PHI[order], scale=SCALE, order=order)
    return VariationalNeurons(in_features, UNITS, prior=prior, posterior=posterior)


def posterior_of(layer: VariationalNeurons, h: Tensor, mask: Tensor | None = None) -> GaussianChain:
    prior = layer.prior(h).expand(torch.Size((*h.shape[:-1], UNITS)))
    chain: GaussianChain = layer.posterior(h, prior, mask)
    return chain


def kl_of(layer: VariationalNeurons, h: Tensor, mask: Tensor | None = None) -> Tensor:
    kl = closed_form_kl(posterior_of(layer, h, mask), layer.prior(h))
    assert kl is not None
    return kl


def moves(chain: GaussianChain) -> list[Tensor]:
    """What says how each step is drawn, each `(rows, time, ...)`."""
    shape = chain.batch_shape
    return [
        chain.coefficients.expand(*shape, chain.order),
        chain.offset.expand(shape),
        chain.scale.expand(shape),
    ]


# --- what is read ---


@pytest.mark.parametrize("summary_size", [None, 0, 3])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("order", [1, 3])
def test_filtering_never_looks_ahead(order: int, masked: bool, summary_size: int | None) -> None:
    posterior = FilteringPosterior(NormalPosterior("input"), summary_size=summary_size)
    layer, now = make_layer(posterior, order), 4
    randomise(layer)
    h, mask = torch.randn(ROWS, TIME, 3), torch.ones(ROWS, TIME, dtype=torch.bool)
    mask[:, [1, 6]] = not masked
    later = h.clone()
    later[:, now + 1 :] += torch.randn(ROWS, TIME - now - 1, 3)
    other = mask.clone()
    other[:, now + 1 :] = False
    for changed in (posterior_of(layer, later, mask), posterior_of(layer, h, other)):
        for mine, theirs in zip(moves(posterior_of(layer, h, mask)), moves(changed), strict=True):
            assert torch.equal(mine[:, : now + 1], theirs[:, : now + 1])
    h.requires_grad_()
    chain = posterior_of(layer, h, mask)
    (grad,) = torch.autograd.grad(chain.mean[:, now].sum() + chain.variance[:, now].sum(), h)
    assert bool((grad[:, now + 1 :] == 0).all())
    assert bool((grad[:, now] != 0).any())


@pytest.mark.parametrize("summary_size", [0, 3])
def test_summary_carries_the_past_into_the_potential(summary_size: int) -> None:
    posterior = FilteringPosterior(NormalPosterior("input"), summary_size=summary_size)
    layer = make_layer(posterior)
    randomise(layer)
    h = torch.randn(ROWS, TIME, 3, requires_grad=True)
    features = posterior.features(h, None)
    assert features.shape == (ROWS, TIME, 3 + summary_size)
    offset = posterior_of(layer, h).offset[:, 4].sum()
    (grad,) = torch.autograd.grad(offset, h)
    assert bool((grad[:, :4] != 0).any()) == (summary_size > 0)
    assert bool((grad[:, 4] != 0).all())


@pytest.mark.parametrize("posterior", [SmoothingPosterior, StructuredPosterior])
def test_others_look_ahead(posterior: Any) -> None:
    layer = make_layer(posterior(NormalPosterior("input")))
    randomise(layer)
    h = torch.randn(ROWS, TIME, 3, requires_grad=True)
    chain = posterior_of(layer, h)
    (grad,) = torch.autograd.grad(chain.offset[:, 2].sum(), h)
    assert bool((grad[:, 2:] != 0).any(-1).all())


def test_structured_reads_the_past_through_the_value_alone() -> None:
    layer = make_layer(StructuredPosterior(NormalPosterior("input")))
    randomise(layer)
    h = torch.randn(ROWS, TIME, 3, requires_grad=True)
    move = posterior_of(layer, h)
    (grad,) = torch.autograd.grad(move.offset[:, 4].sum() + move.scale[:, 4].sum(), h)
    assert bool((grad[:, :4] == 0).all())
    (grad,) = torch.autograd.grad(posterior_of(layer, h).mean[:, 4].sum(), h)
    assert bool((grad != 0).any(-1).all())


def test_smoothing_has_a_potential_up_to_the_last_input() -> None:
    posterior = SmoothingPosterior(NormalPosterior("input"))
    layer = make_layer(posterior)
    randomise(layer)
    h, mask = torch.randn(1, TIME, 3), torch.zeros(1, TIME, dtype=torch.bool)
    mask[0, 4] = True
    kl = kl_of(layer, h, mask)[0]
    assert bool((kl[:5] > 1e-9).all())
    assert bool((kl[5:].abs() < 1e-12).all())
    assert posterior.informed(mask).tolist() == [[True] * 5 + [False] * 3]  # type: ignore[union-attr]


def test_smoothing_reads_gaps_from_both_sides() -> None:
    layer = make_layer(SmoothingPosterior(NormalPosterior("input")))
    randomise(layer)
    h, mask = torch.randn(1, TIME, 3, requires_grad=True), torch.ones(1, TIME, dtype=torch.bool)
    mask[0, 3:5] = False
    with PosteriorMessenger(), pyro.poutine.trace() as seen:
        layer(h, mask)
    (grad,) = torch.autograd.grad(seen.trace.nodes["z"]["fn"].offset[0, 3].sum(), h)
    reads = (grad[0] != 0).any(-1).tolist()
    assert reads == [True] * 3 + [False] * 2 + [True] * 3


# --- exactness ---


def make_exact(order: int, posterior: Callable[..., nn.Module] = StructuredPosterior) -> Any:
    """A layer that reads each unit's own noisy observation, with the likelihood for potential."""
    potential = NormalPosterior("unit", loc="identity", min_scale=1e-3)
    layer = make_layer(posterior(potential), order, in_features=UNITS)
    with torch.no_grad():
        potential.raw_scale.value.copy_(torch.log(torch.expm1(NOISE - 1e-3)))
    return layer, LinearGaussianChain(PHI[order], SCALE, NOISE)


def elbo(layer: VariationalNeurons, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """The bound of each row, with the likelihood's expectation in closed form."""
    chain = posterior_of(layer, y, mask)
    fit = dist.Normal(chain.mean, NOISE).log_prob(y) - chain.variance / (2 * NOISE**2)
    if mask is not None:
        fit = torch.where(mask.unsqueeze(-1), fit, 0.0)
    return (fit - kl_of(layer, y, mask)).sum((-2, -1))


@pytest.mark.parametrize("time", [1, 2, TIME, 40])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("order", PHI)
def test_structured_is_the_kalman_smoother(order: int, masked: bool, time: int) -> None:
    layer, exact = make_exact(order)
    y = exact.sample(time, (ROWS,)).observed
    mask = torch.rand(ROWS, time) > 0.4 if masked else None
    chain, smoothed = posterior_of(layer, y, mask), exact.smoothed(y, mask)
    torch.testing.assert_close(chain.mean, smoothed.mean)
    torch.testing.assert_close(chain.variance, smoothed.variance)
    evidence = exact.log_evidence(y, mask)
    torch.testing.assert_close(elbo(layer, y, mask), evidence, rtol=0.0, atol=1e-8)
    # At the exact posterior log p(y, z) - log q(z | y) is the evidence, whatever z.
    z = torch.randn(ROWS, time, UNITS)
    fit = dist.Normal(z, NOISE).log_prob(y)
    if mask is not None:
        fit = torch.where(mask.unsqueeze(-1), fit, 0.0)
    ratio = layer.prior(y).log_prob(z) + fit - chain.log_prob(z)
    torch.testing.assert_close(ratio.sum((-2, -1)), evidence, rtol=0.0, atol=1e-8)


@pytest.mark.parametrize("order", PHI)
def test_gradient_of_the_bound_is_that_of_the_evidence(order: int) -> None:
    layer, exact = make_exact(order)
    y = exact.sample(20, (ROWS,)).observed
    parameters = list(layer.prior.parameters())
    mine = torch.autograd.grad(elbo(layer, y).sum(), parameters)
    learned = LinearGaussianChain(
        layer.prior.coefficients(),  # type: ignore[operator]
        layer.prior.innovation_scale(),  # type: ignore[operator]
        NOISE,
    )
    theirs = torch.autograd.grad(learned.log_evidence(y).sum(), parameters)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("order", PHI)
def test_forecast_is_that_of_the_kalman_filter(order: int, masked: bool) -> None:
    layer, exact = make_exact(order)
    y = exact.sample(TIME, (ROWS,)).observed
    mask = torch.rand(ROWS, TIME) > (0.4 if masked else -1.0)
    mask[:, 5:] = False
    chain, filtered = posterior_of(layer, y, mask), exact.filtered(y, mask)
    torch.testing.assert_close(chain.mean[:, 5:], filtered.mean[:, 5:])
    torch.testing.assert_close(chain.variance[:, 5:], filtered.variance[:, 5:])


@pytest.mark.parametrize("order", PHI)
def test_filtering_multiplies_by_each_steps_own_potential(order: int) -> None:
    def make(potential: NormalPosterior) -> FilteringPosterior:
        return FilteringPosterior(potential, summary_size=0)

    layer, exact = make_exact(order, make)
    y = exact.sample(TIME, (ROWS,)).observed
    chain, prior = posterior_of(layer, y), layer.prior(y)
    # Its last step alone has seen all that it could, so that it is exact given the past.
    structured, _ = make_exact(order)
    best = posterior_of(structured, y)
    for mine, theirs in zip(moves(chain), moves(best), strict=True):
        torch.testing.assert_close(mine[:, -1], theirs[:, -1])
    kept = 1 / (1 + prior.scale**2 / NOISE**2)
    torch.testing.assert_close(
        chain.scale.expand(ROWS, -1, -1), (kept.sqrt() * prior.scale).expand(ROWS, -1, -1)
    )
    gap = exact.log_evidence(y) - elbo(layer, y)
    assert bool((gap > 1e-3).all())


def test_smoothing_is_exact_away_from_the_ends() -> None:
    # One step back, all later potentials weigh as J z^2 / 2 - eta z, J constant far from the end
    # and eta a decaying sum of what comes: a reverse summary, multiplied by a constant.
    posterior = SmoothingPosterior(NormalPosterior("unit", min_scale=0.0), summary_size=UNITS)
    layer, time = make_layer(posterior, in_features=UNITS), 300
    structured, exact = make_exact(1)
    phi, c, j = PHI[1][:, 0], SCALE**2, NOISE**-2
    later = j
    for _ in range(1_000):
        later = j + phi**2 * later / (1 + later * c)
    gain = phi / (1 + later * c)
    assert gain[0] > 0
    ahead = posterior.summaries[1]
    with torch.no_grad():
        posterior.potential.raw_scale.value.copy_(torch.log(torch.expm1(later.rsqrt())))
        posterior.potential.loc.weight.zero_()
        posterior.potential.loc.bias.zero_()
        ahead.raw_decay.copy_(torch.logit(gain.abs()))
        ahead.linear.weight.copy_(torch.diag(j / (1 - gain.abs())))
        ahead.linear.bias.zero_()
        posterior.potential.loc.weight[:, -UNITS:] = torch.diag(1 / later)
    y = exact.sample(time, (ROWS,)).observed
    # A decay is positive, so this is exact for the unit of positive phi.
    for mine, best in zip(
        moves(posterior_of(layer, y)), moves(posterior_of(structured, y)), strict=True
    ):
        torch.testing.assert_close(mine[:, 1:200, 0], best[:, 1:200, 0])
    assert not torch.allclose(
        posterior_of(layer, y).offset[:, :200, 1], posterior_of(structured, y).offset[:, :200, 1]
    )


@pytest.mark.parametrize("name", POSTERIORS)
def test_no_posterior_exceeds_the_evidence(name: str) -> None:
    exact = LinearGaussianChain(PHI[2], SCALE, NOISE)
    layer = make_layer(POSTERIORS[name](NormalPosterior("input")), 2, in_features=UNITS)
    y = exact.sample(TIME, (ROWS,)).observed
    for seed in range(5):
        randomise(layer.posterior, seed=seed)
        assert bool((elbo(layer, y) < exact.log_evidence(y)).all())


# --- as a part of a layer ---


@pytest.mark.parametrize("name", POSTERIORS)
def test_at_first_a_vague_potential_leaves_the_prior(name: str) -> None:
    potential = NormalPosterior("unit", initial_scale=1e6)
    layer = make_layer(POSTERIORS[name](potential), 2)
    assert bool((kl_of(layer, torch.randn(ROWS, TIME, 3)).abs() < 1e-9).all())


@pytest.mark.parametrize("scale", ["shared", "unit", "input", "low_rank"])
@pytest.mark.parametrize("name", POSTERIORS)
def test_scale_modes_of_potentials(name: str, scale: Any) -> None:
    layer = make_layer(POSTERIORS[name](NormalPosterior(scale)), 2)
    randomise(layer)
    h, mask = torch.randn(ROWS, TIME, 3), torch.rand(ROWS, TIME) > 0.4
    for given in (None, mask):
        chain = posterior_of(layer, h, given)
        assert chain.batch_shape == (ROWS, TIME, UNITS)
        kl_of(layer, h, given).sum().backward()
    still = [
        name
        for name, parameter in layer.posterior.named_parameters()
        if parameter.grad is None or not bool((parameter.grad != 0).any())
    ]
    assert still == []


@pytest.mark.parametrize("name", POSTERIORS)
def test_a_prior_without_memory_is_refused(name: str) -> None:
    layer = VariationalNeurons(3, UNITS, posterior=POSTERIORS[name]())
    message = (
        rf"{POSTERIORS[name].__name__}: expected a layer with a prior over time, got a \w*Normal.*"
        r"prior=AutoregressiveNormal\(num_units\)"
    )
    with pytest.raises(InputError, match=message):
        PosteriorMessenger()(layer)(torch.zeros(ROWS, TIME, 3))


@pytest.mark.parametrize("name", POSTERIORS)
def test_gain_multiplies_the_potentials_location(name: str) -> None:
    posterior = POSTERIORS[name](NormalPosterior("unit"))
    layer, h = make_layer(posterior), torch.randn(ROWS, TIME, 3)
    randomise(layer)
    before, gain = posterior_of(layer, h), torch.tensor([2.0, -0.5])
    posterior.multiply_loc_(gain)
    after = posterior_of(layer, h)
    torch.testing.assert_close(after.mean, gain * before.mean)
    torch.testing.assert_close(after.variance, before.variance)


@pytest.mark.parametrize("posterior", [FilteringPosterior, SmoothingPosterior])
def test_size_of_the_summaries(posterior: Any) -> None:
    directions = 2 if posterior is SmoothingPosterior else 1
    for size, expected in ((None, UNITS), (0, 0), (5, 5)):
        layer = make_layer(posterior(summary_size=size))
        potential = layer.posterior.potential
        assert isinstance(potential, NormalPosterior)
        assert potential.loc.in_features == 3 + directions * expected
    with pytest.raises(InputError, match="size: expected a positive integer, got -1"):
        make_layer(posterior(summary_size=-1))


def test_potentials_are_bound_to_the_layer() -> None:
    posterior = StructuredPosterior()
    posterior.bind(LayerShape(3, UNITS, 1))
    assert sorted(name for name, _ in posterior.named_parameters()) == [
        "potential.loc.bias",
        "potential.loc.weight",
        "potential.raw_scale.value",
    ]


def test_steady_state_of_the_variance() -> None:
    # The fixed point of the Riccati equation of order 1, a quadratic in closed form.
    layer, exact = make_exact(1)
    y = exact.sample(400).observed
    phi, c, r = PHI[1][:, 0], SCALE**2, NOISE**2
    b = c - r * (1 - phi**2)
    predicted = (b + (b**2 + 4 * c * r).sqrt()) / 2
    filtered = predicted * r / (predicted + r)
    variance = posterior_of(layer, y).variance
    torch.testing.assert_close(variance[-1], filtered)
    assert math.isclose(float(exact.filtered(y).variance[-1, 0]), float(filtered[0]))
