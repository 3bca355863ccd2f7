from __future__ import annotations

import numpy as np
import torch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import Regression

from pyro_vdn.decision import adaptive_draws
from pyro_vdn.infer import predict, sampler


def test_it_draws_the_predictive_of_the_rows_asked_for() -> None:
    model, x = Regression(2, num_units=3), 3 * torch.randn(6, 2)
    guide = NeuronGuide(model)
    rows = np.array([4, 1])
    draws = sampler(model, guide, x)(rows, 800)
    assert draws.shape == (800, 2, 1)
    expected = predict(model, guide, x[[4, 1]], num_samples=800)
    error = (2 * expected.variance / 800).sqrt()
    assert ((draws.mean(0) - expected.mean).abs() < 4 * error).all()
    assert torch.allclose(draws.var(0), expected.variance, rtol=0.3)


def test_every_call_is_fresh_and_the_seed_decides_all() -> None:
    model, x = Regression(2), torch.randn(3, 2)
    guide = NeuronGuide(model)
    model.train()
    state = torch.get_rng_state()
    one, again, other = (sampler(model, guide, x, seed=seed) for seed in (1, 1, 2))
    rows = np.arange(3)
    first, second = one(rows, 5), one(rows, 5)
    assert not torch.equal(first, second)
    assert torch.equal(again(rows, 5), first)
    assert torch.equal(again(rows, 5), second)
    assert not torch.equal(other(rows, 5), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training


def test_rows_of_a_model_get_the_draws_they_need() -> None:
    model, x = Regression(2), torch.randn(4, 2)
    guide = NeuronGuide(model)
    spread = predict(model, guide, x, num_samples=500).variance.sqrt().mean()
    found = adaptive_draws(sampler(model, guide, x), 4, tolerance=float(0.3 * spread))
    assert found.settled.all()
    assert found.estimate.shape == (4, 1)
    assert (found.draws > 32).all()
    assert (found.draws < 1024).all()
