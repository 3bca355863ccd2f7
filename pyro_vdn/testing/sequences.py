"""A model of sequences whose neurons remember, and a slow signal for it to track."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_vdn.nn import AutoregressiveNormal, NormalPosterior, VariationalNeurons
from pyro_vdn.nn.neurons import Steps


class TrackingModel(PyroModule):
    """Neurons that read a sequence step by step, and a linear readout with known noise.

    Args:
        phi: Coefficients of the units, `(units,)`.
        scale: Their innovation scales, `(units,)`; by default such that every unit has variance 1.
        learn: Whether coefficients and scales are learned.
        prior: Another prior, in place of these.
        posterior: The posterior; by default `NormalPosterior()`.
        steps: How the layer runs over time.
        noise: Scale of the noise of the outcome.

    Example:
        >>> TrackingModel(torch.tensor([0.5, 0.9]))(torch.zeros(4, 10, 1)).shape
        torch.Size([4, 10, 1])
    """

    def __init__(
        self,
        phi: Tensor,
        scale: Tensor | None = None,
        *,
        learn: bool = False,
        prior: nn.Module | None = None,
        posterior: nn.Module | None = None,
        steps: Steps = "parallel",
        noise: float = 0.3,
    ) -> None:
        super().__init__()
        units = len(phi)
        if prior is None:
            prior = AutoregressiveNormal(units, phi=phi, scale=scale, learn=learn)
        posterior = NormalPosterior() if posterior is None else posterior
        self.neurons = VariationalNeurons(1, units, prior=prior, posterior=posterior, steps=steps)
        self.readout = nn.Linear(units, 1)
        self.noise = noise

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        """Read `x` of shape `(rows, time, 1)`; the outcome `y` is of the same shape."""
        with pyro.plate("rows", x.shape[-3], dim=-3):
            z = self.neurons(x)
            with pyro.plate("time", x.shape[-2], dim=-2):
                return pyro.sample("y", dist.Normal(self.readout(z), self.noise), obs=y)


def slow_signal(
    rows: int = 32, time: int = 50, *, phi: float = 0.98, noise: float = 0.3
) -> tuple[Tensor, Tensor]:
    """Draw a stationary autoregression of variance 1 per row, seen twice with noise.

    Args:
        rows: Number of sequences.
        time: Number of steps.
        phi: Its coefficient.
        noise: Scale of the noise of each sight.

    Returns:
        Inputs and outcomes, `(rows, time, 1)` each.

    Example:
        >>> x, y = slow_signal(4, 10)
        >>> x.shape, bool((x == y).any())
        (torch.Size([4, 10, 1]), False)
    """
    signal = [torch.randn(rows, 1)]
    for _ in range(time - 1):
        signal.append(phi * signal[-1] + (1 - phi**2) ** 0.5 * torch.randn(rows, 1))
    values = torch.stack(signal, 1)
    x, y = (values + noise * torch.randn_like(values) for _ in range(2))
    return x, y
