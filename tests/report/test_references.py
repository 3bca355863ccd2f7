"""References without a network, against loops and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from pyro_vdn.report.references import (
    climatology,
    normal_scores,
    persistence,
    simple_references,
    token_references,
)
from pyro_vdn.train.problem import Problem, Source, load_problem
from pyro_vdn.train.recipes import RegressionRecipe


def test_scores_of_normal_predictions() -> None:
    loc, scale, y = torch.randn(30, 3), torch.rand(30, 3) + 0.1, torch.randn(30, 3)
    y[0, 1] = math.nan
    found = normal_scores(loc, scale, y)
    exact = -stats.norm(loc.numpy(), scale.numpy()).logpdf(y.numpy())
    np.testing.assert_allclose(found.nll, exact, rtol=1e-6)
    np.testing.assert_allclose(found.joint_nll, np.nansum(exact, axis=1), rtol=1e-6)
    np.testing.assert_allclose(
        found.pit, stats.norm(loc.numpy(), scale.numpy()).cdf(y.numpy()), atol=1e-12
    )
    assert found.mae == pytest.approx(float((loc - y).abs().nanmean()))
    assert found.crps.isnan().sum() == 1


def test_climatology_is_the_training_targets_by_channel(series: Problem) -> None:
    found = climatology(series)
    targets = series.train[1]
    for channel in range(2):
        own = targets[channel::2].double().numpy()  # windows hold both channels in turn
        rows = series.column == channel
        exact = -stats.norm(own.mean(), own.std()).logpdf(series.test[1][rows].numpy())
        np.testing.assert_allclose(found.nll[rows], exact, rtol=1e-4)


def test_persistence_keeps_the_last_value_with_errors_of_each_step(series: Problem) -> None:
    found = persistence(series)
    x, y = series.train
    row = int(torch.nonzero(series.column == 1)[3])
    last = float(series.test[0][row, -1])
    for step in (0, 5):
        errors = (y[1::2, step] - x[1::2, -1]).double()
        scale = float(errors.square().mean().sqrt())
        target = float(series.test[1][row, step])
        exact = -stats.norm(last, scale).logpdf(target)
        assert float(found.nll[row, step]) == pytest.approx(exact, rel=1e-4)
    assert float(found.crps[:, 0].mean()) < float(found.crps[:, 5].mean())


def test_which_references_there_are(series: Problem) -> None:
    assert list(simple_references(series)) == ["climatology", "persistence"]
    table = load_problem(Source("energy"), RegressionRecipe())
    (found,) = simple_references(table).values()
    assert found.mse == pytest.approx(1.0, abs=0.3)  # targets are in standard units


def test_token_references_against_counts() -> None:
    random = np.random.RandomState(0)
    text = torch.from_numpy(random.randint(0, 5, 300))
    blocks = text.unfold(0, 9, 1)
    train = blocks[:, :-1], blocks[:, 1:]
    x, y = torch.tensor([[0, 3]]), torch.tensor([[4, 1]])
    found = token_references(train, x, y, 6)
    before, after = train[0][:, 0].tolist(), train[1][:, 0].tolist()
    single = [(after.count(token) + 1) / (len(after) + 6) for token in range(6)]
    for at in range(2):
        first, second = int(x[0, at]), int(y[0, at])
        assert float(found["token frequencies"].nll[0, at]) == pytest.approx(
            -math.log(single[second])
        )
        pairs = [before.count(first)] + [
            sum(1 for pair in zip(before, after, strict=True) if pair == (first, token))
            for token in range(6)
        ]
        chance = (pairs[1 + second] + 0.6 * single[second]) / (pairs[0] + 0.6)
        assert float(found["pairs of tokens"].nll[0, at]) == pytest.approx(-math.log(chance))
        best = max(range(6), key=lambda token: pairs[1 + token] + 0.6 * single[token])
        assert found["pairs of tokens"].correct[0, at] == float(best == second)
    # A token that never came is improbable, not impossible.
    assert found["token frequencies"].nll.isfinite().all()
