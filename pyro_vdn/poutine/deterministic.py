"""Effect: the point-valued twin of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist

from pyro_vdn.nn.sites import POSTERIOR, Message
from pyro_vdn.poutine.messenger import NeuronMessenger, change_distribution, wrapped


class DeterministicMessenger(NeuronMessenger):
    """Fix every neuron at the mean of its posterior and silence its log density.

    See `deterministic`.

    Example:
        >>> DeterministicMessenger() is not None
        True
    """

    def on_neuron(self, msg: Message) -> None:
        """Put a point mass without a log density in the place of prior and posterior."""
        posterior = msg["infer"][POSTERIOR]()
        point = dist.Delta(posterior.mean, event_dim=posterior.event_dim).mask(False)
        change_distribution(msg, lambda distribution: point.expand(distribution.batch_shape))


def deterministic(model: Callable[..., Any] | None = None) -> Any:
    """Turn a model into its deterministic twin: `z_i = mu_i(h)`, no KL, the same parameters.

    Args:
        model: A Pyro program to wrap; without one, the effect is returned to be used in a ``with``
            statement.

    Returns:
        The wrapped program, or the effect.

    Example:
        >>> import pyro, torch
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> layer = VariationalNeurons(3, 4)
        >>> twin, x = deterministic(layer), torch.ones(2, 3)
        >>> bool((twin(x) == layer.posterior(x).mean).all())
        True
    """
    return wrapped(DeterministicMessenger(), model)
