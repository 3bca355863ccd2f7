"""Effect: one noise for all tokens of a sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.nn.normals import GainNormal, unexpanded
from pyro_vdn.nn.sites import Message, layer_of
from pyro_vdn.poutine.dropout import DroppedOut
from pyro_vdn.poutine.leaves import change_leaves, change_posterior, is_plain_normal
from pyro_vdn.poutine.messenger import NeuronMessenger, wrapped


class SharedNormal(dist.Normal):
    """Normals `loc + scale * eps` whose `eps` is the same along one dimension of the batch.

    Args:
        loc: Location, `(...)`.
        scale: Scale, `(...)`.
        dim: The dimension, counted from the right.
        is_gain: Whether each location takes `eps` with its own sign, as a `GainNormal` does.

    Example:
        >>> draw = SharedNormal(torch.zeros(2, 5, 3), torch.ones(3), dim=-2).rsample()
        >>> bool((draw == draw[:, :1]).all())
        True
    """

    def __init__(self, loc: Tensor, scale: Tensor, dim: int, *, is_gain: bool = False) -> None:
        super().__init__(loc, scale, validate_args=False)
        self.dim = dim
        self.is_gain = is_gain

    def with_scale(self, scale: Tensor) -> SharedNormal:
        """Return the same distribution with another scale, `(...)`."""
        return SharedNormal(self.loc, scale, self.dim, is_gain=self.is_gain)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> SharedNormal:
        """Return the same distribution over a larger batch."""
        batch_shape = torch.Size(batch_shape)
        loc, scale = (value.expand(batch_shape) for value in (self.loc, self.scale))
        return SharedNormal(loc, scale, self.dim, is_gain=self.is_gain)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Draw with a gradient to location and scale."""
        shape = _with_one(self._extended_shape(sample_shape), self.dim)
        noise = self.loc.new_empty(shape).normal_()
        # A scale that is the same along the dimension is multiplied there once.
        loc, scale = unexpanded(self.loc), unexpanded(self.scale)
        draw: Tensor = loc + (torch.copysign(scale, loc) if self.is_gain else scale) * noise
        return draw


class SharedDroppedOut(DroppedOut):
    """Dropout whose mask is the same along one dimension of the batch.

    Args:
        loc: The value to drop.
        p: Probability of dropping, in [0, 1).
        event_dim: Number of event dimensions of `loc`.
        dim: The dimension of the batch, counted from its right.

    Example:
        >>> draw = SharedDroppedOut(torch.ones(2, 5, 3), 0.5, 0, dim=-2).rsample()
        >>> bool((draw == draw[:, :1]).all())
        True
    """

    def __init__(self, loc: Tensor, p: float, event_dim: int, dim: int) -> None:
        super().__init__(loc, p, event_dim)
        self.dim = dim

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> SharedDroppedOut:
        """Return the same distribution over a larger batch."""
        loc = self.loc.expand(torch.Size(batch_shape) + self.event_shape)
        return SharedDroppedOut(loc, self.p, self.event_dim, self.dim)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Draw with a gradient to `loc`."""
        shape = _with_one(self._extended_shape(sample_shape), self.dim - self.event_dim)
        keep = self.loc.new_empty(shape).bernoulli_(1.0 - self.p) / (1.0 - self.p)
        return self.loc * keep


class ShareNoiseMessenger(NeuronMessenger):
    """Share the noise of posterior draws along a dimension; see `share_noise`.

    Args:
        dim: The dimension, counted from the right of the site's batch shape.

    Example:
        >>> ShareNoiseMessenger(-2).dim
        -2
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim > -2:
            raise InputError(
                "dim",
                expected="a dimension left of that of the units, -2 or less",
                got=str(dim),
                hint="dim=-2, where tokens or steps stand",
            )
        self.dim = dim

    def on_neuron(self, msg: Message) -> None:
        """Change the posterior, whether it is offered or already drawn from."""
        path = layer_of(msg["name"])
        change_posterior(msg, lambda posterior: self._shared(posterior, path))

    def _shared(self, posterior: dist.Distribution, path: str) -> dist.Distribution:
        def change(leaf: dist.Distribution, event_dim: int) -> dist.Distribution:
            if isinstance(leaf, DroppedOut):
                return SharedDroppedOut(leaf.loc, leaf.p, leaf.event_dim, self.dim)
            if isinstance(leaf, dist.Normal) and is_plain_normal(leaf):
                scale, dim = unexpanded(leaf.scale), self.dim - event_dim
                return SharedNormal(leaf.loc, scale, dim, is_gain=isinstance(leaf, GainNormal))
            raise InputError(
                f"shared noise of layer '{path}'",
                expected="a normal posterior, or dropout",
                got=f"a {type(leaf).__name__}",
                hint='NormalPosterior(...), and over time steps="parallel"',
            )

        return change_leaves(posterior, change)


def share_noise(model: Callable[..., Any] | None = None, dim: int = -2) -> Any:
    r"""Draw one noise per unit and sequence: `z_ti = mu_i(h_t) + sigma_i(h_t) eps_i` for all t.

    Every neuron keeps its posterior at each token; what changes is how tokens hang together: along
    a sequence a unit is high or low throughout, so that a draw is one coherent network for the
    sequence, and drawing costs next to nothing. With ``scale="relative"`` the noise is a gain,
    `z_ti = mu_i(h_t) (1 + a_i eps_i)`. The same holds of the masks of `dropout`, as in
    variational dropout for recurrent networks.

    The KL stays the sum over tokens, each by itself. It weighs the noise, but it is not the KL of
    the tokens jointly (which is infinite: all of them are functions of one noise), so that what is
    reported as evidence lower bound is none.

    Args:
        model: A Pyro program to wrap; without one, the effect is returned to be used in a ``with``
            statement. Other effects on the noise, such as `dropout`, stand inside of it.
        dim: The dimension of tokens or steps, counted from the right of the site's batch shape.

    Returns:
        The wrapped program, or the effect.

    Raises:
        InputError: For the dimension of the units, or a posterior that is neither normal nor
            dropout.

    Example:
        >>> import pyro
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> from pyro_vdn.poutine import PosteriorMessenger
        >>> layer = VariationalNeurons(3, 4)
        >>> with PosteriorMessenger():
        ...     z = share_noise(layer)(torch.ones(2, 5, 3))
        >>> bool((z == z[:, :1]).all())
        True

    Source:
        Gal, Ghahramani, *A Theoretically Grounded Application of Dropout in Recurrent Neural
        Networks*, NeurIPS 2016.
    """
    return wrapped(ShareNoiseMessenger(dim), model)


def _with_one(shape: torch.Size, dim: int) -> list[int]:
    """Return a shape with 1 in place of a dimension, where there is such a dimension."""
    sizes = list(shape)
    if len(sizes) >= -dim:
        sizes[dim] = 1
    return sizes
