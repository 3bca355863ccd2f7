"""Evidence by importance sampling against closed forms, the Kalman filter and other draws."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal
from pyro.nn import PyroModule
from pyro_vdn.guides import FilteringPosterior, NeuronGuide, without_neurons
from pyro_vdn.models import Regression, StateSpace
from torch import Tensor

from pyro_vdn.bench.seen_chains import SeenChains
from pyro_vdn.diagnostics import EvidenceEstimate, importance_evidence
from pyro_vdn.errors import InputError
from pyro_vdn.nn import NormalPosterior, VariationalNeurons
from pyro_vdn.poutine import kl_weight, scale_noise, share_noise
from pyro_vdn.testing import (
    ConjugateNeurons,
    LinearGaussianChain,
    NeuronStack,
    hand_written_guide,
    orthogonal_columns,
)

pytestmark = pytest.mark.usefixtures("double")


def conjugate(rows: int = 40) -> tuple[ConjugateNeurons, Tensor]:
    model = ConjugateNeurons(orthogonal_columns(4, 3), torch.randn(4), 0.8)
    model.set_exact_()
    return model, model.simulate(rows)


# --- rows of their own ---


def test_every_draw_of_the_exact_posterior_has_the_weight_of_the_evidence() -> None:
    model, y = conjugate()
    evidence = importance_evidence(model, NeuronGuide(model), y, num_samples=30, chunk_size=7)
    exact = model.log_evidence(y)
    assert evidence.rows is not None
    torch.testing.assert_close(evidence.rows.log_evidence, exact, rtol=0.0, atol=1e-10)
    torch.testing.assert_close(evidence.rows.elbo, exact, rtol=0.0, atol=1e-10)
    assert evidence.log_evidence == pytest.approx(float(exact.sum()), abs=1e-10)
    assert max(evidence.error, evidence.elbo_error, evidence.bias) < 1e-10
    assert evidence.worst_k_hat < 0.5
    assert evidence.is_reliable
    torch.testing.assert_close(evidence.joint.effective_draws, torch.tensor(30.0))


def test_wrong_guide_is_off_by_no_more_than_its_error_says() -> None:
    model, y = conjugate(300)
    wide = scale_noise(model, 1.3)
    evidence = importance_evidence(wide, NeuronGuide(wide), y, num_samples=500)
    rows = evidence.rows
    assert rows is not None
    off = (rows.log_evidence + rows.bias - model.log_evidence(y)) / rows.error
    assert abs(off.mean()) < 4 / math.sqrt(300)
    assert abs(off.std() - 1) < 0.2
    assert rows.k_hat.max() < 0.5  # a wider guide bounds the weights
    total = float(model.log_evidence(y).sum())
    assert abs(evidence.log_evidence + evidence.bias - total) < 4 * evidence.error
    # The KL from the exact posterior to one 1.3 times as wide, for each of 3 units of 300 rows.
    gap = 900 * (0.5 * (1.3**2 - 1) - math.log(1.3))
    assert abs(evidence.elbo - (total - gap)) < 4 * evidence.elbo_error
    assert evidence.elbo_error < 0.02 * gap


@pytest.mark.parametrize("factor", [0.95, 1.1])
def test_guide_that_is_nearly_exact_has_light_tails(factor: float) -> None:
    model, y = conjugate(20)
    near = scale_noise(model, factor)
    evidence = importance_evidence(near, NeuronGuide(near), y, chunk_size=1000)
    assert evidence.worst_k_hat < 0.5
    assert 0 < evidence.error < 0.1


def test_narrow_guide_is_found_out() -> None:
    model, y = conjugate(20)
    narrow = scale_noise(model, 0.4)
    evidence = importance_evidence(narrow, NeuronGuide(narrow), y, num_samples=500)
    assert not evidence.is_reliable
    assert evidence.rows is not None
    assert evidence.rows.k_hat.median() > 0.7
    assert "misses mass" in str(evidence)
    above = int((evidence.rows.k_hat > 0.7).sum())
    assert f"k-hat of 20 rows: worst {evidence.worst_k_hat:.2f}, {above} above 0.7" in str(evidence)


def test_error_is_that_of_repetition() -> None:
    model, y = conjugate(1)
    shifted = scale_noise(model, 1.5)
    y = y.expand(400, -1)  # as many repetitions
    rows = importance_evidence(shifted, NeuronGuide(shifted), y, num_samples=200).rows
    assert rows is not None
    assert rows.log_evidence.std() == pytest.approx(float(rows.error.mean()), rel=0.15)
    assert rows.elbo.std() == pytest.approx(float(rows.elbo_error.mean()), rel=0.15)


def test_few_draws_are_too_low_by_what_is_said() -> None:
    model, y = conjugate(1)
    wide = scale_noise(model, 1.8)
    repeated = y.expand(2000, -1)
    rows = importance_evidence(wide, NeuronGuide(wide), repeated, num_samples=20).rows
    assert rows is not None
    short = model.log_evidence(y) - rows.log_evidence
    error = float(short.std()) / math.sqrt(2000)
    assert short.mean() > 5 * error
    assert float(short.mean()) == pytest.approx(float(rows.bias.mean()), abs=3 * error, rel=0.15)


def test_weights_on_the_kl_do_not_count() -> None:
    model, y = conjugate(5)
    weighted = kl_weight(model, 0.1)
    evidence = importance_evidence(weighted, NeuronGuide(weighted), y, num_samples=30)
    assert evidence.log_evidence == pytest.approx(float(model.log_evidence(y).sum()), abs=1e-10)


def test_stack_of_layers_against_draws_of_the_prior() -> None:
    model = scale_noise(stack := NeuronStack(num_units=2, num_layers=2), 3.0)
    x, y = torch.randn(3, 4), 0.5 * torch.randn(3, 2)
    evidence = importance_evidence(model, NeuronGuide(model), x, y, num_samples=2000)
    z = torch.randn(50_000, 1, 2)  # the second layer's prior does not depend on the first
    loc = stack.readout(torch.tanh(z))
    prior = dist.Normal(loc, stack.noise).log_prob(y).sum(-1).detach()
    theirs = EvidenceEstimate.of(prior)
    assert evidence.rows is not None
    error = (evidence.rows.error.square() + theirs.error.square()).sqrt()
    assert ((evidence.rows.log_evidence - theirs.log_evidence).abs() < 4 * error).all()
    assert (error < 0.1).all()


def test_guide_written_by_hand_gives_the_same() -> None:
    model = NeuronStack()
    for layer in model.neuron_layers:
        layer.posterior.multiply_scale_(torch.full((3,), 3.0), torch.ones(3))
    x, y = torch.randn(3, 4), torch.randn(3, 2)
    ours, hand = (
        importance_evidence(model, guide, x, y, num_samples=400)
        for guide in (NeuronGuide(model), hand_written_guide(model))
    )
    assert ours.rows is not None
    assert hand.rows is not None
    error = (ours.rows.error.square() + hand.rows.error.square()).sqrt()
    assert ((ours.rows.log_evidence - hand.rows.log_evidence).abs() < 4 * error).all()


# --- time ---


def test_exact_posterior_over_time_gives_the_evidence_of_the_kalman_filter() -> None:
    model = SeenChains(2, noise=0.5)
    potential = model.neurons.posterior.potential
    with torch.no_grad():
        potential.loc.weight.copy_(torch.eye(2))
        potential.loc.bias.zero_()
        potential.multiply_scale_(torch.full((2,), 0.5), torch.ones(2))
    y = model.exact().sample(8, (3,)).observed
    evidence = importance_evidence(model, NeuronGuide(model), y, num_samples=25)
    assert evidence.rows is not None
    exact = model.exact().log_evidence(y)
    torch.testing.assert_close(evidence.rows.log_evidence, exact, rtol=0.0, atol=1e-8)
    assert evidence.worst_k_hat < 0.5


def test_state_space_against_the_kalman_filter() -> None:
    wide = FilteringPosterior(NormalPosterior(initial_scale=1.5))
    model = StateSpace(2, 2, num_units=2, hidden=4, observation="normal", posterior=wide)
    memory = model.neurons.prior
    noise = model.likelihood(torch.zeros(2)).scale.detach()
    linear = model.readout.linear
    chain = LinearGaussianChain(
        memory.coefficients().detach(),
        memory.innovation_scale().detach(),
        noise,
        loading=linear.weight.detach(),
    )
    y = chain.sample(4, (6,)).observed
    seen = y + linear.bias.detach()
    evidence = importance_evidence(model, NeuronGuide(model), y, seen, num_samples=2000)
    rows = evidence.rows
    assert rows is not None
    off = (rows.log_evidence + rows.bias - chain.log_evidence(y)) / rows.error
    assert off.abs().max() < 4
    assert rows.error.max() < 0.3


# --- rows that share a latent site ---


class SharedLevel(PyroModule):
    """A level of all rows, and a neuron per row: `y_n ~ Normal(level + z_n, 1)`."""

    def __init__(self) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(1, 1, posterior=NormalPosterior(initial_scale=0.9))

    def forward(self, y: Tensor) -> Tensor:
        level = pyro.sample("level", dist.Normal(0.0, 2.0))
        with pyro.plate("rows", len(y), dim=-2):
            z = self.neurons(y)
            seen: Tensor = pyro.sample("y", dist.Normal(level + z, 1.0), obs=y)
        return seen


def test_shared_latent_is_weighted_by_whole_draws() -> None:
    model, y = SharedLevel(), 1.0 + torch.randn(3, 1)
    others = AutoMultivariateNormal(without_neurons(model), init_scale=1.0)
    guide = NeuronGuide(model, others=others)
    evidence = importance_evidence(model, guide, y, num_samples=4000, chunk_size=2000)
    covariance = 2 * torch.eye(3) + 4 * torch.ones(3, 3)
    exact = float(dist.MultivariateNormal(torch.zeros(3), covariance).log_prob(y[:, 0]))
    assert evidence.rows is None
    assert abs(evidence.log_evidence + evidence.bias - exact) < 4 * evidence.error
    assert evidence.error < 0.1
    assert evidence.worst_k_hat == float(evidence.joint.k_hat)


def test_shared_latent_without_a_guide_keeps_its_prior() -> None:
    model, y = SharedLevel(), torch.randn(2, 1)
    evidence = importance_evidence(model, NeuronGuide(model), y, num_samples=4000, chunk_size=4000)
    covariance = 2 * torch.eye(2) + 4 * torch.ones(2, 2)
    exact = float(dist.MultivariateNormal(torch.zeros(2), covariance).log_prob(y[:, 0]))
    assert evidence.rows is None
    assert abs(evidence.log_evidence + evidence.bias - exact) < 4 * evidence.error


# --- what it leaves alone, and refuses ---


def test_seed_decides_and_the_callers_noise_is_untouched() -> None:
    model = Regression(3, num_units=4).train()
    data = torch.randn(6, 3), torch.randn(6, 1)
    state = torch.get_rng_state()
    found = [
        importance_evidence(model, NeuronGuide(model), *data, num_samples=30, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert found[0].log_evidence == found[1].log_evidence != found[2].log_evidence
    assert not found[0].joint.log_evidence.requires_grad


def _subsampled(y: Tensor) -> None:
    with pyro.plate("rows", 10, subsample_size=2, dim=-2):
        pyro.sample("y", dist.Normal(0.0, 1.0), obs=y)


def _enumerated(y: Tensor) -> None:
    with pyro.plate("rows", 2, dim=-2):
        k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        pyro.sample("y", dist.Normal(k, 1.0), obs=y)


def _latent(y: Tensor) -> None:
    pyro.sample("y", dist.Normal(0.0, 1.0))


def _infinite(y: Tensor) -> None:
    pyro.factor("odd", torch.tensor(math.inf))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_subsampled, "site 'y': expected all rows of its plate, got a subsample"),
        (_enumerated, "site 'k': expected a site that is drawn, got one that a loss sums out"),
        (_latent, r"model: expected an observation, got latent sites alone: \['y'\]"),
        (_infinite, "site 'odd': expected log densities .* got inf in 5 of 5 draws"),
    ],
)
def test_refuses_what_has_no_such_evidence(model: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        importance_evidence(model, NeuronGuide(model), torch.zeros(2, 1), num_samples=5)


def test_refuses_noise_that_is_shared() -> None:
    shared = share_noise(Regression(3, num_units=4))
    with pytest.raises(InputError, match="independent under the posterior's density"):
        importance_evidence(shared, NeuronGuide(shared), torch.zeros(2, 3), torch.zeros(2, 1))


def test_refuses_a_single_draw() -> None:
    model, y = conjugate(2)
    with pytest.raises(InputError, match="num_samples: expected at least 2, got 1"):
        importance_evidence(model, NeuronGuide(model), y, num_samples=1)
