"""Bands that follow the layer."""

from __future__ import annotations

from typing import Any

from pyro_vdn.control.band import Band, calibration_factor
from pyro_vdn.control.banded import Banded, check_band
from pyro_vdn.control.checks import check_range
from pyro_vdn.control.controller import Controller, Seen
from pyro_vdn.control.layers import Controlled
from pyro_vdn.errors import InputError


class BandCalibration(Controller):
    """Moves a whole band, not its shape, toward where given shares of units lie outside it.

    The bands are those of an `EnergyBand`, `Homeostat` or `Projection`; whoever shares them
    follows.

    Args:
        model: The model, or its layers by path.
        band: The controller whose bands are to move.
        low_share: Share of units meant to lie below.
        high_share: Share of units meant to lie above.
        largest: Largest factor of one step, above 1.
        limit: Largest factor, up or down, between a band and where it began: a layer that dies must
            not take its band along.
        every: Steps from one move to the next.
        momentum: Weight of a new observation in the running average of the energies.

    Raises:
        InputError: For a number outside its range, or a band that does not fit its layer.

    Example:
        >>> from pyro_vdn.control import EnergyBand
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3)
        >>> band = EnergyBand(model, 0.1)
        >>> calibration = BandCalibration(model, band)

    Source:
        Ruffenach, *Exploring the Dimensions of a Variational Neuron*, arXiv:2603.13849 (2026).
    """

    def __init__(
        self,
        model: Controlled,
        band: Banded,
        *,
        low_share: float = 0.2,
        high_share: float = 0.1,
        largest: float = 1.1,
        limit: float = 10.0,
        every: int = 64,
        momentum: float = 0.5,
    ) -> None:
        super().__init__(model, every=every, momentum=momentum)
        check_range("limit", limit, 1.0, above=True)
        if not isinstance(band, Banded):
            raise InputError(
                "band",
                expected="the controller whose bands are to move",
                got=f"a {type(band).__name__}",
                hint="band = EnergyBand(model); BandCalibration(model, band)",
            )
        self.bands, self.limit = band.bands, limit
        self.settings: dict[str, Any] = {
            "low_share": low_share,
            "high_share": high_share,
            "largest": largest,
        }
        for path, layer in self.layers.items():
            one = check_band(path, self.bands.get(path), layer.shape.num_units)
            calibration_factor(one.target, one, **self.settings)  # checks them
        self.memory = {
            part: {path: getattr(self.bands[path], part) for path in self.layers}
            for part in Band._fields
        }
        self.memory["began"] = {path: self.bands[path].target[0].clone() for path in self.layers}

    def observe(self, seen: Seen) -> None:
        """Average each layer's energies."""
        for path, record in self.records(seen):
            self.average("mu2", path, record.energy.mean)

    def change(self, path: str) -> None:
        """Multiply the layer's band by the factor of the moment."""
        energy = self.recall("mu2", path)
        if energy is not None and bool(energy.isfinite().any()):
            factor = calibration_factor(energy, self.bands[path], **self.settings)
            moved = self.bands[path].target[0] / self.memory["began"][path]
            # Out of reach of the limit, no further; within it, as far as the factor goes.
            allowed = (moved * factor).clamp(1 / self.limit, self.limit) / moved
            factor = allowed.clamp(1 / self.settings["largest"], self.settings["largest"])
            for part in self.bands[path]:
                part.mul_(factor)
