"""Bands of energy: where a living unit's mean squared location belongs."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vdn.control.checks import check_order, check_range
from pyro_vdn.errors import InputError
from pyro_vdn.nn.shapes import check_positive


class Band(NamedTuple):
    r"""A range of the energy `mu2_i = E[mu_i^2]` for every unit of a layer, around a target.

    Args:
        low: Lower bounds, `(num_units,)`.
        high: Upper bounds, `(num_units,)`.
        target: Targets between them, `(num_units,)`.

    Example:
        >>> band = homogeneous_band(2, 0.1)
        >>> band.low, band.high
        (tensor([0.0800, 0.0800]), tensor([0.1600, 0.1600]))
    """

    low: Tensor
    high: Tensor
    target: Tensor


def homogeneous_band(
    num_units: int, target: float = 0.1, *, low: float = 0.8, high: float = 1.6
) -> Band:
    r"""Return the same band `[low * target, high * target]` for every unit.

    Args:
        num_units: Number of units.
        target: Energy aimed at, positive: a squared location, so meant for a prior around zero.
        low: Lower bound as a share of the target, in (0, 1].
        high: Upper bound as a multiple of the target, at least 1.

    Raises:
        InputError: For a number outside its range.

    Example:
        >>> homogeneous_band(3, 0.5).target
        tensor([0.5000, 0.5000, 0.5000])

    Source:
        Ruffenach, *Exploring the Dimensions of a Variational Neuron*, arXiv:2603.13849 (2026).
    """
    return heterogeneous_band(num_units, target, spread=1.0, low=low, high=high)


def heterogeneous_band(
    num_units: int,
    target: float = 0.1,
    *,
    spread: float = 8.0,
    low: float = 0.8,
    high: float = 1.6,
    seed: int | None = None,
) -> Band:
    r"""Return a band of its own for every unit, with targets spaced evenly in logarithm.

    `t_i = target * spread^(2 i / (n - 1) - 1)`, from `target / spread` to `target * spread`.

    Args:
        num_units: Number of units n.
        target: Geometric mean of the targets, positive.
        spread: Factor on either side of it, at least 1.
        low: Lower bound as a share of the unit's target, in (0, 1].
        high: Upper bound as a multiple of the unit's target, at least 1.
        seed: Seed by which the targets are dealt to the units in random order; by default they
            rise from the first unit to the last.

    Raises:
        InputError: For a number outside its range.

    Example:
        >>> heterogeneous_band(3, 0.1, spread=10.0).target
        tensor([0.0100, 0.1000, 1.0000])

    Source:
        Ruffenach, *Exploring the Dimensions of a Variational Neuron*, arXiv:2603.13849 (2026).
    """
    check_positive(num_units=num_units)
    check_range("target", target, 0.0, above=True)
    check_range("spread", spread, 1.0)
    check_range("low", low, 0.0, 1.0, above=True)
    check_range("high", high, 1.0)
    check_order("low", low, "high", high)
    places = torch.linspace(-1.0, 1.0, num_units) if num_units > 1 else torch.zeros(1)
    targets = target * torch.exp(math.log(spread) * places)
    if seed is not None:
        order = torch.randperm(num_units, generator=torch.Generator().manual_seed(seed))
        targets = targets[order]
    return Band(low * targets, high * targets, targets)


def hinge(
    energy: Tensor,
    band: Band,
    *,
    relative: bool = True,
    low_weight: float | Tensor = 1.0,
    high_weight: float | Tensor = 1.0,
) -> Tensor:
    r"""Return each unit's squared distance from its band, nothing inside.

    `w_low * max(0, low_i - mu2_i)^2 + w_high * max(0, mu2_i - high_i)^2`; relative, the distances
    are divided by the bound they are measured from.

    Args:
        energy: Energies, `(num_units,)`.
        band: Their band.
        relative: Whether a distance counts relative to its bound.
        low_weight: Weight of being below.
        high_weight: Weight of being above.

    Returns:
        Penalties, `(num_units,)`.

    Example:
        >>> band = Band(*torch.tensor([[1.0, 1.0], [2.0, 2.0], [1.5, 1.5]]))
        >>> hinge(torch.tensor([0.5, 4.0]), band)
        tensor([0.2500, 1.0000])
    """
    distance = energy - torch.clamp(energy, band.low, band.high)
    low, high = band.low, band.high
    if not relative:
        low = high = torch.ones_like(low)
    with torch.no_grad():
        below, above = low_weight / low.square(), high_weight / high.square()
        weight = torch.where(energy < band.low, below, above)
    return distance.square() * weight


def out_of_band(energy: Tensor, band: Band) -> Tensor:
    """Return which units lie outside their band, boolean, `(num_units,)`.

    Args:
        energy: Energies, `(num_units,)`.
        band: Their band.
    """
    return (energy < band.low) | (energy > band.high)


def calibration_factor(
    energy: Tensor,
    band: Band,
    *,
    low_share: float = 0.2,
    high_share: float = 0.1,
    largest: float = 1.1,
) -> Tensor:
    r"""Return by what to multiply a whole band so that given shares of units lie outside.

    With `r_i = mu2_i / t_i`, a factor `a` that leaves a share `low_share` of units below, and `b`
    that leaves `high_share` above, the factor is `sqrt(a b)`, at most `largest` up or down: the
    band moves in small steps and keeps its shape.

    Args:
        energy: Energies, `(num_units,)`.
        band: Their band.
        low_share: Share of units meant to be below, in [0, 1).
        high_share: Share of units meant to be above, in [0, 1).
        largest: Largest factor of one step, above 1.

    Returns:
        The factor, a scalar.

    Raises:
        InputError: For a number outside its range.

    Example:
        >>> band = homogeneous_band(4, 1.0)
        >>> calibration_factor(torch.full((4,), 10.0), band)
        tensor(1.1000)
    """
    check_range("low_share", low_share, 0.0, 1.0)
    check_range("high_share", high_share, 0.0, 1.0)
    check_range("largest", largest, 1.0, above=True)
    if low_share + high_share >= 1:
        raise InputError(
            "low_share",
            expected=f"less than 1 - high_share = {1 - high_share:g}",
            got=f"{low_share:g}",
            hint="low_share=0.2, high_share=0.1",
        )
    tiny = torch.finfo(energy.dtype).tiny
    from_low = torch.nanquantile((energy / band.low).clamp(min=tiny), low_share)
    from_high = torch.nanquantile((energy / band.high).clamp(min=tiny), 1 - high_share)
    return (from_low * from_high).sqrt().clamp(1 / largest, largest)
