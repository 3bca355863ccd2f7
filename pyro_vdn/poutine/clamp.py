"""Effect: intervene on chosen units."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal

import pyro.distributions as dist
import torch
from pyro.distributions import MaskedDistribution
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.nn.chain import GaussianChain
from pyro_vdn.nn.markov import marginal_mean
from pyro_vdn.nn.sites import POSTERIOR, PRIOR, Message, layer_of, step_of
from pyro_vdn.poutine.messenger import NeuronMessenger, change_distribution, wrapped

Hold = float | Tensor | Literal["prior", "mean"]
Holds = Mapping[int, Hold] | Hold


class Held(MaskedDistribution):
    """A distribution of which some units are held: they take another value and have no log density.

    Args:
        free: The distribution of the units that are not held.
        held: Boolean, `(num_units,)`: which units are held.
        values: The distribution of the units that are held, of the same shape as `free`.

    Example:
        >>> normal = dist.Normal(torch.zeros(2), torch.ones(2))
        >>> held = Held(normal, torch.tensor([True, False]), dist.Delta(torch.full((2,), 7.0)))
        >>> held.rsample()[0], held.variance
        (tensor(7.), tensor([0., 1.]))
    """

    def __init__(self, free: dist.Distribution, held: Tensor, values: dist.Distribution) -> None:
        super().__init__(free, ~held)
        self.values = values.expand(self.batch_shape)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> Held:
        """Return the same distribution over a larger batch."""
        batch_shape = torch.Size(batch_shape)
        free = self.base_dist.expand(batch_shape)
        return Held(free, ~self._mask.expand(batch_shape), self.values)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Draw all units, held ones from their own distribution.

        The free draw comes first: with the same seed it takes the noise of a draw without holds.
        """
        free = self.base_dist.rsample(sample_shape)
        return self._choose(self.values.rsample(sample_shape), free)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draw without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    @property
    def mean(self) -> Tensor:
        """Mean of all units."""
        return self._choose(self.values.mean, self.base_dist.mean)

    @property
    def variance(self) -> Tensor:
        """Variance of all units."""
        return self._choose(self.values.variance, self.base_dist.variance)

    def _choose(self, held: Tensor, free: Tensor) -> Tensor:
        mask = self._mask.reshape(self._mask.shape + (1,) * self.event_dim)
        return torch.where(mask, free, held)


def is_normal(distribution: dist.Distribution) -> bool:
    """Say whether every unit is normal, or held at a value, so that its moments tell all.

    A chain is, step by step: then the moments tell all about each step, not about several at once.
    """
    if isinstance(distribution, Held):
        return is_normal(distribution.base_dist) and is_normal(distribution.values)
    if isinstance(distribution, (dist.Independent, MaskedDistribution)):
        return is_normal(distribution.base_dist)
    return isinstance(distribution, (dist.Normal, dist.Delta, GaussianChain))


class ClampMessenger(NeuronMessenger):
    """Hold chosen units at values, at their posterior mean, or at draws from their prior.

    See `clamp`.

    Args:
        units: By layer path, what to hold: a mapping from unit index to a hold, or one hold for all
            units.

    Example:
        >>> ClampMessenger({"neurons": {3: 0.0}}).units["neurons"]
        {3: 0.0}
    """

    def __init__(self, units: Mapping[str, Holds]) -> None:
        super().__init__()
        self.units = units

    def named_layers(self) -> Iterable[str]:
        """Return the layers of which units are held."""
        return self.units

    def on_neuron(self, msg: Message) -> None:
        """Hold this layer's chosen units."""
        holds = self.units.get(layer_of(msg["name"]))
        if holds is None:
            return
        prior = msg["infer"].get(PRIOR, msg["fn"])
        mean = marginal_mean(msg["infer"][POSTERIOR]())
        event_dim = msg["fn"].event_dim
        num_units = msg["fn"].batch_shape[-1]
        for hold, units in _by_hold(holds, num_units):
            held = torch.zeros(num_units, dtype=torch.bool, device=mean.device)
            held[_checked(units, num_units, msg)] = True
            from_prior = isinstance(hold, str) and hold == "prior"
            values = (
                prior if from_prior else dist.Delta(_value(hold, mean, msg), event_dim=event_dim)
            )
            hold_units(msg, held, values)


