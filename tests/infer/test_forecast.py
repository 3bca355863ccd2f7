"""Latent forecasts: spread as the prior says, densities of the horizon, refusals."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.guides.markov import FilteringPosterior, StructuredPosterior
from pyro_vdn.models import Forecaster, Regression, StateSpace
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer import forecast, predict
from pyro_vdn.nn import AutoregressiveNormal, NormalPosterior, StandardNormal
from pyro_vdn.poutine import record
from pyro_vdn.testing import randomise

UNITS = 3
HORIZON = 12


def make(**changes: Any) -> tuple[StateSpace, NeuronGuide]:
    model = StateSpace(
        2,
        **{"num_outputs": UNITS, "num_units": UNITS, "hidden": 5, "observation": "normal"}
        | changes,
    )
    randomise(model)
    return model, NeuronGuide(model)


def posterior_of(guide: NeuronGuide, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of the neurons at every step, `(rows, time, units)`."""
    with record() as seen, torch.no_grad():
        guide(x)
    return seen["neurons"].last_loc, seen["neurons"].last_scale.square()


def spread_by_formula(model: StateSpace, last: Tensor) -> Tensor:
    """Return `phi^{2k} v_T + s^2 (1 - phi^{2k}) / (1 - phi^2)`, `(rows, horizon, units)`."""
    prior = model.neurons.prior
    phi, s = prior.coefficients().squeeze(-1).detach(), prior.innovation_scale().detach()
    kept = phi.square() ** torch.arange(1, HORIZON + 1).unsqueeze(-1)
    return kept * last.unsqueeze(-2) + s.square() * (1 - kept) / (1 - phi.square())


@pytest.mark.parametrize("posterior", [FilteringPosterior, StructuredPosterior, NormalPosterior])
def test_the_spread_grows_as_the_prior_says(posterior: Any) -> None:
    phi = torch.tensor([0.95, -0.7, 0.3])
    prior = AutoregressiveNormal(UNITS, phi=phi, scale=torch.tensor([0.3, 0.8, 1.2]))
    model, guide = make(prior=prior, posterior=posterior())
    x = torch.randn(4, 9, 2)
    means, variances = posterior_of(guide, x)
    longer = torch.cat([x, torch.full((4, HORIZON, 2), math.nan)], 1)
    ahead_means, ahead_variances = posterior_of(guide, longer)
    expected = spread_by_formula(model, variances[:, -1])
    torch.testing.assert_close(ahead_variances[:, -HORIZON:], expected)
    kept = model.neurons.prior.coefficients().squeeze(-1).detach()
    kept = kept ** torch.arange(1, HORIZON + 1).unsqueeze(-1)
    expected_mean = kept * means[:, -1:]
    torch.testing.assert_close(ahead_means[:, -HORIZON:], expected_mean)

    draws = forecast(model, guide, x, HORIZON, num_samples=8000).draws
    weight = model.readout.linear.weight.detach()
    noise = model.likelihood.scale(None).detach()
    variance = expected @ weight.square().mT + noise.square()
    error = (draws.var(0) - variance) / (variance * math.sqrt(2 / 7999))
    assert error.abs().max() < 5
    mean = model.readout(expected_mean).detach()
    assert ((draws.mean(0) - mean) / (variance / 8000).sqrt()).abs().max() < 5
    assert (expected[:, -1, 0] > 1.5 * expected[:, 0, 0]).all()  # it does grow


def test_without_memory_a_forecast_is_the_prior_at_once() -> None:
    model, guide = make(prior=StandardNormal())
    draws = forecast(model, guide, torch.randn(4, 9, 2), 3, num_samples=8000).draws
    weight, noise = model.readout.linear.weight.detach(), model.likelihood.scale(None).detach()
    variance = (weight.square().sum(-1) + noise.square()).expand(4, 3, UNITS)
    assert ((draws.var(0) / variance - 1) / math.sqrt(2 / 7999)).abs().max() < 5


def test_a_gap_at_the_end_is_the_beginning_of_the_forecast() -> None:
    """Two missing steps and a horizon of 3 say what a horizon of 5 does, from the same noise."""
    model, guide = make()
    x = torch.randn(4, 9, 2)
    gap = torch.cat([x, torch.full((4, 2, 2), math.nan)], 1)
    pyro.set_rng_seed(5)
    five = forecast(model, guide, x, 5, num_samples=6).draws
    pyro.set_rng_seed(5)
    three = forecast(model, guide, gap, 3, num_samples=6).draws
    torch.testing.assert_close(three, five[:, :, 2:])


