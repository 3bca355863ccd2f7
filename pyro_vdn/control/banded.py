"""Controllers that know a band for every unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import torch

from pyro_vdn.control.band import Band, homogeneous_band
from pyro_vdn.control.checks import check_paths
from pyro_vdn.control.controller import Controller
from pyro_vdn.control.layers import Controlled, like_layer
from pyro_vdn.errors import InputError
from pyro_vdn.nn import VariationalNeurons

#: Bands by layer path, a function from the number of units to a band, one band, the target of a
#: homogeneous band, or another controller, whose bands are shared.
BandChoice: TypeAlias = "Mapping[str, Band] | Callable[[int], Band] | Band | float | Banded"


def bands_of(
    layers: Mapping[str, VariationalNeurons],
    band: Mapping[str, Band] | Callable[[int], Band] | Band | float,
) -> dict[str, Band]:
    """Return a new band for each layer, in the dtype and on the device of its parameters.

    Args:
        layers: Layers by path.
        band: Bands by path, a function from the number of units to a band, one band for all layers,
            or the target of a homogeneous band.

    Returns:
        Bands by path.

    Raises:
        InputError: For a path without a band, a band of another size than its layer, or a path that
            names no layer.

    Example:
        >>> bands_of({"neurons": VariationalNeurons(3, 4)}, 0.1)["neurons"].target
        tensor([0.1000, 0.1000, 0.1000, 0.1000])
    """
    if isinstance(band, (int, float)):
        band = partial(homogeneous_band, target=float(band))
    if isinstance(band, Band):
        band = dict.fromkeys(layers, band)
    if isinstance(band, Mapping):
        check_paths("band", band, layers)
    elif not callable(band):
        raise InputError(
            "band",
            expected="bands by layer path, a function from the number of units, one band, a target "
            "as a number, or a controller with bands",
            got=f"a {type(band).__name__}",
            hint=f'band={{"{next(iter(layers))}": homogeneous_band(num_units, 0.1)}}',
        )
    bands = {}
    for path, layer in layers.items():
        units = layer.shape.num_units
        one = check_band(path, band(units) if callable(band) else band.get(path), units)
        # Copies, since they may be moved: whoever gave the band keeps it as it is.
        bands[path] = Band(*(part.to(like_layer(layer), copy=True) for part in one))
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


class Banded(Controller):
    """A controller with a band for every unit of its layers, its own or another controller's.

    Args:
        model: The model, or its layers by path.
        band: As for `bands_of`; or another such controller, whose bands are shared, so that a
            `BandCalibration` moves them for both.
        **timing: As for `Controller`.

    Raises:
        InputError: As for `bands_of`, or for a controller that knows no band of a layer.
    """

    #: Bands by layer path.
    bands: dict[str, Band]

    def __init__(self, model: Controlled, band: BandChoice, **timing: Any) -> None:
        super().__init__(model, **timing)
        if isinstance(band, Banded):
            for path, layer in self.layers.items():
                check_band(path, band.bands.get(path), layer.shape.num_units)
            self.bands = band.bands
        else:
            self.bands = bands_of(self.layers, band)

    def to(self, device: torch.device | str) -> None:
        """Move bands and memory to a device; who shares the bands follows."""
        super().to(device)
        for band in self.bands.values():
            for part in band:
                part.data = part.to(device)
