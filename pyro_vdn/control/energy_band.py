"""The energy band as a penalty in the loss."""

from __future__ import annotations

from functools import partial

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vdn.control.band import hinge
from pyro_vdn.control.banded import BandChoice, Banded
from pyro_vdn.control.checks import check_range
from pyro_vdn.control.controller import Program, Seen
from pyro_vdn.control.layers import Controlled
from pyro_vdn.nn.unit_measures import unit_energy
from pyro_vdn.poutine import penalize


class EnergyBand(Banded):
    r"""A penalty that holds each unit's energy in its band, as a factor at the neurons' site.

    Each row pays `weight * ramp * hinge_i` (`hinge`) for the energies of its batch; the ramp grows
    linearly to 1. While more than `crowd` of a layer's units lie below their band, being above
    counts less: there a few loud units are no harm yet.

    ``wrap(model)`` puts the penalty into the loss. To `observe` is needed for the crowd alone, and
    to `act` for the ramp, which counts steps.

    Args:
        model: The model, or its layers by path.
        band: Bands by layer path, a function from the number of units to a band, one band, the
            target of a homogeneous band, or a controller whose bands are shared.
        weight: Weight of the penalty in nats per row.
        relative: Whether distances count relative to the bound.
        low_weight: Factor on being below.
        high_weight: Factor on being above.
        ramp: Steps until the penalty has its full weight.
        crowd: Share of units below band above which `crowd_high_weight` applies.
        crowd_high_weight: Factor on being above meanwhile.
        every: Steps from one look at the crowd to the next.

    Raises:
        InputError: For a number outside its range, or a band that does not fit its layer.

    Example:
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3)
        >>> penalised = EnergyBand(model, 0.1, weight=1.2).wrap(model)

    Source:
        Ruffenach, *Exploring the Dimensions of a Variational Neuron*, arXiv:2603.13849 (2026).
    """

    def __init__(
        self,
        model: Controlled,
        band: BandChoice = 0.1,
        *,
        weight: float = 1.2,
        relative: bool = True,
        low_weight: float = 1.0,
        high_weight: float = 1.0,
        ramp: int = 0,
        crowd: float = 0.35,
        crowd_high_weight: float = 0.25,
        every: int = 10,
    ) -> None:
        super().__init__(model, band, every=every)
        weights = {
            "weight": weight,
            "low_weight": low_weight,
            "high_weight": high_weight,
            "crowd_high_weight": crowd_high_weight,
            "ramp": ramp,
        }
        for name, value in weights.items():
            check_range(name, value, 0.0)
        check_range("crowd", crowd, 0.0, 1.0)
        self.weight, self.relative, self.ramp = weight, relative, ramp
        self.low_weight, self.high_weight = low_weight, high_weight
        self.crowd, self.crowd_high_weight = crowd, crowd_high_weight
        self.memory = {
            "high_weight": {
                path: torch.full_like(one.low[:1], high_weight) for path, one in self.bands.items()
            }
        }

    def cost(self, path: str, posterior: dist.Distribution, prior: dist.Distribution) -> Tensor:
        """Return the penalty per unit of a batch, `(num_units,)`.

        Args:
            path: Path of the layer.
            posterior: Its posterior.
            prior: Its prior, which has no part in it.
        """
        ramp = 1.0 if self.ramp == 0 else min(1.0, self.step / self.ramp)
        distance = hinge(
            unit_energy(posterior),
            self.bands[path],
            relative=self.relative,
            low_weight=self.low_weight,
            high_weight=self.memory["high_weight"][path],
        )
        return self.weight * ramp * distance

    def observe(self, seen: Seen) -> None:
        """Look at each layer's energies."""
        for path, record in self.records(seen):
            self.average("mu2", path, record.energy.mean)

    def change(self, path: str) -> None:
        """Let being above count less while a layer's units crowd below their band."""
        energy = self.recall("mu2", path)
        if energy is not None:
            known = energy.isfinite()
            below = (energy < self.bands[path].low)[known].double().mean()
            crowded = bool(below > self.crowd)
            factor = self.crowd_high_weight if crowded else 1.0
            self.memory["high_weight"][path].fill_(self.high_weight * factor)

    def wrap(self, model: Program) -> Program:
        """Return the model with the penalty at its neurons' sites, ``<path>.band``."""
        costs = {path: partial(self.cost, path) for path in self.layers}
        wrapped: Program = penalize(model, costs, name="band")
        return wrapped
