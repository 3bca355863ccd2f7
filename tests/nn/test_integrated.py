"""Neurons integrated out, against 10^5 draws of the same model."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from pyro_vdn.guides import NeuronGuide
from torch import Tensor

from pyro_vdn.infer.pacm_elbo import integrate_read
from pyro_vdn.infer.single_pass import run_single_pass
from pyro_vdn.nn import (
    Integrated,
    LinearReadout,
    MultivariateNormalLikelihood,
    MultivariateStudentTLikelihood,
    NormalLikelihood,
    NormalPosterior,
    OutputScale,
    StudentTLikelihood,
    Units,
    VariationalNeurons,
)
from pyro_vdn.testing import randomise

DRAWS, ROWS, OUTPUTS = 100_000, 3, 3


class Readable(PyroModule):
    """Neurons, a readout and a likelihood that offers to integrate them."""

    def __init__(
        self,
        likelihood: Any,
        *,
        activation: Any = "identity",
        num_units: int = 4,
        latent_dim: int = 1,
        pool: Any = "mean",
        units: Units | None = None,
    ) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(
            2,
            num_units,
            latent_dim=latent_dim,
            pool=pool,
            posterior=NormalPosterior("input", initial_scale=0.7),
        )
        width = num_units * latent_dim if pool == "flatten" else num_units
        self.readout = LinearReadout(width, OUTPUTS, activation=activation)
        self.likelihood = likelihood
        self.units = units

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        units = self.units
        with pyro.plate("data", x.shape[-2], dim=-2):
            z = self.neurons(x)
            loc = self.readout(z)
            if units is None:
                outcome = self.likelihood(loc, x)
            else:
                outcome = self.likelihood(units.restore(loc), x, spread=units.spread)
            if y is not None and outcome.event_dim:
                y = y.unsqueeze(-2)
            offer = self.readout.offer(z, self.likelihood, x, units=units)
            return pyro.sample("y", outcome, obs=y, infer=offer)


def make_case(likelihood: Any, **kwargs: Any) -> tuple[Readable, Tensor, Tensor]:
    model = Readable(likelihood, **kwargs)
    randomise(model)
    return model, torch.randn(ROWS, 2), torch.randn(ROWS, OUTPUTS)


def integrate(model: Readable, x: Tensor, y: Tensor) -> Integrated:
    with torch.no_grad():
        run = run_single_pass(model, NeuronGuide(model), (x, y), {})
        result = integrate_read(run, run.observed[0])
    assert result is not None
    return result


def sampled(model: Readable, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Any]:
    """Return draws `(DRAWS, ROWS, OUTPUTS)` and the likelihood of each draw."""
    with torch.no_grad(), pyro.plate("draws", DRAWS, dim=-3):
        trace = pyro.poutine.trace(NeuronGuide(model)).get_trace(x)
    site = trace.nodes["y"]
    value = site["value"].squeeze(-2) if site["fn"].event_dim else site["value"]
    return value, site["fn"]


def log_mean(log_prob: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log of a mean density over draws, and its standard error."""
    log = log_prob.logsumexp(0) - math.log(len(log_prob))
    relative = (log_prob - log).exp().std(0) / math.sqrt(len(log_prob))
    return log, relative


LIKELIHOODS: dict[str, Any] = {
    "normal": lambda: NormalLikelihood(OutputScale(OUTPUTS, initial_scale=0.6)),
    "normal, one scale": lambda: NormalLikelihood(OutputScale(OUTPUTS, "shared")),
    "normal, scale of the input": lambda: NormalLikelihood(
        OutputScale(OUTPUTS, "low_rank", in_features=2, rank=2)
    ),
    "multivariate normal": lambda: MultivariateNormalLikelihood(
        OutputScale(OUTPUTS), covariance_rank=2
    ),
    "student": lambda: StudentTLikelihood(OutputScale(OUTPUTS), initial_df=9.0),
    "multivariate student": lambda: MultivariateStudentTLikelihood(
        OutputScale(OUTPUTS), covariance_rank=1, initial_df=9.0
    ),
}
NORMAL = [name for name in LIKELIHOODS if "student" not in name]
UNITS = {
    "plain": lambda: None,
    "in units": lambda: Units(
        torch.tensor([[1.0], [-2.0], [0.0]]), torch.tensor([[2.0], [0.3], [1.0]])
    ),
}


