"""Ridge regression against NumPy and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from pyro_vdn.bench.ridge import RidgeForecaster


@pytest.fixture
def rows() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(200, 6)
    return x, x[:, -1:] + 0.5 * torch.randn(200, 3)


@pytest.mark.parametrize("penalty", [1e-6, 10.0])
def test_weight_solves_the_penalised_least_squares(
    rows: tuple[torch.Tensor, torch.Tensor], penalty: float
) -> None:
    x, y = rows
    ridge = RidgeForecaster.fit(x, y, penalty=penalty)
    centred, target = (x - x[:, -1:]).numpy(), (y - x[:, -1:]).numpy()
    padded = np.vstack([centred, np.sqrt(penalty) * np.eye(6)])
    expected = np.linalg.lstsq(padded, np.vstack([target, np.zeros((6, 3))]), rcond=None)[0]
    np.testing.assert_allclose(ridge.weight.numpy(), expected, atol=1e-8)
    np.testing.assert_allclose(ridge.mean(x), centred @ expected + x[:, -1:].numpy(), atol=1e-8)


def test_joint_density_and_draws(rows: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = rows
    ridge = RidgeForecaster.fit(x, y)
    covariance = ridge.covariance.numpy()
    expected = [
        scipy.stats.multivariate_normal(mean, covariance).logpdf(target)
        for mean, target in zip(ridge.mean(x[:4]).numpy(), y[:4].numpy(), strict=True)
    ]
    np.testing.assert_allclose(ridge.log_prob_joint(x[:4], y[:4]), expected)
    draws = ridge.draw(x[:1], 40_000)[:, 0]
    np.testing.assert_allclose(torch.cov(draws.mT), covariance, atol=0.02)
    np.testing.assert_allclose(ridge.scale**2, covariance.diagonal())
