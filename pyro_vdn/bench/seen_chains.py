"""Chains that are seen in noise: the program of the evidence study, and how far a fit is off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Size, Tensor, nn
from torch.distributions import kl_divergence

from pyro_vdn.guides import NeuronGuide, StructuredPosterior
from pyro_vdn.infer.loss import SinglePassLoss
from pyro_vdn.infer.own_store import give_own_store
from pyro_vdn.nn import AutoregressiveNormal, NormalPosterior, VariationalNeurons
from pyro_vdn.nn.chain import GaussianChain
from pyro_vdn.testing import LinearGaussianChain

#: Where every fit starts: phi and scale, the same for all units.
START = 0.5


class SeenChains(PyroModule):
    r"""Neurons with memory, each seen in noise: `y_t ~ Normal(z_t, r^2)`, one output per unit.

    The posterior is structured and reads `y` itself, so it can be exact. Its potentials do not know
    which output belongs to which unit, nor the noise: they learn both.

    Args:
        num_units: Number of units.
        noise: `r`, where it starts or, not learned, stays.
        learn_noise: Whether `r` is learned.
        hyper: Whether `phi` and `s` are latent, with the hyper-priors `phi ~ Uniform(-1, 1)` and
            `s ~ LogNormal(-1, 1)`.

    Example:
        >>> SeenChains(2, noise=0.5)(torch.zeros(3, 10, 2).double()).shape
        torch.Size([3, 10, 2])
    """

    log_noise: Tensor

    def __init__(
        self, num_units: int, *, noise: float, learn_noise: bool = False, hyper: bool = False
    ) -> None:
        super().__init__()
        ends = torch.tensor([-1.0, 1.0]).double()
        phi = dist.Uniform(ends[0], ends[1]) if hyper else START
        scale = dist.LogNormal(ends[0], ends[1]) if hyper else START
        self.neurons = VariationalNeurons(
            num_units,
            num_units,
            prior=AutoregressiveNormal(num_units, phi=phi, scale=scale),
            posterior=StructuredPosterior(NormalPosterior("unit", initial_scale=1.0)),
        )
        log_noise = torch.full((num_units,), noise).log()
        if learn_noise:
            self.log_noise = nn.Parameter(log_noise)
        else:  # no parameter: Pyro lets every parameter that it meets require a gradient
            self.register_buffer("log_noise", log_noise)
        self.double()

    def forward(self, y: Tensor) -> Tensor:
        """Observe `y`, `(rows, time, units)`, given neurons that read it."""
        with self.memory.drawn(), pyro.plate("rows", y.shape[-3], dim=-3):
            z = self.neurons(y)
            time = pyro.plate("time", y.shape[-2], dim=-2)
            with time, pyro.plate("outputs", y.shape[-1], dim=-1):
                seen: Tensor = pyro.sample("y", dist.Normal(z, self.log_noise.exp()), obs=y)
        return seen

    @property
    def memory(self) -> AutoregressiveNormal:
        """The prior of the neurons."""
        prior = self.neurons.prior
        assert isinstance(prior, AutoregressiveNormal)
        return prior

    def prior(self, y: Tensor) -> GaussianChain:
        """Return the prior of series such as `y`, of batch shape `(rows, time, units)`."""
        chain: GaussianChain = self.memory(y)
        return chain.expand(Size(y.shape))

    def posterior(self, y: Tensor) -> GaussianChain:
        """Return the posterior given `y`, of batch shape `(rows, time, units)`."""
        chain: GaussianChain = self.neurons.posterior(y, self.prior(y))
        return chain

    def elbo(self, y: Tensor) -> Tensor:
        r"""Return the ELBO in closed form, without the noise of draws, a scalar.

        `E_q[log p(y | z)] = log Normal(y; E_q[z], r^2) - Var_q[z] / (2 r^2)`, less the KL.
        """
        q, noise = self.posterior(y), self.log_noise.exp()
        expected = dist.Normal(q.mean, noise).log_prob(y) - q.variance / (2 * noise.square())
        bound: Tensor = (expected - kl_divergence(q, self.prior(y))).sum()
        return bound

    def exact(self) -> LinearGaussianChain:
        """Return the same model with exact answers, at the present parameters."""
        coefficients, scale = self.memory.coefficients(), self.memory.innovation_scale()
        return LinearGaussianChain(
            coefficients.detach(), scale.detach(), self.log_noise.exp().detach()
        )


def fit_steps(
    model: nn.Module,
    guide: NeuronGuide,
    loss: SinglePassLoss,
    rows: Callable[[], Tensor],
    *,
    steps: int,
    rate: float,
) -> None:
    """Train with Adam, the learning rate falling to 0 along a cosine.

    Args:
        model: The Pyro program, called with what `rows` returns.
        guide: Its guide, whose own parameters are trained too.
        loss: The objective, per row of which the gradient is taken.
        rows: A function that returns the series of a step, `(rows, time, outputs)`.
        steps: Number of steps.
        rate: Learning rate at the start.
    """
    give_own_store(model, guide)  # else it would read what an earlier model left in Pyro's
    trained = [*model.parameters(), *guide.parameters()]
    optimizer = torch.optim.Adam(trained, lr=rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        y = rows()
        optimizer.zero_grad()
        value = loss.differentiable_loss(model, guide, y) / y.numel()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


@torch.no_grad()
def distance_to_exact(model: SeenChains, y: Tensor) -> dict[str, Any]:
    """Return how far a fit is from exact inference at its own parameters.

    Args:
        model: The fitted model.
        y: The series, `(rows, time, units)`.

    Returns:
        ``gap``, exact log evidence less ELBO, in nats per step of time and row; ``mean_error``, the
        root mean square error of smoothed means over their root mean square, of the worst unit;
        ``variance_error``, the largest relative error of a smoothed variance.
    """
    exact, q = model.exact(), model.posterior(y)
    smoothed = exact.smoothed(y)
    gap = exact.log_evidence(y).sum() - model.elbo(y)
    error = (q.mean - smoothed.mean).square().mean((0, 1)) / smoothed.mean.square().mean((0, 1))
    ratio = q.variance / smoothed.variance
    return {
        "gap": float(gap) / (y.shape[0] * y.shape[1]),
        "mean_error": float(error.sqrt().max()),
        "variance_error": float((ratio - 1).abs().max()),
    }
