"""Effect: the MC-dropout twin of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.nn.markov import marginal_mean
from pyro_vdn.nn.sites import POSTERIOR, Message
from pyro_vdn.poutine.messenger import NeuronMessenger, change_distribution, wrapped


class DroppedOut(TorchDistribution):
    r"""The distribution of `loc * m / (1 - p)` with `m ~ Bernoulli(1 - p)`, without a log density.

    Args:
        loc: The value to drop, of shape `batch_shape + event_shape`.
        p: Probability of dropping, in [0, 1).
        event_dim: Number of event dimensions of `loc`.

    Example:
        >>> DroppedOut(torch.ones(1000), 0.5).rsample().unique()
        tensor([0., 2.])
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - torch's own name and type
    support = constraints.real
    has_rsample = True
    _mask = False  # its density is no part of any bound, as with `Distribution.mask(False)`

    def __init__(self, loc: Tensor, p: float, event_dim: int = 0) -> None:
        self.loc = loc
        self.p = p
        batch_dim = loc.dim() - event_dim
        super().__init__(loc.shape[:batch_dim], loc.shape[batch_dim:], validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> DroppedOut:
        """Return the same distribution over a larger batch."""
        batch_shape = torch.Size(batch_shape)
        return DroppedOut(self.loc.expand(batch_shape + self.event_shape), self.p, self.event_dim)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Draw with a gradient to `loc`."""
        loc = self.loc.expand(self._extended_shape(sample_shape))
        return loc * torch.empty_like(loc).bernoulli_(1.0 - self.p) / (1.0 - self.p)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return zeros of the batch's shape."""
        return value.new_zeros(value.shape[: value.dim() - self.event_dim])

    @property
    def mean(self) -> Tensor:
        """The value before dropping."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """`loc^2 p / (1 - p)`."""
        return self.loc.square() * self.p / (1.0 - self.p)


class DropoutMessenger(NeuronMessenger):
    """Drop the posterior means of neurons at random and silence their log density; see `dropout`.

    The probability may be changed between steps, as in annealing: ``effect.p = 0.3``.

    Args:
        p: Probability of dropping a unit, in [0, 1).

    Raises:
        InputError: For a probability outside [0, 1), also where it is set later.

    Example:
        >>> DropoutMessenger(0.2).p
        0.2
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    @property
    def p(self) -> float:
        """The probability, which may be changed between steps."""
        return self._p

    @p.setter
    def p(self, p: float) -> None:
        if not 0.0 <= p < 1.0:
            raise InputError(
                "p", expected="a probability in [0, 1)", got=repr(p), hint="p=0.1, as is usual"
            )
        self._p = p

    def on_neuron(self, msg: Message) -> None:
        """Put dropout in the place of prior and posterior."""
        posterior = msg["infer"][POSTERIOR]()
        dropped = DroppedOut(marginal_mean(posterior), self.p, posterior.event_dim)
        change_distribution(msg, lambda distribution: dropped.expand(distribution.batch_shape))


def dropout(model: Callable[..., Any] | None = None, p: float = 0.1) -> Any:
    r"""Turn a model into its MC-dropout twin.

    `z_i = mu_i(h) m_i / (1 - p)` with `m_i ~ Bernoulli(1 - p)`, and no KL.

    Args:
        model: A Pyro program to wrap; without one, the effect is returned to be used in a ``with``
            statement.
        p: Probability of dropping a unit, in [0, 1).

    Returns:
        The wrapped program, or the effect.

    Raises:
        InputError: For `p` outside [0, 1).

    Example:
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> layer = VariationalNeurons(3, 4)
        >>> dropout(layer, p=0.5)(torch.ones(2, 3)).shape
        torch.Size([2, 4])

    Source:
        Gal, Ghahramani, *Dropout as a Bayesian Approximation*, ICML 2016.
    """
    return wrapped(DropoutMessenger(p), model)
