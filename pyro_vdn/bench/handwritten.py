"""The layer of the speed benchmark, written by hand in good PyTorch without Pyro."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_vdn.nn.shapes import inverse_softplus


class HandWritten(nn.Module):
    """Encoder, stochastic layer and readout with the negative ELBO as its forward pass.

    Args:
        sizes: Sizes of input, hidden layer, stochastic layer and output.
        num_particles: Number of draws per step.

    Shape:
        `x` is `(rows, sizes[0])`, `y` is `(rows, sizes[3])`; returns the scalar loss.

    Example:
        >>> loss = HandWritten((6, 5, 4, 3), 2)(torch.zeros(8, 6), torch.zeros(8, 3))
        >>> loss.shape
        torch.Size([])
    """

    def __init__(self, sizes: tuple[int, int, int, int], num_particles: int = 1) -> None:
        super().__init__()
        self.num_particles = num_particles
        self.encode = nn.Linear(sizes[0], sizes[1])
        self.loc = nn.Linear(sizes[1], sizes[2])
        self.raw_scale = nn.Parameter(torch.full((sizes[2],), inverse_softplus(0.299)))
        self.readout = nn.Linear(sizes[2], sizes[3])
        self.raw_noise = nn.Parameter(torch.full((sizes[3],), inverse_softplus(0.999)))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the negative ELBO, summed over rows."""
        mu: Tensor = self.loc(torch.relu(self.encode(x)))
        sigma = 1e-3 + F.softplus(self.raw_scale)
        noise = 1e-3 + F.softplus(self.raw_noise)
        shape = mu.shape if self.num_particles == 1 else (self.num_particles, *mu.shape)
        z = mu + sigma * torch.randn(shape, dtype=mu.dtype, device=mu.device)
        residual = (y - self.readout(z)) / noise
        log_prob = -0.5 * residual.square() - noise.log() - 0.5 * math.log(2 * math.pi)
        kl = 0.5 * (mu.square() + sigma.square() - 1.0) - sigma.log()
        loss: Tensor = kl.sum() - log_prob.sum() / self.num_particles
        return loss
