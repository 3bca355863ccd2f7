"""The neuron plate, and the check that an effect reached both sides of a two-pass loss."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyro
import torch
from pyro.poutine.replay_messenger import ReplayMessenger
from pyro.poutine.runtime import _PYRO_STACK

from pyro_vdn.errors import OneSidedEffectError
from pyro_vdn.nn.sites import Message, is_neuron


class SiteEffects(NamedTuple):
    """What effects did to a neuron's site.

    Args:
        scale: Factor on the log density, a float or a tensor that broadcasts to the batch shape.
        mask: Mask on the log density, or None.
        silenced: Mask inside the distribution (`deterministic`, `dropout` and `clamp` set it), or
            None.

    Example:
        >>> SiteEffects(scale=1.0, mask=None, silenced=None).silenced is None
        True
    """

    scale: torch.Tensor | float
    mask: torch.Tensor | bool | None
    silenced: torch.Tensor | bool | None

    @classmethod
    def at(cls, msg: Message) -> SiteEffects:
        """Read the effects off a message whose processing is complete."""
        return cls(msg["scale"], msg["mask"], getattr(msg["fn"], "_mask", None))

    def difference(self, other: SiteEffects) -> str | None:
        """Name the first effect in which two sites differ, or None."""
        for name, mine, theirs in zip(self._fields, self, other, strict=True):
            if not _same(mine, theirs):
                return name
        return None


class NeuronDraws(dict[str, torch.Tensor]):
    """What a `NeuronGuide` returns: its draws by site name.

    With them come the effects seen at each neuron's site.

    Args:
        draws: Values by site name.
        effects: Effects by the site name of a neuron layer.

    Example:
        >>> NeuronDraws({"z": torch.zeros(2)}, effects={})["z"].shape
        torch.Size([2])
    """

    def __init__(self, draws: dict[str, torch.Tensor], *, effects: dict[str, SiteEffects]) -> None:
        super().__init__(draws)
        self.effects = effects


class NeuronPlate(pyro.plate):
    """The plate of a layer's units, at dim -1; it refuses effects on the model or guide alone.

    A stock loss runs the guide, then replays the model against the guide's trace. An effect that
    reached only one of the two, say a KL weight on the model alone, would silently give a wrong
    bound: here it raises.

    Args:
        name: Name of the plate.
        num_units: Number of units.

    Raises:
        OneSidedEffectError: Where scale, mask or silencing differ between guide and model.

    Example:
        >>> with NeuronPlate("neurons.units", 3):
        ...     pyro.sample("neurons.z", pyro.distributions.Normal(0.0, 1.0)).shape
        torch.Size([3])
    """

    def __init__(self, name: str, num_units: int) -> None:
        super().__init__(name, num_units, dim=-1)

    def _postprocess_message(self, msg: Message) -> None:
        super()._postprocess_message(msg)
        if is_neuron(msg):
            _refuse_one_sided(msg)


def _refuse_one_sided(msg: Message) -> None:
    guide = _guide_effects()
    if guide is None or msg["name"] not in guide:
        return
    differs = guide[msg["name"]].difference(SiteEffects.at(msg))
    if differs is not None:
        raise OneSidedEffectError(
            f"site '{msg['name']}': expected the same effects on model and guide, got a {differs} "
            "that only one of them has. Try: wrap the model once and hand the wrapped model to "
            "both, as in `model = kl_weight(model, 0.1); SVI(model, NeuronGuide(model), ...)`, use "
            "the effect as a context around the step, or use LocalELBO, which runs the model alone."
        )


def _guide_effects() -> dict[str, SiteEffects] | None:
    """Return the effects that a `NeuronGuide` saw, where the model is replayed against it."""
    for frame in _PYRO_STACK:
        if isinstance(frame, ReplayMessenger) and frame.trace is not None:
            returned = frame.trace.nodes.get("_RETURN", {}).get("value")
            if isinstance(returned, NeuronDraws):
                return returned.effects
    return None


def _same(mine: Any, theirs: Any) -> bool:
    if mine is theirs:
        return True
    if isinstance(mine, torch.Tensor) or isinstance(theirs, torch.Tensor):
        if mine is None or theirs is None:
            return False
        return bool((torch.as_tensor(mine) == torch.as_tensor(theirs)).all())
    return bool(mine == theirs)
