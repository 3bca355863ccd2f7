"""The layers of neurons that a controller acts on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import pyro.poutine
import torch
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.nn import VariationalNeurons
from pyro_vdn.poutine.clamp import is_normal

#: A Pyro program that is a module, bare or wrapped in effects; or its layers by attribute path.
Controlled: TypeAlias = Callable[..., Any] | Mapping[str, VariationalNeurons]


def neuron_layers(model: Controlled) -> dict[str, VariationalNeurons]:
    """Return the layers of neurons of a model by attribute path, as `record` names them.

    Args:
        model: A Pyro program that is a module, bare or wrapped in effects; or a mapping from path
            to layer, for a program that is a plain function.

    Returns:
        The layers.

    Raises:
        InputError: For a model without layers of neurons.

    Example:
        >>> from pyro_vdn.models import Regression
        >>> list(neuron_layers(Regression(3)))
        ['neurons']
    """
    if isinstance(model, Mapping):
        layers = {path: _checked(path, layer) for path, layer in model.items()}
    else:
        module = pyro.poutine.unwrap(model)
        parts = module.named_modules() if isinstance(module, nn.Module) else ()
        layers = {path: part for path, part in parts if isinstance(part, VariationalNeurons)}
    if not layers:
        raise InputError(
            "model",
            expected="a module with layers of VariationalNeurons",
            got=f"{type(model).__name__} without any",
            hint='a mapping from path to layer, {"neurons": layer}, for a plain function',
        )
    return layers


def _checked(path: str, layer: Any) -> VariationalNeurons:
    if isinstance(layer, VariationalNeurons):
        return layer
    raise InputError(
        f"layer '{path}'",
        expected="VariationalNeurons",
        got=type(layer).__name__,
        hint="neuron_layers(model), or name those you mean",
    )


def like_layer(layer: VariationalNeurons) -> Tensor:
    """Return a tensor with the dtype and on the device of a layer.

    Args:
        layer: A layer of neurons.
    """
    return next(iter(layer.parameters()), torch.zeros(())).detach()


def initial_scale_cost(layer: VariationalNeurons) -> tuple[float, float] | None:
    r"""Return the scale that a layer starts with and what it costs alone.

    `KL(Normal(m, s^2) || Normal(m, t^2)) = (r^2 - 1) / 2 - log r` with `r = s / t`, for the initial
    scale `s` of the posterior, the prior's scale `t` and k latent dimensions, k times that.

    Args:
        layer: A layer of neurons.

    Returns:
        The initial scale and its cost in nats, or None for a posterior without
        ``initial_scale`` or a prior that is not normal.

    Example:
        >>> layer = VariationalNeurons(3, 4)
        >>> scale, cost = initial_scale_cost(layer)
        >>> scale, round(cost, 3)
        (0.3, 0.749)
    """
    scale = getattr(layer.posterior, "initial_scale", None)
    if scale is None:
        return None
    with torch.no_grad():
        prior = layer.prior(like_layer(layer).new_zeros(1, layer.shape.in_features))
        if not is_normal(prior):
            return None
        cost = scale_cost(scale / prior.variance.sqrt())
    return scale, float(cost.mean()) * layer.shape.latent_dim


def scale_cost(ratio: Tensor) -> Tensor:
    """Return the KL of a scale alone, `(r^2 - 1) / 2 - log r`, for `r` times the prior's scale.

    Args:
        ratio: Posterior over prior scale, `(...)`.

    Returns:
        The cost in nats, `(...)`.

    Example:
        >>> round(scale_cost(torch.tensor(0.5)).item(), 3)
        0.318
    """
    return 0.5 * (ratio.square() - 1) - ratio.log()
