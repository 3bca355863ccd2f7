"""Effect: weight the KL of neurons, per layer or per unit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.nn.sites import KL_TERM, Message
from pyro_vdn.poutine.messenger import NeuronMessenger, for_layer, wrapped

Weight = float | Tensor


class KLWeightMessenger(NeuronMessenger):
    """Multiply the log densities of neurons, prior and posterior alike, by a weight.

    See `kl_weight`.

    Args:
        weight: A number, a tensor that broadcasts to `(..., num_units)`, or a mapping of these by
            layer path.

    Example:
        >>> KLWeightMessenger(0.5).weight
        0.5
    """

    def __init__(self, weight: Weight | Mapping[str, Weight]) -> None:
        super().__init__()
        for one in weight.values() if isinstance(weight, Mapping) else (weight,):
            _check(one)
        self.weight = weight

    # Also where the site is observed, so that weighting and conditioning commute.
    reaches_observed = True

    def named_layers(self) -> Iterable[str]:
        """Return the layers that have weights of their own."""
        return self.weight if isinstance(self.weight, Mapping) else ()

    def _pyro_sample(self, msg: Message) -> None:
        super()._pyro_sample(msg)
        if KL_TERM in msg["infer"]:
            self.on_neuron(msg)

    def on_neuron(self, msg: Message) -> None:
        """Scale the site, or the penalty that is part of its KL."""
        weight = for_layer(self.weight, msg)
        if weight is not None:
            msg["scale"] = weight * msg["scale"]


def kl_weight(
    model: Callable[..., Any] | None = None, weight: Weight | Mapping[str, Weight] = 1.0
) -> Any:
    r"""Weight the local KL: the objective becomes `E[log p(y | z)] - sum_i beta_i KL_i`.

    Args:
        model: A Pyro program to wrap; without one, the effect is returned to be used in a ``with``
            statement.
        weight: `beta`, at least 0: a number, a tensor of shape `(num_units,)` for a weight per
            unit, or `(time, 1)` for one per step of a layer on sequences, or a mapping from layer
            path to any of these (layers that are not named keep theirs).

    Returns:
        The wrapped program, or the effect.

    Raises:
        InputError: For a weight that is negative or not finite.

    Example:
        >>> import pyro
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> weighted = kl_weight(VariationalNeurons(3, 4), 0.1)
        >>> trace = pyro.poutine.trace(weighted).get_trace(torch.zeros(5, 3))
        >>> trace.nodes["z"]["scale"]
        0.1
    """
    return wrapped(KLWeightMessenger(weight), model)


def _check(weight: Weight) -> None:
    values = torch.as_tensor(weight)
    if not bool((torch.isfinite(values) & (values >= 0)).all()):
        raise InputError(
            "weight",
            expected="finite KL weights of at least 0",
            got=str(weight),
            hint="weight=0.0 removes the KL",
        )
