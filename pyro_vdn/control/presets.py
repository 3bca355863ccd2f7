"""The three published regimes of the living neuron, a line each."""

from __future__ import annotations

from pyro_vdn.control.banded import BandChoice
from pyro_vdn.control.compose import Composed, compose
from pyro_vdn.control.energy_band import EnergyBand
from pyro_vdn.control.guard import ScaleGuard
from pyro_vdn.control.homeostat import Homeostat
from pyro_vdn.control.layers import Controlled
from pyro_vdn.control.projection import Projection
from pyro_vdn.control.rescale import Readers


def projection_off(model: Controlled, band: BandChoice = 0.1) -> Composed:
    """Return the regime "projOFF": the band as a penalty, and guarded scales.

    Args:
        model: The model, or its layers by path.
        band: Bands by layer path, a function from the number of units to a band, or the target of
            a homogeneous band.

    Returns:
        The controllers as one.

    Example:
        >>> from pyro_vdn.models import Regression
        >>> [type(one).__name__ for one in projection_off(Regression(3)).controllers]
        ['EnergyBand', 'ScaleGuard']

    Source:
        Ruffenach, *Exploring the Dimensions of a Variational Neuron*, arXiv:2603.13849 (2026).
    """
    return compose(_penalty(model, band), ScaleGuard(model))


def projection_on(
    model: Controlled,
    steps_per_epoch: int,
    band: BandChoice = 0.1,
    *,
    compensate: Readers | None = None,
) -> Composed:
    """Return the regime "projON": `projection_off` and a projection once an epoch.

    Args:
        model: The model, or its layers by path.
        steps_per_epoch: Steps from one projection to the next.
        band: As for `projection_off`.
        compensate: As for `Projection`.

    Returns:
        The controllers as one.

    Example:
        >>> from pyro_vdn.models import Regression
        >>> [type(one).__name__ for one in projection_on(Regression(3), 100).controllers]
        ['EnergyBand', 'Projection', 'ScaleGuard']

    Source:
        Ruffenach, *Exploring the Dimensions of a Variational Neuron*, arXiv:2603.13849 (2026).
    """
    penalty = _penalty(model, band)
    projection = Projection(model, steps_per_epoch, penalty, compensate=compensate)
    return compose(penalty, projection, ScaleGuard(model))


def homeostatic(
    model: Controlled, band: BandChoice = 0.1, *, compensate: Readers | None = None
) -> Composed:
    """Return the regime "homeo": `projection_off` and a homeostat.

    Args:
        model: The model, or its layers by path.
        band: As for `projection_off`.
        compensate: As for `Homeostat`.

    Returns:
        The controllers as one.

    Example:
        >>> from pyro_vdn.models import Regression
        >>> [type(one).__name__ for one in homeostatic(Regression(3)).controllers]
        ['EnergyBand', 'Homeostat', 'ScaleGuard']

    Source:
        Ruffenach, *Exploring the Dimensions of a Variational Neuron*, arXiv:2603.13849 (2026).
    """
    penalty = _penalty(model, band)
    homeostat = Homeostat(model, penalty, compensate=compensate)
    return compose(penalty, homeostat, ScaleGuard(model))


def _penalty(model: Controlled, band: BandChoice) -> EnergyBand:
    return EnergyBand(model, band, weight=1.2, ramp=200)
