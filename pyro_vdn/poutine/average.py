"""Effect: every layer passes on the average of several draws instead of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist

from pyro_vdn.nn.shapes import check_positive
from pyro_vdn.nn.sites import Message
from pyro_vdn.poutine.averaged import Averaged
from pyro_vdn.poutine.clamp import Held
from pyro_vdn.poutine.leaves import change_leaves, change_posterior
from pyro_vdn.poutine.messenger import NeuronMessenger, wrapped


class AverageMessenger(NeuronMessenger):
    """Put the average of several posterior draws in the place of one; see `average_draws`.

    Args:
        num_draws: Number of draws, at least 1.

    Example:
        >>> AverageMessenger(4).num_draws
        4
    """

    def __init__(self, num_draws: int) -> None:
        super().__init__()
        check_positive(num_draws=num_draws)
        self.num_draws = num_draws

    def on_neuron(self, msg: Message) -> None:
        """Change the posterior, whether it is offered or already drawn from."""
        change_posterior(msg, self._averaged)

    def _averaged(self, posterior: dist.Distribution) -> dist.Distribution:
        if isinstance(posterior, Held):  # what units are held at may be random too
            free, values = self._averaged(posterior.base_dist), posterior.values
            return Held(free, ~posterior._mask, Averaged(values, self.num_draws))
        return change_leaves(posterior, lambda leaf, _: Averaged(leaf, self.num_draws))


def average_draws(model: Callable[..., Any] | None = None, num_draws: int = 4) -> Any:
    r"""Draw every layer S times and pass on the average: `z = 1/S sum_s z_s`, layer by layer.

    This is how the sources combine samples: after each layer nothing is left of which draw was
    which, and of a normal posterior what is passed on is `Normal(mu, sigma^2 / S)`. Without this
    effect S particles keep their identity through all layers.

    The KL is that of one draw, as in the sources. That of what is passed on is larger, under a
    normal prior of scale s by `1/2 log S - 1/2 (1 - 1/S) sigma^2 / s^2` per unit, so that what
    `LocalELBO` and `TraceMeanField_ELBO` report as evidence lower bound is none where S > 1. The
    stock `Trace_ELBO` asks for the density of the average and so stays a bound.

    Args:
        model: A Pyro program to wrap; without one, the effect is returned to be used in a ``with``
            statement.
        num_draws: Number S of draws, at least 1.

    Returns:
        The wrapped program, or the effect.

    Raises:
        InputError: For a number of draws below 1, or where a loss that does not take the KL in
            closed form asks for the density of an average that is not normal.

    Example:
        >>> import torch
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> from pyro_vdn.poutine import PosteriorMessenger
        >>> _ = torch.manual_seed(0)
        >>> layer = VariationalNeurons(3, 4)
        >>> with PosteriorMessenger():
        ...     z = average_draws(layer, 100)(torch.zeros(5000, 3))
        >>> round(z.std(0).mean().item(), 2)  # a scale of 0.3 over the root of 100
        0.03

    Source:
        Ruffenach, *Variational Neurons in Transformers for Language Modeling*, arXiv:2603.28219.
    """
    return wrapped(AverageMessenger(num_draws), model)
