"""Several controllers as one."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import torch

from pyro_vdn.control.band_calibration import BandCalibration
from pyro_vdn.control.controller import Controller, Program, Seen
from pyro_vdn.control.energy_band import EnergyBand
from pyro_vdn.control.free_bits import FreeBits
from pyro_vdn.control.guard import ScaleGuard
from pyro_vdn.control.homeostat import Homeostat
from pyro_vdn.control.layers import scale_cost
from pyro_vdn.control.persistence_share import PersistenceShare
from pyro_vdn.control.projection import Projection
from pyro_vdn.control.thermostat import Thermostat
from pyro_vdn.errors import InputError
from pyro_vdn.nn import StandardNormal


class Composed(Controller):
    """Several controllers, each at its own pace; see `compose`.

    Args:
        controllers: The controllers, in the order in which they act.

    Example:
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3)
        >>> len(Composed(EnergyBand(model), ScaleGuard(model)).controllers)
        2
    """

    def __init__(self, *controllers: Controller) -> None:
        layers = {path: layer for one in controllers for path, layer in one.layers.items()}
        super().__init__(layers)
        self.controllers = controllers

    @property
    def due(self) -> bool:
        """Whether any controller wants to observe the step to come."""
        return any(one.due for one in self.controllers)

    def observe(self, seen: Seen) -> None:
        """Show a step to those controllers that want it."""
        for one in self.controllers:
            if one.due:
                one.observe(seen)

    def act(self) -> None:
        """Count a step and let every controller act, in order."""
        self.step += 1
        for one in self.controllers:
            one.act()

    def change(self, path: str) -> None:
        """Leave the layers to the controllers."""

    def wrap(self, model: Program) -> Program:
        """Return the model with the effects of all controllers, the first innermost."""
        for one in self.controllers:
            model = one.wrap(model)
        return model

    def to(self, device: torch.device | str) -> None:
        """Move all memories to a device."""
        for one in self.controllers:
            one.to(device)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all controllers, in order."""
        return {"step": self.step, "controllers": [one.state_dict() for one in self.controllers]}

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raise `InputError` for the state of other controllers, or of another order.

        Args:
            state: What `state_dict` returned.
        """
        states = state.get("controllers", ())
        if len(states) != len(self.controllers):
            raise InputError(
                "state",
                expected=f"the states of {len(self.controllers)} controllers",
                got=str(len(states)),
                hint="compose the controllers that the run was started with",
            )
        for one, own in zip(self.controllers, states, strict=True):
            one.check_state(own)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned, for the same controllers in the same order.

        Args:
            state: What `state_dict` returned.

        Raises:
            InputError: For the state of other controllers; then none is changed.
        """
        self.check_state(state)
        self.step = int(state["step"])
        for one, own in zip(self.controllers, state["controllers"], strict=True):
            one.load_state_dict(own)


def compose(*controllers: Controller) -> Composed:
    r"""Return several controllers as one.

    **Order.** All observe the same step, then act in the order given. Those that change parameters
    (`Homeostat` or `Projection`, then `ScaleGuard`) go best in this order, so that the guard has
    the last word. (It has over a scale per unit; of one that depends on the input it knows the mean
    from before the act. What a guard moves, nobody compensates.) The others change only weights of
    the loss and may stand anywhere.

    **Interaction.** KL weights multiply, so a `KLSchedule` scales what a `Thermostat` sets; give
    the thermostat a `warmup` as long as the schedule's, or its weights wind up meanwhile with no
    effect. Penalties add up. `BandCalibration` moves the bands of whoever it shares them with. An
    `EnergyBand` pulls by gradients toward the band to which a `Homeostat` or `Projection` pulls by
    hand: give both the same bands. A `PersistenceShare` weights the KL of layers with memory as a
    whole, and cannot share it with a `Thermostat`.

    Combinations that contradict each other are refused.

    Args:
        *controllers: The controllers, at least one.

    Returns:
        One controller.

    Raises:
        InputError: For two that do the same to a layer, or ranges that no unit with a standard
            normal prior can satisfy.

    Example:
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3, initial_scale=0.6)
        >>> living = compose(Thermostat(model, high=0.5), Homeostat(model, 0.3), ScaleGuard(model))
        >>> controlled = living.wrap(model)
    """
    if not controllers:
        raise InputError(
            "controllers",
            expected="at least one",
            got="none",
            hint="compose(Thermostat(model), ScaleGuard(model))",
        )
    flat = [
        part
        for one in controllers
        for part in (one.controllers if isinstance(one, Composed) else (one,))
    ]
    _refuse_two_hands(flat)
    for thermostat in flat:
        if isinstance(thermostat, Thermostat):
            for other in flat:
                _refuse_contradiction(thermostat, other)
    return Composed(*flat)


#: Controllers of which a layer can have but one.
_HANDS: tuple[tuple[str, tuple[type[Controller], ...]], ...] = (
    ("rescales the rows", (Homeostat, Projection)),
    ("regulates the KL weights", (Thermostat,)),
    ("penalises the energies", (EnergyBand,)),
    ("moves the band", (BandCalibration,)),
    ("frees the bits", (FreeBits,)),
    ("guards the scales", (ScaleGuard,)),
    ("holds the share of memory", (PersistenceShare,)),
)


def _refuse_two_hands(controllers: list[Controller]) -> None:
    for deed, kinds in _HANDS:
        for first, second in combinations([c for c in controllers if isinstance(c, kinds)], 2):
            shared = _shared(first, second)
            if shared:
                raise InputError(
                    "controllers",
                    expected=f"one controller that {deed} of layer '{shared[0]}'",
                    got=f"{type(first).__name__} and {type(second).__name__}",
                    hint="keep one of them: each would act on what the other has changed",
                )


def _shared(first: Controller, second: Controller) -> list[str]:
    return sorted(set(first.layers) & set(second.layers))


def _refuse_contradiction(thermostat: Thermostat, other: Controller) -> None:
    """Refuse ranges that no unit could satisfy together, and two aims for one weight."""
    for path in _shared(thermostat, other):
        if isinstance(other, PersistenceShare) and other.cost is None:
            raise InputError(
                "controllers",
                expected=f"one controller that regulates the KL weights of layer '{path}'",
                got="Thermostat and PersistenceShare, which would pull them two ways",
                hint="keep one of them, or hold the share of a penalty: PersistenceShare(model, "
                "autoregressive_cost(scale=0.3))",
            )
        layer = thermostat.layers[path]
        if not isinstance(layer.prior, StandardNormal):
            continue
        least, what = _least_kl(other, path, layer.shape.latent_dim)
        if least > thermostat.high:
            raise InputError(
                "controllers",
                expected=f"a thermostat with high of at least {least:.3g} nats at layer '{path}', "
                f"since {what} that much",
                got=f"high={thermostat.high:g}",
                hint=f"Thermostat(high={1.5 * least:.2g}), or change the {type(other).__name__}",
            )


def _least_kl(other: Controller, path: str, latent_dim: int) -> tuple[float, str]:
    """Return the least KL per unit, in nats, that a controller leaves room for, and why."""
    if isinstance(other, (EnergyBand, Homeostat, Projection)):
        low = float(other.bands[path].low.max())
        return latent_dim * low / 2, f"a unit at the lower bound {low:g} of its energy band costs"
    if isinstance(other, ScaleGuard):
        nearest = torch.tensor(1.0).clamp(other.floor, other.ceiling)
        cost = latent_dim * float(scale_cost(nearest))
        return cost, f"the scale {nearest.item():g} inside the guards costs"
    if isinstance(other, FreeBits):
        return other.bits, "the free bits are"
    return 0.0, ""
