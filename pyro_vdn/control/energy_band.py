"""The energy band as a penalty in the loss, and its calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vdn.control.band import Band, calibration_factor, hinge, homogeneous_band
from pyro_vdn.control.checks import check_range
from pyro_vdn.control.controller import Controller, Program, Seen
from pyro_vdn.control.layers import Controlled, like_layer
from pyro_vdn.errors import InputError
from pyro_vdn.nn import VariationalNeurons
from pyro_vdn.nn.unit_measures import unit_energy
from pyro_vdn.poutine import penalize

BandChoice = Mapping[str, Band] | Callable[[int], Band] | float


def bands_of(layers: Mapping[str, VariationalNeurons], band: BandChoice) -> dict[str, Band]:
    """Return a band for each layer, in the dtype and on the device of its parameters.

    Args:
        layers: Layers by path.
        band: Bands by path, a function from the number of units to a band, or the target of a
            homogeneous band.

    Returns:
        Bands by path.

    Raises:
        InputError: For a path without a band, or a band of another size than its layer.

    Example:
        >>> bands_of({"neurons": VariationalNeurons(3, 4)}, 0.1)["neurons"].target
        tensor([0.1000, 0.1000, 0.1000, 0.1000])
    """
    if isinstance(band, (int, float)):
        band = partial(homogeneous_band, target=float(band))
    if not (callable(band) or isinstance(band, Mapping)):
        raise InputError(
            "band",
            expected="bands by layer path, a function from the number of units, or a target",
            got=f"a {type(band).__name__}",
            hint=f'band={{"{next(iter(layers))}": homogeneous_band(num_units, 0.1)}}',
        )
    bands = {}
    for path, layer in layers.items():
        units = layer.shape.num_units
        one = check_band(path, band(units) if callable(band) else band.get(path), units)
        bands[path] = Band(*(part.to(like_layer(layer)) for part in one))
    return bands


def check_band(path: str, band: Band | None, num_units: int) -> Band:
    """Return a band, or raise `InputError` where it does not fit a layer.

    Args:
        path: Path of the layer.
        band: Its band, None where there is none.
        num_units: Number of its units.
    """
    if band is None:
        got = "none"
    elif any(part.shape != (num_units,) for part in band):
        got = f"shapes {[tuple(part.shape) for part in band]}"
    else:
        low, high, target = band
        fine = (low > 0) & (low <= target) & (target <= high) & (low < high) & high.isfinite()
        if bool(fine.all()):
            return band
        unit = int((~fine).nonzero()[0])
        got = f"{low[unit]:g}, {high[unit]:g} and {target[unit]:g} at unit {unit}"
    raise InputError(
        f"band of layer '{path}'",
        expected=f"low, high and target of shape ({num_units},), 0 < low <= target <= high",
        got=got,
        hint=f"homogeneous_band({num_units}, target=0.1)",
    )


def move_bands(bands: Mapping[str, Band], device: torch.device | str) -> None:
    """Move bands to a device; who shares them follows.

    Args:
        bands: Bands by path.
        device: Where to.
    """
    for band in bands.values():
        for part in band:
            part.data = part.to(device)


class EnergyBand(Controller):
    r"""A penalty that holds each unit's energy in its band, as a factor at the neurons' site.

    Each row pays `weight * ramp * hinge_i` (`hinge`) for the energies of its batch; the ramp grows
    linearly to 1. While more than `crowd` of a layer's units lie below their band, being above
    counts less: there a few loud units are no harm yet.

    ``wrap(model)`` puts the penalty into the loss. To `observe` is needed for the crowd alone, and
    to `act` for the ramp, which counts steps.

    Args:
        model: The model, or its layers by path.
        band: Bands by layer path, a function from the number of units to a band, or the target of
            a homogeneous band.
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
        super().__init__(model, every=every)
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
        self.bands = bands_of(self.layers, band)
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
            crowded = bool((energy < self.bands[path].low).double().mean() > self.crowd)
            factor = self.crowd_high_weight if crowded else 1.0
            self.memory["high_weight"][path].fill_(self.high_weight * factor)

    def wrap(self, model: Program) -> Program:
        """Return the model with the penalty at its neurons' sites, ``<path>.band``."""
        costs = {path: partial(self.cost, path) for path in self.layers}
        wrapped: Program = penalize(model, costs, name="band")
        return wrapped

    def to(self, device: torch.device | str) -> None:
        """Move bands and memory to a device."""
        super().to(device)
        move_bands(self.bands, device)


class BandCalibration(Controller):
    """Moves a whole band, not its shape, toward where given shares of units lie outside it.

    The bands are changed in place, so whoever shares them follows: hand `bands` of an `EnergyBand`,
    `Homeostat` or `Projection` to it.

    Args:
        model: The model, or its layers by path.
        bands: The bands to move, by layer path.
        low_share: Share of units meant to lie below.
        high_share: Share of units meant to lie above.
        largest: Largest factor of one step, above 1.
        every: Steps from one move to the next.
        momentum: Weight of a new observation in the running average of the energies.

    Raises:
        InputError: For a number outside its range, or a band that does not fit its layer.

    Example:
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3)
        >>> band = EnergyBand(model, 0.1)
        >>> calibration = BandCalibration(model, band.bands)

    Source:
        Ruffenach, *Exploring the Dimensions of a Variational Neuron*, arXiv:2603.13849 (2026).
    """

    def __init__(
        self,
        model: Controlled,
        bands: Mapping[str, Band],
        *,
        low_share: float = 0.2,
        high_share: float = 0.1,
        largest: float = 1.1,
        every: int = 64,
        momentum: float = 0.5,
    ) -> None:
        super().__init__(model, every=every, momentum=momentum)
        self.bands = bands
        self.settings: dict[str, Any] = {
            "low_share": low_share,
            "high_share": high_share,
            "largest": largest,
        }
        for path, layer in self.layers.items():
            check_band(path, bands.get(path), layer.shape.num_units)
            calibration_factor(bands[path].target, bands[path], **self.settings)  # checks them
        self.memory = {
            part: {path: getattr(bands[path], part) for path in self.layers}
            for part in Band._fields
        }

    def observe(self, seen: Seen) -> None:
        """Average each layer's energies."""
        for path, record in self.records(seen):
            self.average("mu2", path, record.energy.mean)

    def change(self, path: str) -> None:
        """Multiply the layer's band by the factor of the moment."""
        energy = self.recall("mu2", path)
        if energy is not None:
            factor = calibration_factor(energy, self.bands[path], **self.settings)
            for part in self.bands[path]:
                part.mul_(factor)
