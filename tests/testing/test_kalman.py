"""The exact answers of linear-Gaussian chains against one dense normal over all steps."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_vdn.testing import LinearGaussianChain

PHI = torch.tensor([[0.7, -0.3, 0.2], [-0.5, 0.2, 0.1]], dtype=torch.float64)
SCALE = torch.tensor([0.8, 0.5], dtype=torch.float64)
TIME, ROWS = 6, 3


def make_chain(order: int, *, mixed: bool) -> LinearGaussianChain:
    loading = torch.tensor([[1.0, 0.5], [-0.4, 2.0], [0.3, 0.0]]) if mixed else None
    noise = torch.tensor([0.6, 0.3, 0.9])[: 3 if mixed else 2]
    return LinearGaussianChain(PHI[:, :order], SCALE, noise, loading=loading)


def autocovariances(phi: Tensor, scale: Tensor, lags: int) -> list[float]:
    """Autocovariances of an autoregression from its moving-average form, cut off far out."""
    weights = [1.0]
    for step in range(1, 2000):
        weights.append(sum(float(a) * weights[step - 1 - k] for k, a in enumerate(phi[:step])))
    psi = np.array(weights)
    return [float(scale) ** 2 * float(psi[: len(psi) - lag] @ psi[lag:]) for lag in range(lags)]


def latent_covariance(order: int) -> Tensor:
    """Covariance of all units and steps, the steps of a unit together."""
    blocks = []
    for phi, scale in zip(PHI[:, :order], SCALE, strict=True):
        known = autocovariances(phi, scale, TIME)
        blocks.append(torch.tensor([[known[abs(i - j)] for j in range(TIME)] for i in range(TIME)]))
    joint: Tensor = torch.block_diag(*blocks)
    return joint


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_agrees_with_a_dense_normal(order: int, mixed: bool, masked: bool) -> None:
    chain = make_chain(order, mixed=mixed)
    outputs = len(chain.noise)
    y = torch.randn(ROWS, TIME, outputs)
    mask = torch.rand(ROWS, TIME) > 0.3 if masked else None
    prior = latent_covariance(order)
    # Rows are steps, then outputs; columns are units, then steps.
    reads = torch.stack([torch.kron(chain.loading, step) for step in torch.eye(TIME)])
    reads = reads.reshape(TIME * outputs, -1)
    noise = chain.noise.square().repeat(TIME).diag()
    for row in range(ROWS):
        seen = torch.ones(TIME, dtype=torch.bool) if mask is None else mask[row]
        kept = seen.repeat_interleave(outputs)
        h, r, values = reads[kept], noise[kept][:, kept], y[row].reshape(-1)[kept]
        spread = h @ prior @ h.mT + r
        evidence = dist.MultivariateNormal(torch.zeros(len(values)), spread).log_prob(values)
        gain = torch.linalg.solve(spread, h @ prior).mT
        mean = (gain @ values).reshape(2, TIME).mT
        variance = (prior - gain @ h @ prior).diagonal().reshape(2, TIME).mT
        torch.testing.assert_close(chain.log_evidence(y, mask)[row], evidence)
        smoothed, filtered = chain.smoothed(y, mask), chain.filtered(y, mask)
        torch.testing.assert_close(smoothed.mean[row], mean)
        torch.testing.assert_close(smoothed.variance[row], variance)
        torch.testing.assert_close(filtered.mean[row, -1], mean[-1])
        torch.testing.assert_close(filtered.variance[row, -1], variance[-1])


def test_filtered_reads_no_later_step() -> None:
    chain = make_chain(2, mixed=True)
    y = torch.randn(TIME, 3)
    filtered, shorter = chain.filtered(y), chain.smoothed(y[:3])
    torch.testing.assert_close(filtered.mean[2], shorter.mean[2])
    torch.testing.assert_close(filtered.variance[2], shorter.variance[2])


def test_steps_that_are_masked_are_not_read() -> None:
    chain, y = make_chain(1, mixed=False), torch.randn(TIME, 2)
    mask = torch.tensor([True, False, True, True, False, True])
    gaps = torch.where(mask[:, None], y, torch.nan)
    torch.testing.assert_close(chain.log_evidence(gaps, mask), chain.log_evidence(y, mask))
    assert bool(chain.smoothed(gaps, mask).mean.isfinite().all())


@pytest.mark.parametrize("order", [1, 3])
def test_simulated_series_have_the_covariance_of_the_chain(order: int) -> None:
    chain, rows = make_chain(order, mixed=False), 40_000
    latent, observed = chain.sample(TIME, (rows,))
    assert latent.shape == observed.shape == (rows, TIME, 2)
    theory = latent_covariance(order)
    seen = torch.cov(latent.mT.flatten(1).mT)
    error = (theory.square() + theory.diagonal()[:, None] * theory.diagonal()).sqrt() / rows**0.5
    assert bool(((seen - theory).abs() < 5 * error).all())
    spread = (observed - latent).flatten(0, 1).std(0)
    torch.testing.assert_close(spread, chain.noise, rtol=0.02, atol=0.0)
