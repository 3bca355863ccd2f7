"""Fitted neurons against an exact posterior and an exact evidence."""

from __future__ import annotations

from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro_vdn.guides import NeuronGuide

from pyro_vdn.infer import LocalELBO, PACmELBO
from pyro_vdn.testing import ConjugateNeurons, orthogonal_columns

ROWS, OUTPUTS, UNITS = 200, 4, 3


def make_case() -> tuple[ConjugateNeurons, torch.Tensor]:
    model = ConjugateNeurons(orthogonal_columns(OUTPUTS, UNITS), torch.randn(OUTPUTS), 0.8)
    return model, model.simulate(ROWS)


def set_exact(model: ConjugateNeurons) -> None:
    posterior = model.neurons.posterior
    gain = model.weight / (model.noise**2 + model.weight.square().sum(0))
    scale = model.exact_posterior(model.bias).variance.sqrt()
    with torch.no_grad():
        posterior.loc.weight.copy_(gain.T)
        posterior.loc.bias.copy_(-model.bias @ gain)
        posterior.raw_scale.value.copy_(torch.expm1(scale - posterior.min_scale).log())


def test_evidence_agrees_with_importance_sampling() -> None:
    model, y = make_case()
    z = torch.randn(400_000, UNITS)
    loc = z @ model.weight.T + model.bias
    log_prob = torch.distributions.Normal(loc, model.noise).log_prob(y[0]).sum(-1)
    weights = log_prob.exp()
    error = weights.std() / len(z) ** 0.5
    assert abs(weights.mean() - model.log_evidence(y[:1]).exp()) < 5 * error


def test_exact_posterior_has_the_evidence_as_its_bound() -> None:
    model, y = make_case()
    set_exact(model)
    torch.testing.assert_close(model.elbo(y), model.log_evidence(y), rtol=1e-12, atol=1e-12)
    # The sampled bound of an exact posterior has no variance: every draw gives the evidence.
    evidence = model.log_evidence(y).sum().item()
    assert Trace_ELBO().loss(model, NeuronGuide(model), y) == pytest.approx(-evidence, abs=1e-9)


def test_bound_in_closed_form_is_the_mean_of_the_sampled_one() -> None:
    model, y = make_case()
    bound = model.elbo(y[:5]).sum().item()
    loss = LocalELBO(num_particles=2, max_plate_nesting=2)
    draws = torch.tensor([-loss.loss(model, NeuronGuide(model), y[:5]) for _ in range(1000)])
    assert abs(draws.mean() - bound) < 5 * draws.std() / 1000**0.5
    assert bound < model.log_evidence(y[:5]).sum() - 0.1


@pytest.mark.parametrize("loss", [LocalELBO, Trace_ELBO])
def test_fit_meets_the_evidence_and_the_exact_moments(loss: Any) -> None:
    model, y = make_case()
    steps = 1000
    decay = {"lr": 0.05, "lrd": 3e-4 ** (1 / steps), "clip_norm": 1e9}
    elbo = loss(num_particles=32, vectorize_particles=True, max_plate_nesting=2)
    svi = SVI(model, NeuronGuide(model), pyro.optim.ClippedAdam(decay), loss=elbo)
    for _ in range(steps):
        svi.step(y)
    with torch.no_grad():
        gap = model.log_evidence(y) - model.elbo(y)
        fitted, exact = model.neurons.posterior(y), model.exact_posterior(y)
    assert 0 <= gap.sum() < 1e-3  # nat, for all 200 rows together
    deviation = exact.variance.sqrt()
    assert ((fitted.scale / deviation - 1).abs() < 0.01).all()
    assert ((fitted.mean - exact.mean).abs() < 0.01 * exact.mean.std(0)).all()


def test_predictive_objective_is_no_bound_on_the_evidence() -> None:
    model, y = make_case()
    model.neurons.posterior.min_scale = 1.0
    set_prior = {"loc.weight": 0.0, "loc.bias": 0.0, "raw_scale.value": -40.0}
    with torch.no_grad():
        for name, parameter in model.neurons.posterior.named_parameters():
            parameter.fill_(set_prior[name])
    loss = PACmELBO(20_000, max_plate_nesting=2)
    terms = loss.terms(model, NeuronGuide(model), y[:3])
    # With the prior as its posterior, KL is zero and the predictive objective is the evidence.
    assert terms.kl["neurons"].abs().max() < 1e-12
    exact = model.log_evidence(y[:3])
    torch.testing.assert_close(terms.log_likelihood["y"], exact, rtol=0, atol=0.1)
    assert terms.elbo < exact.sum() - 1
