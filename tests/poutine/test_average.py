"""Averages of draws, layer by layer: what is passed on, what it costs, and among other effects."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro_vdn.guides import NeuronGuide
from torch import Tensor, nn
from torch.distributions import kl_divergence

from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO
from pyro_vdn.nn import AutoregressiveNormal, LearnedNormal, NormalPosterior, VariationalNeurons
from pyro_vdn.poutine import (
    Averaged,
    PosteriorMessenger,
    average_draws,
    clamp,
    deterministic,
    dropout,
    share_noise,
)
from pyro_vdn.testing import NeuronStack, loss_and_grads, posterior_by_hand, randomise
from pyro_vdn.testing.language import NoiseTape

ROWS, UNITS = 5, 3


def make_layer(latent_dim: int = 1, **kwargs: Any) -> VariationalNeurons:
    layer = VariationalNeurons(4, UNITS, latent_dim=latent_dim, prior=LearnedNormal(), **kwargs)
    randomise(layer)
    return layer


def make_input() -> Tensor:
    return torch.linspace(-1, 1, ROWS * 4).reshape(ROWS, 4)


def site_of(program: Callable[..., Any]) -> dict[str, Any]:
    pyro.set_rng_seed(1)
    with PosteriorMessenger():
        trace = pyro.poutine.trace(program).get_trace(make_input())
    return dict(trace.nodes["z"])


class StudentTPrior(nn.Module):
    """A prior to which a normal has no KL in closed form."""

    def forward(self, h: Tensor) -> dist.Distribution:
        return dist.StudentT(h.new_full((), 4.0), h.new_zeros(()), h.new_ones(()))


# --- what is passed on ---


@pytest.mark.parametrize("scale", ["unit", "relative", "low_rank"])
@pytest.mark.parametrize("latent_dim", [1, 2])
@pytest.mark.parametrize("num_draws", [1, 4])
def test_the_mean_of_the_draws_is_passed_on(num_draws: int, latent_dim: int, scale: Any) -> None:
    layer, tape = make_layer(latent_dim, posterior=NormalPosterior(scale, rank=2)), NoiseTape()
    with tape.recording():
        site = site_of(average_draws(layer, num_draws))
    (noise,) = tape.draws
    posterior = layer.posterior(make_input())
    assert noise.shape == (num_draws, *posterior.mean.shape)
    z = posterior.mean + posterior.stddev * noise.mean(0)
    torch.testing.assert_close(site["value"], z)
    leaves = [p for name, p in layer.named_parameters() if "prior" not in name]
    grads = [torch.autograd.grad(one.square().sum(), leaves) for one in (site["value"], z)]
    torch.testing.assert_close(grads[0], grads[1])
    torch.testing.assert_close(site["fn"].mean, posterior.mean)
    torch.testing.assert_close(site["fn"].variance, posterior.variance / num_draws)
    log_prob = torch.distributions.Normal(posterior.mean, posterior.stddev / num_draws**0.5)
    expected = log_prob.log_prob(z)
    expected = expected.sum(-1) if latent_dim > 1 else expected
    torch.testing.assert_close(site["fn"].log_prob(z), expected)


def test_the_distribution_of_what_is_passed_on() -> None:
    layer = make_layer()
    loc, sigma = posterior_by_hand(layer, make_input())
    draws = site_of(average_draws(layer, 9))["fn"].expand([20_000, ROWS, UNITS]).rsample()
    unit = ((draws - loc) / (sigma / 3)).detach()
    assert unit.mean(0).abs().max() < 5 / 20_000**0.5
    torch.testing.assert_close(unit.std(0), torch.ones(ROWS, UNITS), rtol=0.03, atol=0)
    kurtosis = (unit**4).mean(0)
    assert (kurtosis - 3).abs().max() < 0.3


@pytest.mark.parametrize("kind", [LocalELBO, TraceMeanField_ELBO, Trace_ELBO])
def test_one_draw_is_the_identity(kind: Any) -> None:
    stack, data = NeuronStack(num_layers=2, latent_dim=2), (torch.randn(6, 4), torch.randn(6, 2))
    randomise(stack)
    results = [
        loss_and_grads(kind(), program, NeuronGuide(program), *data, of=stack)
        for program in (stack, average_draws(stack, 1))
    ]
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-12)
    torch.testing.assert_close(results[0].grads, results[1].grads, rtol=1e-12, atol=1e-12)


def test_a_program_that_draws_from_the_prior_does_not_change() -> None:
    layer, values = make_layer(), []
    for program in (layer, average_draws(layer, 7)):
        pyro.set_rng_seed(1)
        values.append(program(make_input()))
    assert torch.equal(values[0], values[1])


# --- what it costs ---


@pytest.mark.parametrize("as_context", [False, True])
@pytest.mark.parametrize("latent_dim", [1, 2])
@pytest.mark.parametrize("num_particles", [1, 3])
def test_the_kl_is_that_of_one_draw(num_particles: int, latent_dim: int, as_context: bool) -> None:
    stack = NeuronStack(num_layers=2, latent_dim=latent_dim, make_prior=LearnedNormal)
    randomise(stack)
    data = torch.randn(6, 4), torch.randn(6, 2)
    arguments = {"num_particles": num_particles, "max_plate_nesting": 2}
    results = []
    for kind in (LocalELBO, TraceMeanField_ELBO):
        loss = kind(**arguments, vectorize_particles=True)
        if as_context:
            with average_draws(num_draws=4):
                results.append(loss_and_grads(loss, stack, NeuronGuide(stack), *data, of=stack))
        else:
            program = average_draws(stack, 4)
            results.append(loss_and_grads(loss, program, NeuronGuide(program), *data, of=stack))
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-10)
    torch.testing.assert_close(results[0].grads, results[1].grads, rtol=1e-10, atol=1e-10)

    program = average_draws(stack, 4)
    terms = LocalELBO(**arguments).terms(program, NeuronGuide(program), *data)
    first = stack.neuron_layers[0]
    q = torch.distributions.Normal(*posterior_by_hand(first, stack.encode(data[0])))
    p = first.prior(data[0])
    prior = torch.distributions.Normal(p.mean, p.stddev)
    kl = kl_divergence(q, prior)
    kl = (kl.sum(-1) if latent_dim > 1 else kl).sum(0)
    torch.testing.assert_close(terms.kl["layers.0"], kl)


def test_trace_elbo_takes_the_density_of_the_average() -> None:
    layer, x = make_layer(), make_input()
    program = average_draws(layer, 4)

    def model(h: Tensor) -> None:
        with pyro.plate("rows", ROWS, dim=-2):
            program(h)

    loss = Trace_ELBO(2000, vectorize_particles=True, max_plate_nesting=2)
    found = loss.loss(model, NeuronGuide(model), x)
    loc, sigma = posterior_by_hand(layer, x)
    p = layer.prior(x)
    kl = kl_divergence(
        torch.distributions.Normal(loc, sigma / 2), torch.distributions.Normal(p.mean, p.stddev)
    )
    assert found == pytest.approx(kl.sum().item(), rel=0.05)

    missing = math.log(4) / 2 - (1 - 1 / 4) * (sigma / p.stddev).square() / 2
    charged = LocalELBO().loss(model, NeuronGuide(model), x)
    assert kl.sum().item() - charged == pytest.approx(missing.expand(ROWS, UNITS).sum().item())


def test_a_prior_without_a_closed_form_is_served_by_the_density_of_the_average() -> None:
    layer = VariationalNeurons(4, UNITS, prior=StudentTPrior())

    def model(h: Tensor) -> None:
        with pyro.plate("rows", ROWS, dim=-2):
            average_draws(layer, 4)(h)

    losses = []
    for kind in (LocalELBO, Trace_ELBO):
        pyro.set_rng_seed(0)
        losses.append(kind().loss(model, NeuronGuide(model), make_input()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)


@pytest.mark.parametrize("steps", ["parallel", "markov"])
def test_neurons_with_memory(steps: Any) -> None:
    layer = VariationalNeurons(4, UNITS, prior=AutoregressiveNormal(UNITS), steps=steps)
    x = torch.randn(2, 6, 4)

    def model(h: Tensor) -> None:
        with pyro.plate("rows", 2, dim=-3):
            layer(h)

    plain, averaged = (
        LocalELBO().loss(program, NeuronGuide(program), x)
        for program in (model, average_draws(model, 4))
    )
    assert plain == pytest.approx(averaged, rel=1e-10)  # the KL, in closed form, of one draw


# --- among other effects ---


def test_averages_of_averages_are_over_all_draws() -> None:
    layer = make_layer()
    both, flat = (
        site_of(average_draws(average_draws(layer, 2), 3))["fn"],
        site_of(average_draws(layer, 6))["fn"],
    )
    assert both.num_draws == 6
    torch.testing.assert_close(both.variance, flat.variance)
    assert isinstance(both, Averaged)
    value = torch.randn(ROWS, UNITS)
    torch.testing.assert_close(both.log_prob(value), flat.log_prob(value))


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_points_stay_points(latent_dim: int) -> None:
    layer = make_layer(latent_dim)
    expected = site_of(deterministic(layer))
    for program in (average_draws(deterministic(layer), 5), deterministic(average_draws(layer, 5))):
        site = site_of(program)
        torch.testing.assert_close(site["value"], expected["value"])
        assert site["fn"].variance.abs().sum() == 0


@pytest.mark.parametrize("drawn", [PosteriorMessenger(), lambda m: m], ids=["posterior", "prior"])
@pytest.mark.parametrize("latent_dim", [1, 2])
def test_masks_of_dropout_are_averaged(latent_dim: int, drawn: Any) -> None:
    layer = make_layer(latent_dim)
    pyro.set_rng_seed(1)
    trace = pyro.poutine.trace(drawn(average_draws(dropout(layer, 0.5), 4))).get_trace(make_input())
    site, loc = trace.nodes["z"], layer.posterior(make_input()).mean
    shares = site["value"] / loc
    torch.testing.assert_close(shares * 2, (shares * 2).round())  # 4 masks of 0 or 2
    assert len(shares.detach().round(decimals=6).unique()) > 2
    torch.testing.assert_close(site["fn"].variance, loc.square() / 4)
    assert not site["fn"].log_prob(site["value"]).any()
    inside = site_of(dropout(average_draws(layer, 4), 0.5))  # dropout puts away what it finds
    assert set((inside["value"] / loc).detach().round(decimals=6).unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("outside", [False, True])
def test_held_units_stay_held(outside: bool) -> None:
    layer, holds = make_layer(), {"": {0: 1.5, 1: "prior"}}
    program = (
        average_draws(clamp(layer, holds), 4) if outside else clamp(average_draws(layer, 4), holds)
    )
    fn = site_of(program)["fn"]
    draws = fn.expand([8000, ROWS, UNITS]).rsample().detach()
    assert (draws[..., 0] == 1.5).all()
    sigma = layer.posterior.scale_of_units()[2] / 2
    torch.testing.assert_close(draws[..., 2].std(0), sigma.expand(ROWS), rtol=0.05, atol=0)
    prior_scale = layer.prior(make_input()).stddev[1].detach() / (2 if outside else 1)
    torch.testing.assert_close(draws[..., 1].std(0), prior_scale.expand(ROWS), rtol=0.05, atol=0)


@pytest.mark.parametrize("outside", [False, True])
def test_shared_noise_is_averaged_and_stays_shared(outside: bool) -> None:
    layer = make_layer()
    program = (
        average_draws(share_noise(layer), 4) if outside else share_noise(average_draws(layer, 4))
    )
    site, (loc, sigma) = site_of(program), posterior_by_hand(layer, make_input())
    noise = ((site["value"] - loc) / sigma).detach()
    torch.testing.assert_close(noise, noise[:1].expand(noise.shape))
    torch.testing.assert_close(site["fn"].variance, sigma.square() / 4)
    spread = site["fn"].expand([8000, ROWS, UNITS]).rsample().std(0)
    torch.testing.assert_close(spread, sigma / 2, rtol=0.05, atol=0)


# --- what is refused ---


class Uniform(nn.Module):
    """A posterior that is not normal."""

    def forward(self, h: Tensor) -> dist.Distribution:
        return dist.Uniform(h.new_zeros(()), h.new_ones(()))


def test_the_density_of_another_average_is_refused() -> None:
    fn = site_of(average_draws(VariationalNeurons(4, UNITS, posterior=Uniform()), 3))["fn"]
    assert fn.variance[0, 0].item() == pytest.approx(1 / 36)
    message = r"^average_draws: expected a normal posterior, .*, got a Uniform. Try: LocalELBO, wh"
    with pytest.raises(InputError, match=message):
        fn.log_prob(torch.zeros(ROWS, UNITS))


@pytest.mark.parametrize("num_draws", [0, -1])
def test_there_is_a_draw(num_draws: int) -> None:
    with pytest.raises(InputError, match=r"^num_draws: expected"):
        average_draws(make_layer(), num_draws)


def test_an_average_has_the_shapes_of_a_draw() -> None:
    averaged = Averaged(dist.Normal(torch.zeros(2, 3), 1.0).to_event(1), 5)
    assert averaged.expand([4, 2]).sample((6,)).shape == (6, 4, 2, 3)
    assert averaged.has_rsample
    assert not averaged.sample().requires_grad
    wide = kl_divergence(averaged.expand([4, 2]), dist.Normal(torch.ones(3), 1.0).to_event(1))
    torch.testing.assert_close(wide, torch.full((4, 2), 1.5))
    assert math.isclose(averaged.variance[0, 0].item(), 0.2)
