"""Two units with memory under observations that are not normal: small enough for NUTS."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.nn import PyroModule
from torch import Size, Tensor, nn

from pyro_vdn.guides.markov import MarkovPosterior
from pyro_vdn.nn import AutoregressiveNormal, NormalPosterior, VariationalNeurons
from pyro_vdn.nn.chain import as_chain

PHI = (0.9, 0.7)
SCALE = (0.4, 0.7)
HIDDEN = 32
STUDENT_T = "Student-t"
COUNTS = "negative binomial"


def likelihood(kind: str, z: Tensor) -> TorchDistribution:
    """Return what is observed of units: each its own outcome.

    Args:
        kind: `STUDENT_T` for 4 degrees of freedom and scale 0.5, `COUNTS` for counts of mean
            `exp(0.5 + z)` and dispersion 5.
        z: The units, `(...)`.
    """
    if kind == STUDENT_T:
        return dist.StudentT(4.0, z, 0.5)
    return dist.NegativeBinomial(5.0, logits=0.5 + z - math.log(5.0))


class SmallChains(PyroModule):
    """Chains with fixed parameters, so that only the units are latent, and a posterior to judge.

    Args:
        kind: What is observed.
        posterior: The layer's posterior; it reads a small network of the observations.

    Example:
        >>> model = SmallChains(COUNTS, NormalPosterior("input"))
        >>> model(model.simulate(3, 24)).shape
        torch.Size([3, 24, 2])
    """

    def __init__(self, kind: str, posterior: NormalPosterior | MarkovPosterior) -> None:
        super().__init__()
        units = len(PHI)
        phi, scale = torch.tensor(PHI), torch.tensor(SCALE)
        prior = AutoregressiveNormal(units, phi=phi, scale=scale, learn=False)
        self.kind = kind
        self.encode = nn.Sequential(
            nn.Linear(units, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh()
        )
        self.neurons = VariationalNeurons(HIDDEN, units, prior=prior, posterior=posterior)
        self.double()

    def forward(self, y: Tensor) -> Tensor:
        """Observe `y`, `(rows, time, units)`, given units whose posterior reads it."""
        with pyro.plate("rows", y.shape[-3], dim=-3):
            z = self.neurons(self._features(y))
            time = pyro.plate("time", y.shape[-2], dim=-2)
            with time, pyro.plate("outputs", y.shape[-1], dim=-1):
                seen: Tensor = pyro.sample("y", likelihood(self.kind, z), obs=y)
        return seen

    def _features(self, y: Tensor) -> Tensor:
        features: Tensor = self.encode(y.log1p() if self.kind == COUNTS else y)
        return features

    @torch.no_grad()
    def simulate(self, rows: int, steps: int) -> Tensor:
        """Draw series from the model, `(rows, steps, units)`.

        Args:
            rows: Number of series.
            steps: Number of steps.
        """
        like = torch.zeros(rows, steps, len(PHI)).double()
        z = self.neurons.prior(like).expand(Size(like.shape)).sample()
        y: Tensor = likelihood(self.kind, z).sample()
        return y

    @torch.no_grad()
    def marginals(self, y: Tensor) -> dist.Normal:
        """Return the posterior's normal marginals, of batch shape `(rows, time, units)`.

        Args:
            y: The series.
        """
        h, posterior = self._features(y), self.neurons.posterior
        if isinstance(posterior, NormalPosterior):
            chain = as_chain(posterior(h))
        else:
            chain = posterior(h, self.neurons.prior(h).expand(Size(y.shape)))
        return dist.Normal(chain.mean, chain.variance.sqrt())
