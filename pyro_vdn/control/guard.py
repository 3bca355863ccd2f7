"""A floor and a ceiling for the scale of every unit, and a kick for dead ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_vdn.control.checks import check_order, check_range
from pyro_vdn.control.controller import Controller, Seen
from pyro_vdn.control.layers import Controlled
from pyro_vdn.errors import InputError
from pyro_vdn.nn import NormalPosterior


def guarded_scale(
    scale: Tensor, kl: Tensor, *, floor: float, ceiling: float, kick: float, dead: float
) -> Tensor:
    r"""Return the scales a guard wants: `sigma_i exp(kick)` for a dead unit, then clamped.

    Args:
        scale: Scales, `(num_units,)`.
        kl: KLs in nats, `(num_units,)`.
        floor: Least scale.
        ceiling: Largest scale.
        kick: Step of `log sigma_i` of a dead unit; negative makes it narrower than its prior.
        dead: KL below which a unit is dead.

    Returns:
        The scales wanted, `(num_units,)`.

    Example:
        >>> scale, kl = torch.tensor([0.01, 1.0, 9.0]), torch.tensor([4.0, 0.0, 40.0])
        >>> guarded_scale(scale, kl, floor=0.15, ceiling=5.0, kick=-0.1, dead=1e-4)
        tensor([0.1500, 0.9048, 5.0000])
    """
    kicked = torch.where(kl < dead, scale * math.exp(kick), scale)
    return kicked.clamp(floor, ceiling)


class ScaleGuard(Controller):
    r"""Keeps every unit's scale between a floor and a ceiling, and kicks dead units.

    After each act the scale of a unit lies within the guards, exactly for a scale per unit; for one
    that depends on the input it is the mean over rows that is moved. (A kick upward, as published,
    widens a posterior that has become its prior; a kick downward narrows it. Either way it pays KL
    again, so that a KL weight has something to act on.)

    Args:
        model: The model, or its layers by path.
        floor: Least scale, positive.
        ceiling: Largest scale.
        kick: Step of the log scale of a dead unit at every act.
        dead: KL in nats below which a unit is dead.
        every: Steps from one act to the next.
        momentum: Weight of a new observation in the running averages.

    Raises:
        InputError: For numbers outside their range, or a layer whose scale cannot be set.

    Example:
        >>> from pyro_vdn.models import Regression
        >>> guard = ScaleGuard(Regression(3), floor=0.15)

    Source:
        Ruffenach, *Exploring the Dimensions of a Variational Neuron*, arXiv:2603.13849 (2026).
    """

    def __init__(
        self,
        model: Controlled,
        *,
        floor: float = 0.15,
        ceiling: float = 5.0,
        kick: float = 0.02,
        dead: float = 1e-4,
        every: int = 10,
        momentum: float = 0.3,
    ) -> None:
        super().__init__(model, every=every, momentum=momentum)
        check_range("floor", floor, 0.0, above=True)
        check_order("floor", floor, "ceiling", ceiling)
        check_range("dead", dead, 0.0)
        check_range("kick", kick, -1.0, 1.0)
        self.floor, self.ceiling = floor, ceiling
        self.kick, self.dead = kick, dead
        self.posteriors = {}
        for path, layer in self.layers.items():
            posterior = layer.posterior
            if not isinstance(posterior, NormalPosterior):
                raise InputError(
                    f"layer '{path}'",
                    expected="a NormalPosterior, whose scale can be set",
                    got=type(posterior).__name__,
                    hint="a floor of its own inside the posterior",
                )
            if posterior.min_scale >= ceiling:
                raise InputError(
                    "ceiling",
                    expected=f"more than the floor {posterior.min_scale:g} built into layer "
                    f"'{path}'",
                    got=f"{ceiling:g}",
                    hint="ceiling=5.0, or a posterior with a smaller min_scale",
                )
            self.posteriors[path] = posterior

    def observe(self, seen: Seen) -> None:
        """Average each unit's KL, and keep its latest mean scale."""
        for path, record in self.records(seen):
            self.average("kl", path, record.kl.mean)
            self.average("scale", path, record.scale.mean, momentum=1.0)

    def change(self, path: str) -> None:
        """Bring the layer's scales within the guards."""
        kl, seen = self.recall("kl", path), self.recall("scale", path)
        if kl is None or seen is None:
            return
        posterior = self.posteriors[path]
        now = posterior.scale_of_units()
        scale = seen if now is None else now
        wanted = guarded_scale(
            scale,
            kl.reshape(kl.shape + (1,) * (scale.dim() - 1)),  # the latents of a unit share its KL
            floor=self.floor,
            ceiling=self.ceiling,
            kick=self.kick,
            dead=self.dead,
        )
        gain = (wanted / scale).nan_to_num(1.0)
        if bool((gain != 1).any()):
            posterior.multiply_scale_(gain, seen.nan_to_num(1.0))  # what is not known stays
