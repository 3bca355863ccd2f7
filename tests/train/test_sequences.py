"""Sequences with gaps through training, scores and export."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from pyro_vdn.guides import NeuronGuide, without_neurons
from pyro_vdn.models import Regression, StateSpace
from torch import Tensor

from pyro_vdn.diagnostics import crps_draws
from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO, PACmELBO, forecast, log_density, predict
from pyro_vdn.nn import AutoregressiveNormal
from pyro_vdn.train import (
    default_loss,
    evaluate,
    evaluate_fully,
    fit,
)
from pyro_vdn.train.batches import as_pair
from pyro_vdn.train.task import TrainingTask

NAN = math.nan


@pytest.fixture
def gaps() -> tuple[Tensor, Tensor]:
    """Random walks seen with noise: a fifth of the steps without input, targets missing too."""
    level = 0.4 * torch.randn(40, 12, 1).cumsum(1)
    x = level + 0.2 * torch.randn(40, 12, 1)
    y = torch.cat([level, -level], -1) + 0.1 * torch.randn(40, 12, 2)
    x[torch.rand(40, 12) < 0.2] = NAN
    y[torch.rand(40, 12, 2) < 0.1] = NAN
    y[0] = NAN
    return x, y


def make(**changes: Any) -> StateSpace:
    pyro.set_rng_seed(11)
    return StateSpace(1, 2, **{"num_units": 4, "hidden": 8, **changes})


def test_fit_trains_on_sequences_with_gaps(gaps: Any, options: Callable[..., Any]) -> None:
    x, y = gaps
    train, validation = (x[:30], y[:30]), (x[30:], y[30:])
    settings = options(max_steps=120, evaluate_every=40, learning_rate=1e-2)
    result = fit(make(), train, validation, options=settings, progress=False)
    scores = [entry["validation_nll"] for entry in result.history]
    assert all(math.isfinite(score) for score in scores)
    assert result.validation_nll == min(scores)
    before = make()
    per_output, _ = log_density(before, NeuronGuide(before), *validation, num_samples=100)
    assert result.validation_nll < -float(per_output.nanmean()) - 0.1
    per_output, _ = log_density(result.model, result.guide, *validation, num_samples=100)
    assert result.validation_nll == pytest.approx(-float(per_output.nanmean()), abs=0.05)
    ahead = forecast(result.model, result.guide, validation[0], 3, num_samples=20)
    assert torch.isfinite(ahead.draws).all()


def test_counts_are_fitted(options: Callable[..., Any]) -> None:
    x = torch.randn(24, 6, 1)
    y = torch.poisson(x.cumsum(1).exp().clamp(max=20.0)).expand(-1, -1, 2).clone()
    model = make(observation="negative_binomial")
    result = fit(model, (x[:16], y[:16]), (x[16:], y[16:]), options=options(), progress=False)
    assert math.isfinite(result.validation_nll)


def test_the_loss_is_per_observed_target(gaps: Any, options: Callable[..., Any]) -> None:
    x, y = gaps
    model = make()
    guide, loss = NeuronGuide(model), LocalELBO()
    task = TrainingTask(model, guide, loss, options(), (x, y))
    task.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    pyro.set_rng_seed(0)
    per_target = task.training_step((x, y), 0)
    pyro.set_rng_seed(0)
    expected = loss.differentiable_loss(model, guide, x, y) / (~y.isnan()).sum()
    torch.testing.assert_close(per_target, expected)


def test_validation_scores_are_per_observed_target(gaps: Any, options: Callable[..., Any]) -> None:
    x, y = gaps
    model = make()
    task = TrainingTask(model, NeuronGuide(model), LocalELBO(), options(), (x, y))
    seen: dict[str, Any] = {}
    task.log_dict = lambda scores, batch_size, **kwargs: seen.update(  # type: ignore[method-assign]
        {name: (float(value), batch_size) for name, value in scores.items()}
    )
    with torch.no_grad():
        task.validation_step((x, y), 0)
        per_output, joint = log_density(model, task.programs[1], x, y, num_samples=3000)
    count = int((~y.isnan()).sum())
    nll, joint_nll = seen["validation_nll"], seen["validation_joint_nll"]
    assert nll == (pytest.approx(-float(per_output.nanmean()), abs=0.03), count)
    assert joint_nll[0] == pytest.approx(-float(joint.sum()) / count, abs=0.15)
    assert joint_nll[1] == count
    assert seen["validation_elbo_per_row"][1] == 40
    with torch.no_grad():
        model.likelihood.scale.raw.fill_(NAN)
        task.validation_step((x, y), 0)
    assert math.isnan(seen["validation_nll"][0])  # a model that is not finite is not a gap


def test_sequences_have_the_evidence_of_their_steps_together() -> None:
    few = torch.zeros(2, 5, 1), torch.zeros(2, 5, 2)
    assert isinstance(default_loss(make(observation="normal"), few), LocalELBO)
    rows = torch.zeros(2, 1), torch.zeros(2, 1)
    assert isinstance(default_loss(Regression(1), rows), PACmELBO)


def test_scores_count_what_is_there(gaps: Any) -> None:
    x, y = gaps
    model = make()
    guide, there = NeuronGuide(model), ~y.isnan()
    full = evaluate_fully(model, guide, x, y, num_samples=400, batch_size=7)
    metrics = full.metrics
    prediction = predict(model, guide, x, y=y, num_samples=2000)
    draws, target = prediction.draws[:, there], y[there]
    assert metrics.mse == pytest.approx(float((draws.mean(0) - target).square().mean()), rel=0.03)
    assert metrics.crps == pytest.approx(float(crps_draws(draws, target).mean()), rel=0.03)
    nll = -float(prediction.log_prob_per_output[there].mean())
    assert metrics.nll == pytest.approx(nll, abs=0.03)
    joint = -float(prediction.log_prob_joint.sum() / there.sum())
    assert metrics.joint_nll == pytest.approx(joint, abs=0.1)
    low, high = draws.quantile(0.05, 0), draws.quantile(0.95, 0)
    inside = ((low <= target) & (target <= high)).double().mean()
    assert metrics.coverage_90 == pytest.approx(float(inside), abs=0.05)
    assert (full.pit.isnan() == y.isnan()).all()
    assert full.layers["neurons"].kl.shape == (4,)


def test_the_energy_score_is_that_of_whole_sequences(gaps: Any) -> None:
    x, y = gaps[0][1:2], gaps[1][1:2]
    model = make()
    metrics = evaluate(model, NeuronGuide(model), x, y, num_samples=1500)
    draws = predict(model, NeuronGuide(model), x, num_samples=1500).draws[:, ~y.isnan()]
    between = torch.cdist(draws, draws).sum() / (2 * 1500 * 1499)
    expected = (draws - y[~y.isnan()]).norm(dim=-1).mean() - between
    assert metrics.energy_score == pytest.approx(float(expected), rel=0.03)


def test_nan_is_for_models_that_read_it(gaps: Any, options: Callable[..., Any]) -> None:
    x, y = gaps
    assert as_pair("train", gaps, missing_allowed=True)[0] is x
    with pytest.raises(InputError, match="x: expected finite values, got nan"):
        as_pair("train", gaps)
    rows = x[:, 0], y[:, 0, :1].nan_to_num()
    with pytest.raises(InputError, match="x: expected finite values, got nan"):
        fit(Regression(1), rows, rows, options=options())
    with pytest.raises(InputError, match="y: expected finite values, or NaN for what is missing"):
        fit(make(), gaps, (x, y.masked_fill(y > 0, math.inf)), options=options())
    with pytest.raises(InputError, match="y: expected finite values, got nan"):
        evaluate(Regression(1), NeuronGuide(Regression(1)), rows[0].nan_to_num(), y[:, 0, :1])


def test_hyperparameters_are_fitted_by_a_guide_of_their_own(
    gaps: Any, options: Callable[..., Any]
) -> None:
    x, y = gaps
    prior = AutoregressiveNormal(4, phi=dist.Uniform(0.0, 1.0), scale=dist.LogNormal(-1.0, 0.5))
    model = make(prior=prior)
    guide = NeuronGuide(model, others=AutoNormal(without_neurons(model)))
    data = (x[:30], y[:30]), (x[30:], y[30:])
    settings = options(max_steps=30, evaluate_every=15, learning_rate=3e-2)
    result = fit(model, *data, guide=guide, options=settings, progress=False)
    assert result.history[-1]["validation_nll"] < result.history[0]["validation_nll"]
    medians = guide.others.median()
    assert medians["neurons.prior.phi"].shape == (4,)
    fresh = torch.full((4,), 0.5)
    assert (medians["neurons.prior.phi"] - fresh).abs().max() > 0.02  # it has moved
    assert predict(model, guide, x, num_samples=3, batch_size=16).draws.shape == (3, 40, 12, 2)
