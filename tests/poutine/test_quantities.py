"""What is recorded of neurons with memory: moments of each step by itself, against draws."""

from __future__ import annotations

from typing import Any

import pyro
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.guides.markov import FilteringPosterior, StructuredPosterior
from torch import Tensor

from pyro_vdn.infer import LocalELBO
from pyro_vdn.nn import AutoregressiveNormal, NormalPosterior, VariationalNeurons
from pyro_vdn.poutine import LayerRecord, PosteriorMessenger, StreamingMoments, record
from pyro_vdn.testing import randomise
from pyro_vdn.testing.sequences import TrackingModel

POSTERIORS = [NormalPosterior, FilteringPosterior, StructuredPosterior]
PHI = {1: torch.tensor([0.5, -0.3, 0.9]), 2: torch.tensor([0.5, 0.2])}
MOMENTS = ("loc", "scale", "variance", "energy", "prior_variance", "kl", "innovation")


def make_layer(order: int, make_posterior: Any, steps: Any = "parallel") -> VariationalNeurons:
    torch.manual_seed(3)
    prior = AutoregressiveNormal(3, phi=PHI[order].double(), order=order)
    layer = VariationalNeurons(2, 3, prior=prior, posterior=make_posterior(), steps=steps)
    randomise(layer)
    return layer


def seen_by(layer: VariationalNeurons, *batches: Tensor) -> LayerRecord:
    with record() as seen, PosteriorMessenger(), torch.no_grad():
        for batch in batches:
            layer(batch)
    found: LayerRecord = seen[""]
    return found


def draws_of(layer: VariationalNeurons, x: Tensor, count: int) -> Tensor:
    """Draw the layer's posterior, `(count, rows, time, units)`."""
    with PosteriorMessenger(), torch.no_grad(), pyro.plate("draws", count, dim=-4):
        trace = pyro.poutine.trace(layer).get_trace(x.expand(count, *x.shape))
    value: Tensor = trace.nodes["z"]["value"]
    return value


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("make_posterior", POSTERIORS)
def test_moments_are_those_of_draws(order: int, make_posterior: Any) -> None:
    layer, x = make_layer(order, make_posterior), torch.randn(2, 5, 2)
    seen = seen_by(layer, x)
    z = draws_of(layer, x, 40_000)
    torch.testing.assert_close(seen.loc.mean, z.mean((0, 1, 2)), rtol=0, atol=0.02)
    torch.testing.assert_close(seen.variance.mean, z.var(0).mean((0, 1)), rtol=0.02, atol=0)
    torch.testing.assert_close(seen.energy.mean, z.mean(0).square().mean((0, 1)), rtol=0, atol=0.02)
    gamma = layer.prior.stationary_scale().detach().square()
    torch.testing.assert_close(seen.prior_variance.mean, gamma)
    prior = layer.prior(x)
    carried = torch.zeros_like(z)
    for lag in range(order):
        past = torch.cat([torch.zeros_like(z[..., : lag + 1, :]), z[..., : -lag - 1, :]], -2)
        carried = carried + prior.coefficients[..., lag] * past
    innovation = (z - carried).square()[..., 1:, :].mean((0, 1, 2)).detach()
    torch.testing.assert_close(seen.innovation.mean, innovation, rtol=0.03, atol=0)
    assert (seen.kl.count, seen.innovation.count) == (10, 8)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("make_posterior", POSTERIORS)
def test_a_loop_is_recorded_as_all_steps_at_once(order: int, make_posterior: Any) -> None:
    first, second = torch.randn(4, 6, 2), torch.randn(3, 6, 2)
    at_once = seen_by(make_layer(order, make_posterior), first, second)
    loop = seen_by(make_layer(order, make_posterior, "markov"), first, second)
    for name in MOMENTS:
        mine, theirs = getattr(loop, name), getattr(at_once, name)
        assert mine.count == theirs.count == (35 if name == "innovation" else 42)
        torch.testing.assert_close(mine.mean, theirs.mean)
        torch.testing.assert_close(mine.variance, theirs.variance)
    torch.testing.assert_close(loop.energy_about_prior.mean, at_once.energy_about_prior.mean)
    for name in ("last_loc", "last_scale", "last_kl"):
        torch.testing.assert_close(getattr(loop, name), getattr(at_once, name))


def test_under_the_prior_the_innovation_is_its_scale() -> None:
    layer, x = make_layer(1, StructuredPosterior), torch.randn(4, 30, 2)
    with torch.no_grad():
        layer.posterior.potential.loc.weight.zero_()
        layer.posterior.potential.loc.bias.zero_()
        for value in layer.posterior.potential.raw_scale.parameters():
            value.fill_(500.0)  # a potential so wide that it says nothing
    seen = seen_by(layer, x)
    innovation = layer.prior.innovation_scale().detach().square()
    torch.testing.assert_close(seen.innovation.mean, innovation, rtol=1e-2, atol=0)
    torch.testing.assert_close(seen.variance.mean, seen.prior_variance.mean, rtol=1e-2, atol=0)


@pytest.mark.parametrize("steps", ["parallel", "markov"])
def test_a_two_pass_loss_counts_once(steps: Any) -> None:
    model = TrackingModel(torch.tensor([0.5, 0.9]), steps=steps)
    x, y = torch.randn(3, 4, 1), torch.randn(3, 4, 1)
    counts = []
    for loss in (LocalELBO(), pyro.infer.Trace_ELBO()):
        with record() as seen:
            loss.loss(model, NeuronGuide(model), x, y)
        counts.append((seen["neurons"].kl.count, seen["neurons"].innovation.count))
    assert counts == [(12, 9), (12, 9)]


def test_an_observed_step_fixes_the_prior_s_past() -> None:
    layer, x = make_layer(1, StructuredPosterior, "markov"), torch.randn(2, 3, 2)
    held = pyro.poutine.condition(layer, data={"z_1": torch.ones(2, 1, 3)})
    with record() as seen, PosteriorMessenger(), torch.no_grad():
        held(x)
    scale = layer.prior.innovation_scale().detach().square()
    stationary = layer.prior.stationary_scale().detach().square()
    torch.testing.assert_close(seen[""].prior_variance.mean, (stationary + scale) / 2)
    assert seen[""].kl.count == 4


def test_without_memory_there_is_no_innovation() -> None:
    layer = VariationalNeurons(2, 3)
    assert seen_by(layer, torch.randn(4, 5, 2)).innovation.count == 0


def test_innovations_merge_and_move() -> None:
    x = torch.randn(4, 6, 2)
    layer = make_layer(1, NormalPosterior)
    both, first = seen_by(layer, x), seen_by(layer, x[:1])
    first.merge(seen_by(layer, x[1:]).to("cpu"))
    moments: StreamingMoments = first.innovation
    assert moments.count == both.innovation.count == 20
    torch.testing.assert_close(moments.mean, both.innovation.mean)