@pytest.mark.parametrize("num_units", [2, 4], ids=["rank below", "rank above"])
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("name", NORMAL)
def test_exact_for_linear_readout_and_normal_likelihood(
    name: str, units: str, num_units: int
) -> None:
    model, x, y = make_case(LIKELIHOODS[name](), num_units=num_units, units=UNITS[units]())
    if units == "in units":
        y = model.units.restore(y)
    exact = integrate(model, x, y)
    _, likelihood = sampled(model, x)
    value = y.unsqueeze(-2) if likelihood.event_dim else y
    joint = likelihood.log_prob(value).sum(-1)
    log, error = log_mean(joint)
    assert error.max() < 0.05
    assert ((exact.joint().log_prob(y) - log).abs() < 5 * error).all()
    per_output = likelihood.per_output() if likelihood.event_dim else likelihood
    each = per_output.log_prob(value)
    each = each.squeeze(-2) if likelihood.event_dim else each
    log, error = log_mean(each)
    assert ((exact.per_output().log_prob(y) - log).abs() < 5 * error).all()


@pytest.mark.parametrize("pool", ["mean", "sum", "flatten"])
def test_exact_for_several_latent_dimensions(pool: str) -> None:
    model, x, y = make_case(LIKELIHOODS["normal"](), latent_dim=3, pool=pool, num_units=2)
    _, likelihood = sampled(model, x)
    log, error = log_mean(likelihood.log_prob(y).sum(-1))
    assert ((integrate(model, x, y).joint().log_prob(y) - log).abs() < 5 * error).all()


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("activation", ["identity", "relu"])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_moments_match_draws(name: str, activation: str, units: str) -> None:
    model, x, y = make_case(LIKELIHOODS[name](), activation=activation, units=UNITS[units]())
    predictive = integrate(model, x, y)
    draws, _ = sampled(model, x)
    error = draws.std(0) / math.sqrt(DRAWS)
    assert ((draws.mean(0) - predictive.mean).abs() < 5 * error).all()
    joint, marginal = predictive.joint(), predictive.per_output()
    spread = predictive.variance.sqrt()
    centred = (draws - draws.mean(0)) / spread
    correlation = torch.einsum("sri,srj->rij", centred, centred) / DRAWS
    scaled = joint.covariance / spread.unsqueeze(-1) / spread.unsqueeze(-2)
    # The entries' own errors are up to 0.01 for these tails.
    torch.testing.assert_close(correlation, scaled.expand_as(correlation), rtol=0, atol=0.05)
    torch.testing.assert_close(joint.variance, predictive.variance)
    torch.testing.assert_close(marginal.variance, predictive.variance)
    torch.testing.assert_close(joint.per_output().scale, marginal.scale)


def test_outputs_share_the_neurons() -> None:
    model, x, y = make_case(LIKELIHOODS["normal"]())
    covariance = integrate(model, x, y).joint().covariance
    off_diagonal = covariance - torch.diag_embed(covariance.diagonal(dim1=-2, dim2=-1))
    assert off_diagonal.abs().max() > 0.1


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_inflation_enlarges_the_neurons_alone(share: float) -> None:
    model, x, y = make_case(LIKELIHOODS["student"]())
    plain = integrate(model, x, y)
    more = plain.inflated(share)
    torch.testing.assert_close(
        more.variance - plain.variance, share * plain.moments.output_variance
    )
    torch.testing.assert_close(more.mean, plain.mean)


def test_without_noise_it_is_the_likelihood() -> None:
    model, x, y = make_case(LIKELIHOODS["multivariate student"]())
    predictive = integrate(model, x, y).inflated(-1.0)
    with torch.no_grad():
        likelihood = model.likelihood(predictive.mean)
    torch.testing.assert_close(
        predictive.joint().log_prob(y), likelihood.log_prob(y.unsqueeze(-2)).squeeze(-1)
    )
    assert isinstance(predictive.per_output(), dist.StudentT)