def test_the_density_is_that_of_the_horizon() -> None:
    model, guide = make()
    x, y = torch.randn(4, 9, 2), torch.randn(4, 5, UNITS)
    y[2, 1, 0], y[3] = math.nan, math.nan
    pyro.set_rng_seed(5)
    ahead = forecast(model, guide, x, 5, y=y, num_samples=6)
    longer = torch.cat([x, torch.full((4, 5, 2), math.nan)], 1)
    pyro.set_rng_seed(5)
    with torch.no_grad(), pyro.plate("draws", 6, dim=-4):
        z = pyro.poutine.trace(guide).get_trace(longer).nodes["neurons.z"]["value"]
        log_prob = model.likelihood(model.readout(z[..., -5:, :])).log_prob(y)
    per_output = log_prob.logsumexp(0) - math.log(6)
    joint = log_prob.nan_to_num(nan=0.0).sum((-2, -1)).logsumexp(0) - math.log(6)
    torch.testing.assert_close(ahead.log_prob_per_output, per_output, equal_nan=True)
    torch.testing.assert_close(ahead.log_prob_joint, joint)
    assert ahead.log_prob_per_output.isnan().sum() == 1 + 5 * UNITS
    assert ahead.log_prob_joint[3] == 0  # nothing observed, nothing said
    assert ahead.draws.shape == (6, 4, 5, UNITS)
    assert ahead.closed_form is None


@pytest.mark.parametrize("observation", ["student_t", "negative_binomial"])
@pytest.mark.parametrize("batch_size", [None, 1, 3])
@pytest.mark.parametrize("horizon", [1, 4])
def test_shapes(observation: Any, batch_size: int | None, horizon: int) -> None:
    model, guide = make(observation=observation)
    x = torch.randn(4, 9, 2)
    x[1, 3:5] = math.nan
    ahead = forecast(model, guide, x, horizon, num_samples=7, batch_size=batch_size)
    assert ahead.draws.shape == (7, 4, horizon, UNITS)
    assert torch.isfinite(ahead.draws).all()
    assert ahead.quantiles([0.1, 0.9]).shape == (2, 4, horizon, UNITS)
    assert ahead.log_prob_joint is None


def test_the_past_alone_is_not_changed_by_the_horizon() -> None:
    """A filtering posterior draws the same past: what is forecast is appended to it."""
    model, guide = make()
    x = torch.randn(4, 9, 2)
    means, variances = posterior_of(guide, x)
    longer = torch.cat([x, torch.full((4, 5, 2), math.nan)], 1)
    torch.testing.assert_close(posterior_of(guide, longer)[0][:, :9], means)
    torch.testing.assert_close(posterior_of(guide, longer)[1][:, :9], variances)
    assert predict(model, guide, longer, num_samples=2).draws.shape == (2, 4, 14, UNITS)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"horizon": 0}, "horizon: expected a positive integer"),
        ({"x": torch.zeros(9, 2)}, r"x: expected sequences of shape \(rows, time, features\)"),
        ({"y": torch.zeros(4, 3, UNITS)}, r"y: expected shape \(4, 5, 3\)"),
        ({"y": torch.zeros(4, 5, 1)}, "y: expected shape"),
        ({"x": torch.full((4, 9, 2), math.inf)}, "x: expected finite values, or NaN"),
    ],
)
def test_refuses(changes: dict[str, Any], match: str) -> None:
    given = {"x": torch.zeros(4, 9, 2), "horizon": 5} | changes
    x, horizon = given.pop("x"), given.pop("horizon")
    with pytest.raises(InputError, match=match):
        forecast(*make(), x, horizon, **given)


def test_refuses_a_model_that_does_not_read_missing_steps() -> None:
    model = Regression(2)
    with pytest.raises(InputError, match="model: expected one that reads NaN as missing"):
        forecast(model, NeuronGuide(model), torch.zeros(4, 9, 2), 5)


def test_a_model_that_predicts_too_few_steps_is_refused() -> None:
    model = Forecaster(
        48, 12, num_units=4, memory=AutoregressiveNormal(4), scored_steps=1, kernel_size=5
    )
    with pytest.raises(
        InputError, match="predicts the last 3 steps of its sequences, got the last 1"
    ):
        forecast(model, NeuronGuide(model), torch.randn(5, 6, 48), 3, num_samples=7)
