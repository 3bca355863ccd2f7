"""A stack of neuron layers, its guide written out by hand, and the gradients of a loss on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.distributions import constraints
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn

from pyro_vdn.nn import NormalPosterior, VariationalNeurons
from pyro_vdn.nn.neurons import Pool
from pyro_vdn.nn.posteriors import ScaleMode


class NeuronStack(PyroModule):
    r"""Stacked neuron layers: `h_0 = E x`, `h_l = tanh(z_l)`, `y ~ Normal(W h_L + b, s^2)`.

    Args:
        num_features: Size of the input.
        num_units: Units of each layer.
        num_layers: Number of layers.
        num_outputs: Number of outputs.
        scale: Scale mode of the posteriors.
        latent_dim: Latent dimensions of each neuron.
        pool: How they leave their layer.
        make_prior: Makes the prior of each layer; default the standard normal.
        local_reconstruction: Whether layers reconstruct their input.

    Shape:
        `x` is `(..., rows, num_features)`, `y` is `(..., rows, num_outputs)`. Sites are
        ``layers.<l>.z`` and ``y``.

    Example:
        >>> NeuronStack(num_layers=2)(torch.zeros(5, 4)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        num_features: int = 4,
        num_units: int = 3,
        *,
        num_layers: int = 1,
        num_outputs: int = 2,
        scale: ScaleMode = "unit",
        latent_dim: int = 1,
        pool: Pool = "mean",
        make_prior: Callable[[], nn.Module] | None = None,
        local_reconstruction: bool = False,
    ) -> None:
        super().__init__()
        self.encode = nn.Linear(num_features, num_units)
        width = num_units * latent_dim if pool == "flatten" else num_units
        self.layers = nn.ModuleList(
            VariationalNeurons(
                width if layer else num_units,
                num_units,
                latent_dim=latent_dim,
                prior=None if make_prior is None else make_prior(),
                posterior=NormalPosterior(scale, rank=2),
                pool=pool,
                local_reconstruction=local_reconstruction,
            )
            for layer in range(num_layers)
        )
        self.readout = nn.Linear(width, num_outputs)
        self.noise = PyroParam(torch.tensor(0.7), constraint=constraints.positive)

    @property
    def neuron_layers(self) -> list[VariationalNeurons]:
        """The layers of neurons, from the input on."""
        return [layer for layer in self.layers if isinstance(layer, VariationalNeurons)]

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Sample or observe the outputs, `(..., rows, num_outputs)`."""
        with pyro.plate("data", x.shape[-2], dim=-2):
            h = self.encode(x)
            for layer in self.layers:
                h = torch.tanh(layer(h))
            outcome: Tensor = pyro.sample("y", dist.Normal(self.readout(h), self.noise), obs=y)
        return outcome


class NormalParameters(NamedTuple):
    """Location and scale of a normal.

    Args:
        loc: Location, `(..., num_units[, latent_dim])`.
        scale: Scale, of the same shape.

    Example:
        >>> NormalParameters(torch.zeros(2), torch.ones(2)).scale
        tensor([1., 1.])
    """

    loc: Tensor
    scale: Tensor


def posterior_by_hand(layer: VariationalNeurons, h: Tensor) -> NormalParameters:
    r"""Return `mu = W h + b` and `sigma = floor + softplus(raw(h))`, from a layer's parameters.

    Args:
        layer: A layer with a `NormalPosterior` of linear location.
        h: Its input, `(..., in_features)`.

    Returns:
        Location and scale, each `(..., num_units[, latent_dim])`.

    Example:
        >>> layer = VariationalNeurons(3, 4)
        >>> loc, scale = posterior_by_hand(layer, torch.ones(5, 3))
        >>> torch.allclose(loc, layer.posterior(torch.ones(5, 3)).mean)
        True
    """
    weights = dict(layer.posterior.named_parameters())
    units, k = layer.shape.num_units, layer.shape.latent_dim
    loc = h @ weights["loc.weight"].T + weights["loc.bias"]
    if "raw_scale.value" in weights:
        raw = weights["raw_scale.value"].reshape(-1)
    elif "raw_scale.weight" in weights:
        raw = h @ weights["raw_scale.weight"].T + weights["raw_scale.bias"]
    else:
        hidden = torch.tanh(h @ weights["raw_scale.0.weight"].T + weights["raw_scale.0.bias"])
        raw = hidden @ weights["raw_scale.2.weight"].T + weights["raw_scale.2.bias"]
    scale = (layer.posterior.min_scale + F.softplus(raw)).expand(loc.shape)  # type: ignore[operator]
    if k == 1:
        return NormalParameters(loc, scale)
    shape = (*loc.shape[:-1], units, k)  # (..., units * k) -> (..., units, k)
    return NormalParameters(loc.reshape(shape), scale.reshape(shape))


def hand_written_guide(model: NeuronStack) -> Callable[..., None]:
    """Return a guide for a `NeuronStack` that computes every posterior itself and takes no offer.

    Args:
        model: The stack whose parameters it reads.

    Returns:
        A function of the model's arguments.

    Example:
        >>> from pyro.infer import TraceMeanField_ELBO
        >>> model = NeuronStack()
        >>> x, y = torch.zeros(5, 4), torch.zeros(5, 2)
        >>> loss = TraceMeanField_ELBO().loss(model, hand_written_guide(model), x, y)
    """

    def guide(x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", x.shape[-2], dim=-2):
            h = model.encode(x)
            for index, layer in enumerate(model.neuron_layers):
                q = dist.Normal(*posterior_by_hand(layer, h)).to_event(layer.shape.latent_dim > 1)
                with pyro.plate(f"layers.{index}.units", layer.shape.num_units, dim=-1):
                    z = pyro.sample(f"layers.{index}.z", q)
                h = torch.tanh(pool_by_hand(layer, z))

    return guide


def pool_by_hand(layer: VariationalNeurons, z: Tensor) -> Tensor:
    """Return what leaves a layer for its latents.

    Args:
        layer: The layer.
        z: Its latents, `(..., num_units[, latent_dim])`.
    """
    k = layer.shape.latent_dim
    if k == 1:
        return z
    if layer.pool == "flatten":
        return torch.cat([z[..., unit, :] for unit in range(z.shape[-2])], -1)
    total = torch.stack([z[..., dim] for dim in range(k)]).sum(0)
    return total / k if layer.pool == "mean" else total


def randomise(module: nn.Module, *, spread: float = 0.3, seed: int = 7) -> None:
    """Move every parameter by normal noise, so that none sits at a special value.

    Args:
        module: The module whose parameters are changed in place.
        spread: Standard deviation of the noise.
        seed: Seed of the noise.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> nn.init.zeros_(layer.bias) is not None
        True
        >>> randomise(layer)
        >>> bool(layer.bias == 0)
        False
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(spread * noise / math.sqrt(max(parameter.dim(), 1)))


