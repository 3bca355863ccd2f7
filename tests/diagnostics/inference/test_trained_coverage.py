"""A trained model's intervals against the true conditional distribution of simulated data."""

from __future__ import annotations

import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import Regression
from torch.distributions import Normal

from pyro_vdn.diagnostics import central_interval, coverage
from pyro_vdn.infer import LocalELBO, predict
from pyro_vdn.poutine import kl_weight

WEIGHT, NOISE = torch.tensor([[1.0], [-0.5], [0.3]]), 0.5


def test_intervals_hold_their_share_of_outcomes_and_of_the_true_distribution(double: None) -> None:
    weight = WEIGHT.double()
    x = torch.randn(2500, 3)
    y = x @ weight + NOISE * torch.randn(2500, 1)
    regression = Regression(3, num_units=8, likelihood="normal")
    model = kl_weight(regression, 0.01)  # in full, the KL costs more than the inputs tell
    guide, loss = NeuronGuide(model), LocalELBO(max_plate_nesting=2)
    optimizer = torch.optim.Adam(regression.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
    for _ in range(200):
        rows = torch.randint(0, 2000, (64,))
        optimizer.zero_grad()
        (loss.differentiable_loss(model, guide, x[rows], y[rows]) / 64).backward()
        optimizer.step()
        schedule.step()
    x, y = x[2000:], y[2000:]
    with torch.no_grad():
        draws = predict(model, guide, x, num_samples=399).draws
    truth = Normal(x @ weight, NOISE)
    for level in (0.5, 0.9):
        error = (level * (1 - level) / 500) ** 0.5
        assert float(coverage(draws, y, level)) == pytest.approx(level, abs=3 * error)
        low, high = central_interval(draws, level)
        held = float((truth.cdf(high) - truth.cdf(low)).mean())  # without the noise of outcomes
        assert held == pytest.approx(level, abs=0.06 if level == 0.5 else 0.03)
    # Intervals as wide as those of all outcomes together would hold their share too.
    assert float(draws.std(0).mean()) < 1.15 * NOISE < float(y.std())
