"""Moments through an activation against quadrature."""

from __future__ import annotations

import math

import pytest
import scipy.integrate
import scipy.stats
import torch

from pyro_vdn.nn import LinearReadout, Moments, Units, relu_moments


def relu_moment(mu: float, sigma: float, power: int) -> float:
    density = scipy.stats.norm(mu, sigma).pdf
    upper = max(mu, 0.0) + 12 * sigma
    points = sorted({max(mu, 0.0), upper / 2})
    value, _ = scipy.integrate.quad(
        lambda z: z**power * density(z), 0, upper, points=points, epsabs=1e-13, limit=200
    )
    return float(value)


@pytest.mark.parametrize("sigma", [0.05, 1.0, 4.0])
@pytest.mark.parametrize("mu", [-2.0, -0.1, 0.0, 0.3, 5.0])
def test_relu_moments(mu: float, sigma: float) -> None:
    mean, variance = relu_moments(Moments(torch.tensor([mu]), torch.tensor([sigma**2])))
    expected = relu_moment(mu, sigma, 1)
    assert mean.item() == pytest.approx(expected, abs=1e-9)
    spread = relu_moment(mu, sigma, 2) - expected**2
    assert variance.item() == pytest.approx(spread, abs=1e-8)


@pytest.mark.parametrize("mu", [-3.0, 0.5])
def test_relu_of_a_held_unit(mu: float) -> None:
    leaf = torch.tensor([mu], requires_grad=True)
    mean, variance = relu_moments(Moments(leaf, torch.zeros(1)))
    (gradient,) = torch.autograd.grad(mean.sum(), leaf)
    assert mean.item() == pytest.approx(max(mu, 0.0))
    assert variance.item() == pytest.approx(0.0, abs=1e-12)
    assert gradient.item() == float(mu > 0)


@pytest.mark.parametrize("mu", [-1.0, 0.0, 2.0])
def test_relu_moments_have_gradients(mu: float) -> None:
    def total(mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        return torch.cat(relu_moments(Moments(mean, variance)))

    leaves = (torch.tensor([mu], requires_grad=True), torch.tensor([0.7], requires_grad=True))
    assert torch.autograd.gradcheck(total, leaves)


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1e3])
def test_relu_moments_stay_finite(scale: float) -> None:
    leaves = [torch.linspace(-50, 50, 11), torch.full((11,), scale)]
    leaves = [leaf.float().requires_grad_() for leaf in leaves]
    mean, variance = relu_moments(Moments(*leaves))
    gradients = torch.autograd.grad((mean + variance).sum(), leaves)
    assert all(torch.isfinite(value).all() for value in (mean, variance, *gradients))
    assert (variance >= 0).all()


@pytest.mark.parametrize("activation", ["identity", "relu"])
def test_readout_moments_are_those_of_draws(activation: str) -> None:
    readout = LinearReadout(4, 3, activation=activation)  # type: ignore[arg-type]
    mean, scale = torch.randn(4), 0.2 + torch.rand(4)
    with torch.no_grad():
        moments = readout.moments(Moments(mean, scale**2))
        draws = readout(mean + scale * torch.randn(100_000, 4))
    error = draws.std(0) / math.sqrt(100_000)
    assert ((draws.mean(0) - moments.loc).abs() < 5 * error).all()
    covariance = moments.factor @ moments.factor.mT
    torch.testing.assert_close(draws.T.cov(), covariance, rtol=0.05, atol=0.01)
    torch.testing.assert_close(moments.output_variance, covariance.diagonal())


def test_affine_moments() -> None:
    readout = LinearReadout(4, 3)
    moments = readout.moments(Moments(torch.randn(5, 4), torch.rand(5, 4)))
    shift, spread = torch.randn(5, 1), 0.5 + torch.rand(5, 1)
    moved = moments.affine(shift, spread)
    torch.testing.assert_close(moved.loc, Units(shift, spread).restore(moments.loc))
    torch.testing.assert_close(moved.output_variance, spread**2 * moments.output_variance)
    torch.testing.assert_close(moved.factor, spread.unsqueeze(-1) * moments.factor)