class LossAndGrads(NamedTuple):
    """A loss and its gradients.

    Args:
        loss: The loss.
        grads: Gradients by parameter name, each of its parameter's shape.

    Example:
        >>> LossAndGrads(1.0, {}).loss
        1.0
    """

    loss: float
    grads: dict[str, Tensor]


def loss_and_grads(
    loss: Any, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, of: nn.Module
) -> LossAndGrads:
    """Evaluate a loss from a fixed seed, and its gradients with respect to a module's parameters.

    Args:
        loss: A Pyro loss.
        model: The model, with whatever is wrapped around it.
        guide: The guide, likewise.
        *args: Arguments of both.
        of: The module whose gradients are wanted; its old gradients are dropped.

    Returns:
        The loss, and copies of the gradients by parameter name, zero where there is none.

    Example:
        >>> from pyro.infer import Trace_ELBO
        >>> model = NeuronStack()
        >>> x, y = torch.zeros(5, 4), torch.zeros(5, 2)
        >>> guide = hand_written_guide(model)
        >>> first, _ = loss_and_grads(Trace_ELBO(), model, guide, x, y, of=model)
        >>> again, _ = loss_and_grads(Trace_ELBO(), model, guide, x, y, of=model)
        >>> first == again
        True
    """
    pyro.set_rng_seed(0)
    of.zero_grad()
    value = float(loss.loss_and_grads(model, guide, *args))
    grads = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in of.named_parameters()
    }
    return LossAndGrads(value, grads)
