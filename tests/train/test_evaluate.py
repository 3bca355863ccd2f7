from __future__ import annotations

import math
from typing import Any

import pyro
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import Forecaster, Regression

from pyro_vdn.errors import InputError
from pyro_vdn.infer import log_density, predict
from pyro_vdn.poutine import deterministic, dropout
from pyro_vdn.train import count_parameters, evaluate, evaluate_fully, evaluate_pooled


@pytest.fixture
def rows() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(60, 3), torch.randn(60, 1)


def test_scores_agree_with_their_definitions(rows: Any) -> None:
    x, y = rows
    model = Regression(3)
    guide = NeuronGuide(model)
    metrics = evaluate(model, guide, x, y, num_samples=1000, batch_size=25)
    per_output, joint = log_density(model, guide, x, y)
    assert metrics.nll == pytest.approx(-float(per_output.mean()))
    assert metrics.joint_nll == pytest.approx(-float(joint.mean()))
    assert metrics.energy_score == pytest.approx(metrics.crps, rel=1e-6)
    assert 0 < metrics.crps < metrics.mae
    assert 0 < metrics.coverage_90 < 1
    assert metrics.seconds > 0


@pytest.mark.parametrize("batch_size", [1, 7, 60, 1000])
def test_batches_do_not_change_what_has_no_noise(batch_size: int, rows: Any) -> None:
    model = Regression(3)
    whole = evaluate(model, NeuronGuide(model), *rows, batch_size=60)
    parts = evaluate(model, NeuronGuide(model), *rows, batch_size=batch_size)
    for name in ("mse", "nll", "joint_nll", "kl_per_unit", "active_share", "parameters"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name)), name


def test_the_joint_score_is_per_output() -> None:
    model = Forecaster(12, 4, hidden=5, num_units=3, rank=2, kernel_size=3)
    x, y = torch.randn(9, 12), torch.randn(9, 4)
    guide = NeuronGuide(model)
    full = evaluate_fully(model, guide, x, y, num_samples=40)
    _, joint = log_density(model, guide, x, y)
    assert full.metrics.joint_nll == pytest.approx(-float(joint.mean()) / 4)
    assert full.pit.shape == (9, 4)
    assert full.layers["neurons"].kl.shape == (3,)


def test_the_twin_has_no_kl_and_no_scale_head(rows: Any) -> None:
    model = Forecaster(12, 4, hidden=5, num_units=3, rank=2, kernel_size=3)
    x, y = torch.randn(9, 12), torch.randn(9, 4)
    twin = deterministic(model)
    metrics = evaluate(twin, NeuronGuide(twin), x, y)
    assert metrics.kl_per_unit is None
    assert metrics.active_share is None
    head = sum(value.numel() for value in model.neurons.posterior.raw_scale.parameters())
    every = sum(value.numel() for value in model.parameters())
    assert metrics.parameters == every - head
    assert count_parameters(model, NeuronGuide(model), (x, y)) == every


def fitted(count: int) -> list[tuple[Any, Any]]:
    models = [Regression(3, num_units=4) for _ in range(count)]
    return [(model, NeuronGuide(model)) for model in models]


@pytest.mark.parametrize("batch_size", [17, 60])
def test_an_ensemble_is_the_mixture_of_its_members(batch_size: int, rows: Any) -> None:
    x, y = rows
    members = fitted(3)
    found = evaluate_pooled(members, x, y, num_samples=300, batch_size=batch_size)
    density = torch.stack([log_density(*one, x, y)[0].exp() for one in members]).mean(0)
    torch.testing.assert_close(found.rows["nll"], -density.log())
    forms = [predict(*one, x, num_samples=100).closed_form for one in members]
    mean = torch.stack([form.mean for form in forms if form is not None]).mean(0)
    assert found.metrics.mse == pytest.approx(float((mean - y).square().mean()))
    assert found.metrics.parameters == sum(evaluate(*one, x, y).parameters for one in members)
    assert found.metrics.kl_per_unit is None
    assert found.layers == {}
    draws = torch.cat([form.draws for form in forms if form is not None])
    assert found.metrics.crps == pytest.approx(crps_of(draws, y), rel=0.1)


def crps_of(draws: torch.Tensor, y: torch.Tensor) -> float:
    spread = (draws[:, None] - draws[None]).abs().sum((0, 1)) / (len(draws) * (len(draws) - 1))
    return float(((draws - y).abs().mean(0) - spread / 2).mean())


def test_one_member_is_scored_as_one_model(rows: Any) -> None:
    (one,) = fitted(1)
    scores = []
    for score in (lambda: evaluate_fully(*one, *rows), lambda: evaluate_pooled([one], *rows)):
        pyro.set_rng_seed(1)
        scores.append(score())
    first, second = (score.metrics.to_dict() | {"seconds": 0.0} for score in scores)
    assert first == second
    assert scores[1].layers.keys() == {"neurons"}


def test_members_with_and_without_a_closed_form_are_pooled(rows: Any) -> None:
    x, y = rows
    (model, guide), (other, _) = fitted(2)
    dropped = dropout(other, 0.0)  # draws that are all the same, of no closed form
    members = [(model, guide), (dropped, NeuronGuide(dropped))]
    twin = deterministic(other)
    parts = [log_density(model, guide, x, y)[0], log_density(twin, NeuronGuide(twin), x, y)[0]]
    expected = -torch.stack(parts).exp().mean(0).log()
    found = evaluate_pooled(members, x, y)
    torch.testing.assert_close(found.rows["nll"], expected)
    assert found.metrics.nll == pytest.approx(float(expected.mean()))


def test_an_ensemble_of_none_is_refused(rows: Any) -> None:
    with pytest.raises(InputError, match="fitted: expected at least one model, got none"):
        evaluate_pooled([], *rows)


def test_modes_and_gradients_are_left_as_they_were(rows: Any) -> None:
    model = Regression(3)
    model.encoder.eval()
    evaluate(model, NeuronGuide(model), *rows)
    assert model.training
    assert not model.encoder.training
    assert all(value.grad is None for value in model.parameters())


def test_a_second_instance_is_scored_with_its_own_parameters(rows: Any) -> None:
    first, second = Regression(3), Regression(3)
    alone = evaluate(second, NeuronGuide(second), *rows)
    pyro.clear_param_store()
    one = evaluate(first, NeuronGuide(first), *rows)
    two = evaluate(second, NeuronGuide(second), *rows)
    assert two.nll == alone.nll != one.nll


def test_metrics_are_ready_for_json(rows: Any) -> None:
    model = Regression(3)
    values = evaluate(model, NeuronGuide(model), *rows).to_dict()
    assert values["parameters"] == 303
    assert all(value is None or math.isfinite(value) for value in values.values())


def test_bad_rows_are_refused(rows: Any) -> None:
    model = Regression(3)
    with pytest.raises(InputError, match="one number of rows"):
        evaluate(model, NeuronGuide(model), rows[0], rows[1][:5])
    with pytest.raises(InputError, match="num_samples"):
        evaluate(model, NeuronGuide(model), *rows, num_samples=0)
