"""Hard projection of energies onto their band, once an epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vdn.control.band import Band
from pyro_vdn.control.banded import BandChoice, Banded
from pyro_vdn.control.checks import check_range
from pyro_vdn.control.controller import Seen
from pyro_vdn.control.layers import Controlled
from pyro_vdn.control.rescale import Readers, Rescaling


def projection_gain(energy: Tensor, band: Band, *, largest: float) -> Tensor:
    r"""Return the factor that puts each unit's energy onto the nearest bound of its band.

    `g_i = sqrt(bound_i / mu2_i)`, at most `largest` up or down; 1 inside the band.

    Args:
        energy: Energies `mu2_i`, `(num_units,)`.
        band: Their band.
        largest: Largest factor, above 1.

    Returns:
        Gains, `(num_units,)`.

    Example:
        >>> from pyro_vdn.control.band import homogeneous_band
        >>> band = homogeneous_band(3, 1.0, low=1.0, high=4.0)
        >>> projection_gain(torch.tensor([0.25, 2.0, 16.0]), band, largest=32.0)
        tensor([2.0000, 1.0000, 0.5000])
    """
    bound = torch.minimum(torch.maximum(energy, band.low), band.high)
    tiny = torch.finfo(energy.dtype).tiny
    gain = (bound / energy.clamp(min=tiny)).sqrt()
    return gain.clamp(1 / largest, largest).nan_to_num(1.0)  # what is not known stays


class Projection(Banded):
    r"""Puts every unit's energy back onto its band once an epoch, whatever it takes.

    The energies are measured over the last `batches` steps before the act; the rows of `W_mu` and
    `b_mu` are multiplied by `projection_gain`.

    Args:
        model: The model, or its layers by path.
        every: Steps of an epoch.
        band: Bands by layer path, a function from the number of units to a band, one band, the
            target of a homogeneous band, or a controller whose bands are shared.
        largest: Largest factor of one act, above 1.
        batches: Steps over which the energies are measured, at most `every`.
        compensate: By layer path, what reads the layer (`Rescaling`), so that the computed function
            does not jump; None to leave what reads it alone.
        warmup: Steps before the first act.

    Raises:
        InputError: For a number outside its range, or a layer or reader that cannot be rescaled.

    Example:
        >>> from pyro_vdn.models import Regression
        >>> projection = Projection(Regression(3), every=100, band=0.1)

    Source:
        Ruffenach, *Exploring the Dimensions of a Variational Neuron*, arXiv:2603.13849 (2026).
    """

    def __init__(
        self,
        model: Controlled,
        every: int,
        band: BandChoice = 0.1,
        *,
        largest: float = 32.0,
        batches: int = 8,
        compensate: Readers | None = None,
        warmup: int = 0,
    ) -> None:
        super().__init__(model, band, every=every, warmup=warmup, batches=min(batches, every))
        check_range("largest", largest, 1.0, above=True)
        self.largest = largest
        self.rescaling = Rescaling(self.layers, compensate)

    def observe(self, seen: Seen) -> None:
        """Add a step to the measurement, where it is one of those before the act."""
        if not self.due:
            return
        for path, record in self.records(seen):
            count = self.recall("batches", path)
            count = torch.ones_like(record.kl.mean[:1]) if count is None else count + 1
            self.memory.setdefault("batches", {})[path] = count
            for name, value in (
                ("mu2", record.energy.mean),
                ("scale", record.scale.mean),
                ("prior_scale", record.prior_variance.mean.sqrt()),
            ):
                self.average(name, path, value, momentum=1 / count.item())

    def change(self, path: str) -> None:
        """Project the layer's energies and begin a new measurement."""
        energy, scale, prior_scale, _ = (
            self.memory.get(name, {}).pop(path, None)
            for name in ("mu2", "scale", "prior_scale", "batches")
        )
        if energy is None or scale is None:
            return
        gain = projection_gain(energy, self.bands[path], largest=self.largest)
        self.rescaling(path, gain, scale, prior_scale)
