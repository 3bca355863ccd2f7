"""Bounds of models with memory: equal to each other, below the evidence, and able to reach it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from pyro_vdn.guides import (
    FilteringPosterior,
    NeuronGuide,
    SmoothingPosterior,
    StructuredPosterior,
)
from torch import Tensor, nn

from pyro_vdn.infer import LocalELBO, PACmELBO
from pyro_vdn.nn import AutoregressiveNormal, NormalPosterior, VariationalNeurons
from pyro_vdn.nn.neurons import Steps
from pyro_vdn.poutine import kl_weight
from pyro_vdn.testing import FixedNoise, LinearGaussianChain, MemoryNet, randomise

ROWS, TIME, UNITS = 3, 10, 2
PHI = {
    1: torch.tensor([[0.9], [-0.5]], dtype=torch.float64),
    2: torch.tensor([[0.6, 0.3], [0.5, -0.7]], dtype=torch.float64),
    3: torch.tensor([[0.8, -0.3, 0.2], [-0.4, 0.1, 0.3]], dtype=torch.float64),
}
SCALE = torch.tensor([0.5, 1.5], dtype=torch.float64)
NOISE = torch.tensor([0.7, 0.4], dtype=torch.float64)
POSTERIORS: dict[str, Callable[..., nn.Module]] = {
    "factorised": lambda: NormalPosterior("input"),
    "filtering": lambda: FilteringPosterior(NormalPosterior("input")),
    "smoothing": lambda: SmoothingPosterior(NormalPosterior("input")),
    "structured": lambda: StructuredPosterior(NormalPosterior("input")),
}
STEPS: list[Steps] = ["parallel", "markov"]


class SeenChain(PyroModule):
    """A linear-Gaussian chain whose neurons read what is observed of them."""

    def __init__(self, posterior: nn.Module, order: int = 1, steps: Steps = "parallel") -> None:
        super().__init__()
        prior = AutoregressiveNormal(UNITS, phi=PHI[order], scale=SCALE, order=order)
        self.neurons = VariationalNeurons(
            UNITS, UNITS, prior=prior, posterior=posterior, steps=steps
        )

    def forward(self, y: Tensor, mask: Tensor | None = None) -> Tensor:
        there = True if mask is None else mask.unsqueeze(-1)
        with pyro.plate("rows", len(y), dim=-3):
            z = self.neurons(y, mask)
            with pyro.plate("time", y.shape[-2], dim=-2), pyro.poutine.mask(mask=there):
                seen: Tensor = pyro.sample("y", dist.Normal(z, NOISE), obs=y)
        return seen


def make_exact(order: int, steps: Steps = "parallel") -> SeenChain:
    """Each unit reads its own observation, and the likelihood is the potential."""
    posterior = StructuredPosterior(NormalPosterior("unit", loc="identity"))
    model = SeenChain(posterior, order, steps)
    with torch.no_grad():
        raw = posterior.potential.raw_scale.value
        raw.copy_(torch.log(torch.expm1(NOISE - posterior.potential.min_scale)))
    return model


def make_chain(order: int = 1) -> LinearGaussianChain:
    return LinearGaussianChain(PHI[order], SCALE, NOISE)


def options(num_particles: int) -> dict[str, Any]:
    return {"num_particles": num_particles, "max_plate_nesting": 3, "vectorize_particles": True}


# --- the evidence ---


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("order", PHI)
def test_one_draw_of_the_exact_posterior_gives_the_evidence(
    order: int, masked: bool, steps: Steps
) -> None:
    model, exact = make_exact(order, steps), make_chain(order)
    y = exact.sample(TIME, (ROWS,)).observed
    mask = torch.rand(ROWS, TIME) > 0.4 if masked else None
    evidence = exact.log_evidence(y, mask).sum()
    for _ in range(2):  # whatever the draw
        loss = Trace_ELBO().differentiable_loss(model, NeuronGuide(model), y, mask)
        torch.testing.assert_close(-loss, evidence, rtol=0.0, atol=1e-8)


@pytest.mark.parametrize("loss", [LocalELBO, TraceMeanField_ELBO])
def test_closed_form_bounds_have_the_evidence_for_mean(loss: Any) -> None:
    model, exact = make_exact(2), make_chain(2)
    y = exact.sample(TIME, (ROWS,)).observed
    with torch.no_grad():
        draws = [float(loss(**options(200)).loss(model, NeuronGuide(model), y)) for _ in range(20)]
    bounds = -torch.tensor(draws)
    error = bounds.std() / len(draws) ** 0.5
    assert abs(float(bounds.mean() - exact.log_evidence(y).sum())) < 5 * float(error)
    assert float(error) < 0.2


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_sampled_and_closed_form_kl_agree(order: int, posterior: str, masked: bool) -> None:
    model = SeenChain(POSTERIORS[posterior](), order)
    randomise(model)
    y, mask = torch.randn(ROWS, TIME, UNITS), torch.rand(ROWS, TIME) > (0.4 if masked else -1.0)
    guide, number = NeuronGuide(model), 1_000
    pairs = []
    with torch.no_grad():
        for _ in range(10):
            noise = torch.randn(number, ROWS, TIME, UNITS)
            with FixedNoise(noise):
                sampled = float(Trace_ELBO(**options(number)).loss(model, guide, y, mask))
            with FixedNoise(noise):
                closed = float(LocalELBO(**options(number)).loss(model, guide, y, mask))
            pairs.append(sampled - closed)
    difference = torch.tensor(pairs)
    assert float(difference.mean().abs()) < 5 * float(difference.std()) / len(pairs) ** 0.5


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_bounds_lie_below_the_evidence(posterior: str) -> None:
    model, exact = SeenChain(POSTERIORS[posterior](), 2), make_chain(2)
    randomise(model.neurons.posterior)
    y = exact.sample(TIME, (ROWS,)).observed
    with torch.no_grad():
        loss = LocalELBO(**options(2_000)).loss(model, NeuronGuide(model), y)
    assert -loss < float(exact.log_evidence(y).sum())


def test_structured_guide_learns_the_exact_posterior() -> None:
    time = 30
    model, exact = SeenChain(StructuredPosterior(NormalPosterior("unit"))), make_chain()
    y = exact.sample(time, (10,)).observed
    parameters = list(model.neurons.posterior.parameters())
    optimiser = torch.optim.Adam(parameters, lr=0.05)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.98)
    for _ in range(300):
        optimiser.zero_grad()
        LocalELBO().differentiable_loss(model, NeuronGuide(model), y).backward()
        optimiser.step()
        decay.step()
    with torch.no_grad():
        # Sampled, the ratio has no variance where the posterior is exact.
        loss = Trace_ELBO(**options(200)).loss(model, NeuronGuide(model), y)
    gap = float(exact.log_evidence(y).sum()) + loss
    assert abs(gap) / (10 * time) < 1e-3
    q = model.neurons.posterior(y, model.neurons.prior(y).expand(y.shape), None)
    smoothed = exact.smoothed(y)
    torch.testing.assert_close(q.variance, smoothed.variance, rtol=0.05, atol=0.0)
    assert bool(((q.mean - smoothed.mean).abs() < 0.1 * smoothed.variance.sqrt()).all())


def test_memory_and_scale_are_learned_with_the_posterior() -> None:
    exact = make_chain()
    y = exact.sample(50, (20,)).observed
    model = make_exact(1)
    with torch.no_grad():
        model.neurons.prior.raw_partials.fill_(0.2)
        model.neurons.prior.raw_scale.fill_(0.5)
    optimiser = torch.optim.Adam(model.neurons.prior.parameters(), lr=0.1)
    for _ in range(150):
        optimiser.zero_grad()
        Trace_ELBO().differentiable_loss(model, NeuronGuide(model), y).backward()
        optimiser.step()
    phi = model.neurons.prior.coefficients().detach()  # type: ignore[operator]
    scale = model.neurons.prior.innovation_scale().detach()  # type: ignore[operator]
    torch.testing.assert_close(phi, PHI[1], rtol=0.0, atol=0.15)
    torch.testing.assert_close(scale, SCALE, rtol=0.15, atol=0.0)


# --- losses ---


def make_net(posterior: str, steps: Steps = "parallel") -> MemoryNet:
    prior = AutoregressiveNormal(4, phi=PHI[2][0], order=2)
    model = MemoryNet(prior, POSTERIORS[posterior](), steps=steps)
    randomise(model)
    return model


@pytest.mark.parametrize("particles", [1, 4])
@pytest.mark.parametrize("posterior", POSTERIORS)
def test_single_pass_equals_two_passes(posterior: str, particles: int) -> None:
    model = make_net(posterior)
    x, y = torch.randn(ROWS, TIME, 3), torch.randn(ROWS, TIME, 2)
    results = []
    for loss in (LocalELBO, TraceMeanField_ELBO):
        pyro.set_rng_seed(3)
        value = loss(**options(particles)).differentiable_loss(model, NeuronGuide(model), x, y)
        results.append((value, *torch.autograd.grad(value, list(model.parameters()))))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("posterior", POSTERIORS)
def test_plate_nesting_is_found(posterior: str, steps: Steps) -> None:
    model, loss = make_net(posterior, steps), LocalELBO(num_particles=3)
    x, y = torch.randn(ROWS, TIME, 3), torch.randn(ROWS, TIME, 2)
    value = loss.differentiable_loss(model, NeuronGuide(model), x, y)
    assert loss.max_plate_nesting == 4
    assert value.isfinite()


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_terms_add_up(posterior: str) -> None:
    model = make_net(posterior)
    x, y = torch.randn(ROWS, TIME, 3), torch.randn(ROWS, TIME, 2)
    noise = torch.randn(ROWS, TIME, 4)
    weighted = kl_weight(model, 0.25)
    with FixedNoise(noise):
        terms = LocalELBO().terms(weighted, NeuronGuide(weighted), x, y)
    with FixedNoise(noise):
        plain = LocalELBO().terms(model, NeuronGuide(model), x, y)
    assert terms.kl["neurons"].shape == (4,)
    torch.testing.assert_close(terms.kl["neurons"], 0.25 * plain.kl["neurons"])
    torch.testing.assert_close(terms.elbo, plain.elbo)
    torch.testing.assert_close(plain.loss, -plain.elbo)
    likelihood = plain.log_likelihood["y"].sum()
    torch.testing.assert_close(plain.elbo, likelihood - plain.kl["neurons"].sum())


@pytest.mark.parametrize("steps", STEPS)
def test_pac_m_bound_of_one_particle_is_the_elbo(steps: Steps) -> None:
    model = make_net("filtering", steps)
    x, y = torch.randn(ROWS, TIME, 3), torch.randn(ROWS, TIME, 2)
    noise, values = torch.randn(ROWS, TIME, 4), []
    for loss in (PACmELBO(num_particles=1), LocalELBO()):
        with FixedNoise(noise):
            values.append(loss.differentiable_loss(model, NeuronGuide(model), x, y))
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("stock", [Trace_ELBO, TraceMeanField_ELBO, LocalELBO])
def test_svi_steps(stock: Any, steps: Steps) -> None:
    model = make_net("smoothing", steps)
    x, y = torch.randn(ROWS, TIME, 3), torch.randn(ROWS, TIME, 2)
    svi = SVI(model, NeuronGuide(model), pyro.optim.Adam({"lr": 0.05}), loss=stock())
    losses = [svi.step(x, y) for _ in range(15)]
    assert sum(losses[-5:]) < sum(losses[:5])
