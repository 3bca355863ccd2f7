"""Effects: how much noise the neurons have, on an unchanged model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.nn.normals import GainNormal, ShiftedNormal, unexpanded
from pyro_vdn.nn.sites import Message, layer_of
from pyro_vdn.poutine.dropout import DroppedOut
from pyro_vdn.poutine.leaves import change_leaves, change_posterior, is_plain_normal
from pyro_vdn.poutine.messenger import NeuronMessenger, for_layer, wrapped
from pyro_vdn.poutine.share_noise import SharedNormal

Amount = float | Tensor


class NoiseMessenger(NeuronMessenger):
    """Change the scale of normal posteriors and leave location and prior alone.

    See `scale_noise` and `fix_noise`. The amount may be changed between steps, as in annealing:
    ``effect.amount = 0.3``.

    Args:
        amount: A number, a tensor that broadcasts to `(..., num_units)`, or a mapping of these by
            layer path.
        scale: From a scale and an amount to the new scale.

    Raises:
        InputError: For an amount that is negative or not finite, also where it is set later.

    Example:
        >>> NoiseMessenger(0.5, torch.mul).amount
        0.5
    """

    def __init__(
        self, amount: Amount | Mapping[str, Amount], scale: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.amount = amount
        self.scale = scale

    @property
    def amount(self) -> Amount | Mapping[str, Amount]:
        """The amount, which may be changed between steps."""
        return self._amount

    @amount.setter
    def amount(self, amount: Amount | Mapping[str, Amount]) -> None:
        for one in amount.values() if isinstance(amount, Mapping) else (amount,):
            _check(one)
        self._amount = amount

    def named_layers(self) -> Iterable[str]:
        """Return the layers that have amounts of their own."""
        return self.amount if isinstance(self.amount, Mapping) else ()

    def on_neuron(self, msg: Message) -> None:
        """Change the posterior, whether it is offered or already drawn from."""
        amount: Any = for_layer(self.amount, msg)
        if amount is None:
            return
        path = layer_of(msg["name"])
        change_posterior(msg, lambda posterior: self._changed(posterior, amount, path))

    def _changed(
        self, posterior: dist.Distribution, amount: Amount, path: str
    ) -> dist.Distribution:
        def change(leaf: dist.Distribution, event_dim: int) -> dist.Distribution:
            if isinstance(leaf, DroppedOut):  # it has no scale
                return leaf
            if not (isinstance(leaf, dist.Normal) and is_plain_normal(leaf)):
                raise InputError(
                    f"noise of layer '{path}'",
                    expected="a normal posterior",
                    got=f"a {type(leaf).__name__}",
                    hint="name the layers whose posterior is normal: {path: amount}, with "
                    'steps="parallel" over time',
                )
            # The scale as it was before `expand`: one per unit stays one per unit, and cheap.
            old = unexpanded(leaf.scale)
            scale = self.scale(old, _beside(amount, old, event_dim))
            if isinstance(leaf, SharedNormal):
                return leaf.with_scale(scale)
            kind = GainNormal if isinstance(leaf, GainNormal) else ShiftedNormal
            return kind(leaf.loc, scale, validate_args=False)

        return change_leaves(posterior, change)


def scale_noise(
    model: Callable[..., Any] | None = None, factor: Amount | Mapping[str, Amount] = 1.0
) -> Any:
    r"""Multiply the scale of every posterior: `z_i ~ Normal(mu_i(h), (a sigma_i(h))^2)`.

    The KL is that of the changed posterior. With a factor that rises over a run, from 0.01 for
    instance, noise is annealed; with one above 1 at evaluation, predictive draws spread more than
    those trained on.

    Args:
        model: A Pyro program to wrap; without one, the effect is returned to be used in a ``with``
            statement.
        factor: `a`, at least 0: a number, a tensor of shape `(num_units,)`, or a mapping from layer
            path to any of these (layers that are not named keep their scale). Where it is 0 the
            KL is infinite, and a loss that pays it has no gradient: `deterministic` is the effect
            for points.

    Returns:
        The wrapped program, or the effect.

    Raises:
        InputError: For a factor that is negative or not finite, or a posterior that is not normal.

    Example:
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> from pyro_vdn.poutine import PosteriorMessenger, record
        >>> layer = VariationalNeurons(3, 4)
        >>> with record() as seen, PosteriorMessenger():
        ...     _ = scale_noise(layer, 2.0)(torch.ones(5, 3))
        >>> seen[""].scale.mean
        tensor([0.6000, 0.6000, 0.6000, 0.6000])
    """
    return wrapped(NoiseMessenger(factor, _multiplied), model)


def fix_noise(
    model: Callable[..., Any] | None = None, scale: Amount | Mapping[str, Amount] = 0.1
) -> Any:
    r"""Fix the scale of every posterior: `z_i ~ Normal(mu_i(h), a^2)`, nothing to learn in it.

    Args:
        model: A Pyro program to wrap; without one, the effect is returned to be used in a ``with``
            statement.
        scale: `a`, at least 0, in the form of the factor of `scale_noise`.

    Returns:
        The wrapped program, or the effect.

    Raises:
        InputError: For a scale that is negative or not finite, or a posterior that is not normal.

    Example:
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> from pyro_vdn.poutine import PosteriorMessenger, record
        >>> layer = VariationalNeurons(3, 4)
        >>> with record() as seen, PosteriorMessenger():
        ...     _ = fix_noise(layer, 0.5)(torch.ones(5, 3))
        >>> seen[""].scale.mean
        tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    return wrapped(NoiseMessenger(scale, _fixed), model)


def _multiplied(scale: Tensor, amount: Tensor) -> Tensor:
    return scale * amount


def _fixed(scale: Tensor, amount: Tensor) -> Tensor:
    return amount


def _beside(amount: Amount, scale: Tensor, event_dim: int) -> Tensor:
    """Return an amount of a scale's dtype, its units where those of the scale are."""
    values = torch.as_tensor(amount, dtype=scale.dtype, device=scale.device)
    return values.reshape(values.shape + (1,) * event_dim) if values.dim() else values


def _check(amount: Amount) -> None:
    values = torch.as_tensor(amount)
    if not bool((torch.isfinite(values) & (values >= 0)).all()):
        raise InputError(
            "noise",
            expected="finite factors or scales of at least 0",
            got=str(amount),
            hint="scale_noise(model, 1.0) leaves it as it is",
        )