def hold_units(msg: Message, held: Tensor, values: dist.Distribution) -> None:
    """Hold units of a layer, in whichever program its site runs.

    Args:
        msg: The message of a neuron's site, changed in place.
        held: Boolean, `(num_units,)`: which units are held.
        values: The distribution that held units are drawn from.
    """
    change_distribution(msg, partial(Held, held=held, values=values))


def clamp(model: Callable[..., Any] | None = None, units: Mapping[str, Holds] | None = None) -> Any:
    """Intervene on chosen units by holding them.

    They are held at values, at their posterior mean, or at draws from their prior. Held units pay
    no KL; the others are untouched.

    Args:
        model: A Pyro program to wrap; without one, the effect is returned to be used in a ``with``
            statement.
        units: By layer path, a mapping from unit index to a hold, or one hold for all units of the
            layer. A hold is a number, a tensor that broadcasts to `(..., num_units)`, ``"mean"`` or
            ``"prior"``.

    Returns:
        The wrapped program, or the effect.

    Raises:
        InputError: For a unit index outside the layer, an unknown word, or when no units are given.

    Example:
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> layer = VariationalNeurons(3, 4)
        >>> clamp(layer, {"": {1: 0.0, 2: "mean"}})(torch.ones(2, 3))[:, 1].tolist()
        [0.0, 0.0]
    """
    if not units:
        raise InputError(
            "units",
            expected="units by layer path",
            got=repr(units),
            hint='units={"neurons": {0: "mean"}}',
        )
    for holds in units.values():
        for hold in holds.values() if isinstance(holds, Mapping) else (holds,):
            if isinstance(hold, str) and hold not in ("prior", "mean"):
                raise InputError(
                    "units",
                    expected="a value, 'mean' or 'prior'",
                    got=repr(hold),
                    hint="units={...: 'mean'}",
                )
    return wrapped(ClampMessenger(units), model)


def _by_hold(holds: Holds, num_units: int) -> list[tuple[Hold, list[int]]]:
    """Group units by what they are held at, so that a whole layer costs one change."""
    if not isinstance(holds, Mapping):
        return [(holds, list(range(num_units)))]
    words: dict[str, list[int]] = {}
    others: list[tuple[Hold, list[int]]] = []
    for unit, hold in holds.items():
        if isinstance(hold, str):
            words.setdefault(hold, []).append(unit)
        else:
            others.append((hold, [unit]))
    return [*((word, units) for word, units in words.items()), *others]  # type: ignore[list-item]


def _checked(units: list[int], num_units: int, msg: Message) -> list[int]:
    for unit in units:
        if not 0 <= unit < num_units:
            raise InputError(
                f"clamp of layer '{layer_of(msg['name'])}'",
                expected=f"unit indices in 0 to {num_units - 1}",
                got=str(unit),
                hint="count units from 0",
            )
    return units


def _value(hold: Hold, mean: Tensor, msg: Message) -> Tensor:
    if isinstance(hold, str):
        return mean
    shape = hold.shape if isinstance(hold, Tensor) else ()
    if step_of(msg["name"]) is not None and len(shape) > 1 and shape[-2] > 1:
        raise InputError(
            f"clamp of layer '{layer_of(msg['name'])}'",
            expected="a value that is the same for all steps of a loop over time",
            got=f"one of shape {tuple(shape)}",
            hint='steps="parallel", which has all steps at one site',
        )
    return torch.as_tensor(hold, dtype=mean.dtype, device=mean.device).expand(mean.shape)
