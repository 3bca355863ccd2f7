"""What the effects of this library have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import pyro.distributions as dist
from pyro.poutine.messenger import Messenger
from typing_extensions import Self

from pyro_vdn.errors import InputError
from pyro_vdn.nn.sites import POSTERIOR, PRIOR, Message, is_neuron, layer_of

T = TypeVar("T")


class NeuronMessenger(Messenger):
    """An effect on the latent sites of neuron layers that are not observed.

    A subclass says what happens in `on_neuron`; all other sites pass untouched. One that names
    layers returns them from `named_layers`: naming a layer that does not run is an error.

    Example:
        >>> class Count(NeuronMessenger):
        ...     layers = 0
        ...     def on_neuron(self, msg):
        ...         self.layers += 1
        >>> import torch
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> with Count() as count:
        ...     _ = VariationalNeurons(3, 4)(torch.zeros(5, 3))
        >>> count.layers
        1
    """

    def __enter__(self) -> Self:
        self._ran: set[str] = set()
        entered: Self = super().__enter__()
        return entered

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        unknown = sorted(set(self.named_layers()) - self._ran)
        if unknown and exception[0] is None:
            raise InputError(
                type(self).__name__.removesuffix("Messenger"),
                expected=f"names of layers that run: {sorted(self._ran)}",
                got=repr(unknown[0]),
                hint="a layer is named by its attribute path, its site without the `.z`",
            )

    def named_layers(self) -> Iterable[str]:
        """Return the paths of the layers that the effect names."""
        return ()

    def _pyro_sample(self, msg: Message) -> None:
        if not is_neuron(msg):
            return
        self._ran.add(layer_of(msg["name"]))
        if not msg["is_observed"] or self.reaches_observed:
            self.on_neuron(msg)

    #: Whether the effect also changes neurons that are observed.
    reaches_observed = False

    def on_neuron(self, msg: Message) -> None:
        """Change the message of an unobserved neuron site in place."""
        raise NotImplementedError


def change_distribution(
    msg: Message, change: Callable[[dist.Distribution], dist.Distribution]
) -> None:
    """Apply `change` to the prior and to the posterior of a neuron's site.

    Both are changed, whichever is being drawn from: this is what keeps an effect's meaning in every
    program: guide, model, single pass.

    Args:
        msg: The message of the site, changed in place.
        change: From a distribution to the one that takes its place.
    """
    infer: dict[str, Any] = msg["infer"]
    offer = infer[POSTERIOR]
    infer[POSTERIOR] = lambda: change(offer())
    if PRIOR in infer:
        infer[PRIOR] = change(infer[PRIOR])
    msg["fn"] = change(msg["fn"])


def for_layer(values: Mapping[str, T] | T, msg: Message) -> T | None:
    """Return the value meant for a message's layer: one for all, or looked up by layer path.

    Args:
        values: One value, or values by layer path.
        msg: The message of a neuron's site.

    Returns:
        The value, or None where the mapping does not name the layer.
    """
    if isinstance(values, Mapping):
        found: T | None = values.get(layer_of(msg["name"]))
        return found
    return values


def wrapped(messenger: Messenger, model: Callable[..., Any] | None) -> Any:
    """Return the effect itself, to be used as a context, or the model wrapped in it.

    Args:
        messenger: The effect.
        model: A Pyro program to wrap, or None for the effect itself.

    Returns:
        The wrapped program, or the effect.

    Raises:
        InputError: For a model that cannot be called.
    """
    if model is None:
        return messenger
    if not callable(model):
        raise InputError(
            "model",
            expected="a callable Pyro program",
            got=repr(model),
            hint="pass the effect's own arguments by name or after the model",
        )
    return messenger(model)
