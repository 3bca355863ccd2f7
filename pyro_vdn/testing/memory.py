"""A model of neurons with memory, and one noise for all ways of running it."""

from __future__ import annotations

import re
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyro_vdn.nn import AutoregressiveNormal, GaussianChain, VariationalNeurons
from pyro_vdn.nn.neurons import Steps
from pyro_vdn.poutine import Held


class MemoryNet(PyroModule):
    r"""Neurons with memory, observed: `h_t = E x_t`, `y_t ~ Normal(W tanh(z_t) + b, 0.5^2)`.

    Args:
        prior: The prior of the neurons.
        posterior: Their posterior; default `NormalPosterior()`.
        steps: How they run over time.
        num_features: Size of the input.
        local_reconstruction: Whether they reconstruct their input.

    Shape:
        `x` is `(rows, time, num_features)`, `y` is `(rows, time, 2)`, `mask` is `(rows, time)`:
        which steps are there, input and output both. Sites are ``neurons.z`` (or ``neurons.z_0``,
        ...) and ``y``.

    Example:
        >>> model = MemoryNet(AutoregressiveNormal(4))
        >>> model(torch.zeros(5, 10, 3)).shape
        torch.Size([5, 10, 2])
    """

    def __init__(
        self,
        prior: nn.Module,
        posterior: nn.Module | None = None,
        *,
        steps: Steps = "parallel",
        num_features: int = 3,
        num_units: int = 4,
        local_reconstruction: bool = False,
    ) -> None:
        super().__init__()
        self.encode = nn.Linear(num_features, num_features)
        self.neurons = VariationalNeurons(
            num_features,
            num_units,
            prior=prior,
            posterior=posterior,
            steps=steps,
            local_reconstruction=local_reconstruction,
        )
        self.readout = nn.Linear(num_units, 2)

    def forward(self, x: Tensor, y: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Sample or observe the outputs, `(rows, time, 2)`."""
        prior = self.neurons.prior
        assert isinstance(prior, AutoregressiveNormal)
        there = True if mask is None else mask.unsqueeze(-1)
        with prior.drawn(), pyro.plate("rows", x.shape[-3], dim=-3):
            z = self.neurons(self.encode(x), mask)
            with pyro.plate("time", x.shape[-2], dim=-2), pyro.poutine.mask(mask=there):
                outcome: Tensor = pyro.sample(
                    "y", dist.Normal(self.readout(torch.tanh(z)), 0.5), obs=y
                )
        return outcome


class FixedNoise(Messenger):
    """Draw the neurons of every program from one noise, whether step by step or all at once.

    Draws are reparameterised: `z_t = sum_k a_k z_{t-k} + b_t + c_t eps_t`, here by a loop.

    Args:
        noise: `eps`, `(..., time, units)`.

    Example:
        >>> model = MemoryNet(AutoregressiveNormal(4, phi=0.5, scale=1.0))
        >>> with FixedNoise(torch.ones(5, 2, 4)), pyro.poutine.trace() as seen:
        ...     _ = model(torch.zeros(5, 2, 3))
        >>> z = seen.trace.nodes["neurons.z"]["value"].detach()
        >>> torch.allclose(z[:, 1], 1 + 0.5 * z[:, 0])
        True
    """

    def __init__(self, noise: Tensor) -> None:
        super().__init__()
        self.noise = noise

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        found = re.fullmatch(r"neurons\.z(?:_(\d+))?", msg["name"])
        if found is None or msg["is_observed"] or msg["value"] is not None:
            return
        step = found.group(1)
        noise = self.noise if step is None else self.noise[..., int(step) : int(step) + 1, :]
        msg["value"], msg["done"] = _drawn(msg["fn"], noise), True


def _drawn(distribution: dist.Distribution, noise: Tensor) -> Tensor:
    if isinstance(distribution, Held):
        free, held = _drawn(distribution.base_dist, noise), _drawn(distribution.values, noise)
        return torch.where(distribution._mask, free, held)
    if isinstance(distribution, GaussianChain):
        return _drawn_chain(distribution, noise)
    normal = isinstance(distribution, dist.Normal)
    value: Tensor = distribution.mean + (distribution.scale * noise if normal else 0.0)
    return value


def _drawn_chain(chain: GaussianChain, noise: Tensor) -> Tensor:
    shape = torch.broadcast_shapes(noise.shape, chain.batch_shape)  # type: ignore[no-untyped-call]
    a = chain.coefficients.expand(*shape, chain.order)
    shocks = chain.offset + chain.scale * noise
    values: list[Tensor] = []
    for time in range(shape[-2]):
        value = shocks.expand(shape)[..., time, :]
        for lag, earlier in enumerate(values[: -chain.order - 1 : -1]):
            value = value + a[..., time, :, lag] * earlier
        values.append(value)
    return torch.stack(values, -2)
