"""A layer of neurons whose exact evidence and posterior are known."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_vdn.nn import Moments, NormalPosterior, VariationalNeurons


class ConjugateNeurons(PyroModule):
    r"""Linear-Gaussian neurons: `z ~ Normal(0, I)`, `y | z ~ Normal(W z + b, s^2 I)`.

    With orthogonal columns of `W` the exact posterior is independent over units and linear in `y`:
    precision `1 + |w_i|^2 / s^2` and mean `w_i^T (y - b) / (s^2 + |w_i|^2)`. A layer that reads `y`
    itself with a scale per unit can therefore be exact, and its ELBO meets the evidence
    `log Normal(y; b, W W^T + s^2 I)`. Only the posterior is learned.

    Args:
        weight: `W`, `(outputs, units)`, with orthogonal columns.
        bias: `b`, `(outputs,)`.
        noise: `s`, positive.

    Example:
        >>> model = ConjugateNeurons(torch.tensor([[1.0], [2.0]]), torch.zeros(2), 0.5)
        >>> model(torch.zeros(5, 2)).shape
        torch.Size([5, 2])

    Source:
        Tipping, Bishop, *Probabilistic Principal Component Analysis*, JRSS B 1999.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, noise: float) -> None:
        super().__init__()
        gram = weight.mT @ weight
        assert torch.allclose(gram, torch.diag(gram.diagonal()), atol=1e-6)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.noise = noise
        self.neurons = VariationalNeurons(*weight.shape, posterior=NormalPosterior("unit"))

    def forward(self, y: Tensor) -> Tensor:
        """Observe `y`, shape `(rows, outputs)`, given neurons that read it."""
        with pyro.plate("data", y.shape[-2], dim=-2):
            z = self.neurons(y)
            outcome = dist.Normal(z @ self.weight.mT + self.bias, self.noise)
            observed: Tensor = pyro.sample("y", outcome, obs=y)
        return observed

    def simulate(self, num_rows: int) -> Tensor:
        """Draw data from the model, `(num_rows, outputs)`."""
        units = self.weight.new_empty(num_rows, self.weight.shape[1]).normal_()
        noise = self.bias.new_empty(num_rows, len(self.bias)).normal_()
        return units @ self.weight.mT + self.bias + self.noise * noise

    def log_evidence(self, y: Tensor) -> Tensor:
        """Return the exact `log p(y)` of each row, `(rows,)`."""
        noise = self.noise**2 * torch.eye(len(self.bias)).to(self.weight)
        covariance = self.weight @ self.weight.mT + noise
        evidence: Tensor = dist.MultivariateNormal(self.bias, covariance).log_prob(y)
        return evidence

    def exact_posterior(self, y: Tensor) -> Moments:
        """Return the exact posterior mean, `(rows, units)`, and variance, `(units,)`."""
        squares = self.weight.square().sum(0)
        mean = (y - self.bias) @ self.weight / (self.noise**2 + squares)
        return Moments(mean, self.noise**2 / (self.noise**2 + squares))

    @torch.no_grad()
    def set_exact_(self) -> None:
        """Give the layer's posterior the parameters at which it is the exact one."""
        posterior = self.neurons.posterior
        assert isinstance(posterior, NormalPosterior)
        present = posterior.scale_of_units()
        assert isinstance(posterior.loc, nn.Linear)
        assert present is not None
        gain = self.weight / (self.noise**2 + self.weight.square().sum(0))
        posterior.loc.weight.copy_(gain.mT)
        posterior.loc.bias.copy_(-self.bias @ gain)
        scale = self.exact_posterior(self.bias).variance.sqrt()
        posterior.multiply_scale_(scale / present, scale)

    def elbo(self, y: Tensor) -> Tensor:
        r"""Return the ELBO of each row at the layer's present posterior, in closed form, `(rows,)`.

        `E_q[log p(y | z)] = log Normal(y; W mu + b, s^2) - sum_i |w_i|^2 sigma_i^2 / (2 s^2)`.
        """
        q = self.neurons.posterior(y)
        at_mean = dist.Normal(q.mean @ self.weight.mT + self.bias, self.noise).log_prob(y).sum(-1)
        spread = (q.variance * self.weight.square().sum(0)).sum(-1) / (2 * self.noise**2)
        kl = 0.5 * (q.mean.square() + q.variance - q.variance.log() - 1).sum(-1)
        bound: Tensor = at_mean - spread - kl
        return bound


def orthogonal_columns(num_rows: int, num_columns: int) -> Tensor:
    """Return a random `(num_rows, num_columns)` with orthogonal columns of lengths 1, 2, 3, ...

    Args:
        num_rows: Number of rows, at least that of columns.
        num_columns: Number of columns.

    Example:
        >>> w = orthogonal_columns(5, 2)
        >>> torch.allclose(w.mT @ w, torch.diag(torch.tensor([1.0, 4.0])), atol=1e-5)
        True
    """
    basis: Tensor = torch.linalg.qr(torch.randn(num_rows, num_columns)).Q
    return basis * torch.arange(1.0, num_columns + 1)
