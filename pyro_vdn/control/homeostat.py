"""Bounded rescaling of rows toward the target of a band, every few steps."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vdn.control.band import Band, out_of_band
from pyro_vdn.control.banded import BandChoice, Banded
from pyro_vdn.control.checks import check_range
from pyro_vdn.control.controller import Seen
from pyro_vdn.control.layers import Controlled
from pyro_vdn.control.rescale import Readers, Rescaling


def homeostatic_gain(energy: Tensor, band: Band, *, eta: float, largest: float) -> Tensor:
    r"""Return the factor on each unit's location.

    `g_i = (target_i / mu2_i)^(eta' / 2)`, at most `largest` up or down, with the effective rate
    `eta' = min(1/2, eta (1 + 2 out))`, where `out` is the share of units outside their band.

    Args:
        energy: Energies `mu2_i`, `(num_units,)`.
        band: Their band.
        eta: Rate.
        largest: Largest factor of one step, above 1.

    Returns:
        Gains, `(num_units,)`.

    Example:
        >>> from pyro_vdn.control.band import homogeneous_band
        >>> band = homogeneous_band(2, 1.0)
        >>> homeostatic_gain(torch.tensor([1.0, 16.0]), band, eta=0.25, largest=2.0)
        tensor([1.0000, 0.5000])
    """
    out = float(out_of_band(energy, band).double().mean())
    rate = min(0.5, eta * (1 + 2 * out))
    tiny = torch.finfo(energy.dtype).tiny
    gain = (band.target / energy.clamp(min=tiny)) ** (rate / 2)
    return gain.clamp(1 / largest, largest).nan_to_num(1.0)  # what is not known stays


class Homeostat(Banded):
    r"""Draws each unit's energy toward its target by small rescalings of its location's row.

    Every few steps the row of `W_mu` and `b_mu` is multiplied by `homeostatic_gain` of a running
    average of the energies, which is rescaled along so that no change is made twice.

    Args:
        model: The model, or its layers by path.
        band: Bands by layer path, a function from the number of units to a band, one band, the
            target of a homogeneous band, or a controller whose bands are shared.
        eta: Rate.
        largest: Largest factor of one step, above 1.
        compensate: By layer path, what reads the layer (`Rescaling`), so that the computed function
            does not jump; None to leave what reads it alone.
        every: Steps from one act to the next.
        warmup: Steps before the first.
        momentum: Weight of a new observation in the running averages.

    Raises:
        InputError: For a number outside its range, or a layer or reader that cannot be rescaled.

    Example:
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3)
        >>> homeostat = Homeostat(model, 0.1, compensate={"neurons": model.readout})

    Source:
        Ruffenach, *Exploring the Dimensions of a Variational Neuron*, arXiv:2603.13849 (2026).
    """

    def __init__(
        self,
        model: Controlled,
        band: BandChoice = 0.1,
        *,
        eta: float = 0.18,
        largest: float = 1.6,
        compensate: Readers | None = None,
        every: int = 10,
        warmup: int = 64,
        momentum: float = 0.3,
    ) -> None:
        super().__init__(model, band, every=every, warmup=warmup, momentum=momentum)
        check_range("eta", eta, 0.0, 1.0, above=True)
        check_range("largest", largest, 1.0, above=True)
        self.eta, self.largest = eta, largest
        self.rescaling = Rescaling(self.layers, compensate)

    def observe(self, seen: Seen) -> None:
        """Average each unit's energy and scale."""
        for path, record in self.records(seen):
            self.average("mu2", path, record.energy.mean)
            self.average("scale", path, record.scale.mean)
            self.average("prior_scale", path, record.prior_variance.mean.sqrt())

    def change(self, path: str) -> None:
        """Rescale the layer's rows."""
        energy, scale = self.recall("mu2", path), self.recall("scale", path)
        if energy is None or scale is None:
            return
        gain = homeostatic_gain(energy, self.bands[path], eta=self.eta, largest=self.largest)
        gain = self.rescaling(path, gain, scale, self.recall("prior_scale", path))
        energy.mul_(gain.square())
        if self.rescaling.compensates(path):
            scale.mul_(gain)
