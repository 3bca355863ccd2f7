"""Calibration: do stated probabilities come true as often as they say?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vdn.diagnostics._checks import check_draws, check_finite, refuse_where
from pyro_vdn.diagnostics.scoring.quantiles import check_levels
from pyro_vdn.errors import InputError
from pyro_vdn.nn.unit_measures import precise

DEFAULT_LEVELS = tuple(step / 20 for step in range(1, 20))
"""Nominal levels 0.05, 0.10, ..., 0.95."""


# Keeps the randomisation apart from draws that were made under the same small seed: two equal
# streams would make calibrated values look anything but uniform.
_SALT = 0x5DEECE66D


@dataclass(frozen=True, eq=False)
class CalibrationCurve:
    """Nominal against empirical coverage of central intervals.

    Args:
        nominal: Stated shares, shape `(levels,)`.
        empirical: Observed shares, shape `(levels,)`.
        standard_error: Binomial standard error of `empirical` if calibrated, shape `(levels,)`.
        count: Independent observations behind each share.

    Example:
        >>> half = torch.tensor([0.5])
        >>> CalibrationCurve(half, half + 0.25, 0.1 * half, 100).worst_gap()
        0.25
    """

    nominal: Tensor
    empirical: Tensor
    standard_error: Tensor
    count: int

    def worst_gap(self) -> float:
        """Return the largest distance between nominal and empirical coverage."""
        return float((self.empirical - self.nominal).abs().max())


def pit(draws: Tensor, target: Tensor, *, randomised: bool = True, seed: int = 0) -> Tensor:
    r"""Place each target in its predictive distribution: probability integral transform.

    .. math:: u = \frac{r + v (t + 1)}{S + 1}, \quad r = \#\{x_s < y\}, \quad t = \#\{x_s = y\}

    with :math:`v` uniform on (0, 1), or one half (mid-rank). If draws and target come from the same
    distribution the randomised values are exactly uniform, for any number of draws and with ties.
    Mid-ranks lie on a grid of :math:`S + 1` points, which a histogram shows as false spikes.

    Args:
        draws: Draws :math:`x_s`, shape `(draws, ...)`.
        target: Observed values :math:`y`, shape `(...)`.
        randomised: Spread each rank over its cell; otherwise take the middle.
        seed: Seed of :math:`v`. The global random state is neither read nor changed.

    Returns:
        Values in [0, 1], shape `(...)`, dtype of the draws or, of half precision, single.

    Raises:
        InputError: If shapes disagree or a value is not finite.

    Example:
        >>> pit(torch.arange(9.0), torch.tensor(3.5), randomised=False)
        tensor(0.4500)

    Source: Gneiting, Balabdaoui and Raftery 2007; randomised: Czado, Gneiting and Held, *Predictive
    Model Assessment for Count Data*, 2009.
    """
    check_draws(draws, target)
    below = (draws < target).sum(dim=0)
    ties = (draws == target).sum(dim=0)
    # Half precision has a few hundred places in [0, 1] for ranks of any number of draws.
    share = shares_of_cells(precise(draws[0]), randomised=randomised, seed=seed)
    return (below + share * (ties + 1)) / (draws.shape[0] + 1)


def shares_of_cells(like: Tensor, *, randomised: bool, seed: int) -> Tensor:
    """Return where in its cell each value of a discrete transform is put, of the shape of `like`.

    Uniform on (0, 1) from a generator of its own, or one half.
    """
    if not randomised:
        return torch.full_like(like, 0.5)
    generator = torch.Generator().manual_seed(_SALT + seed)
    return torch.rand(like.shape, generator=generator, dtype=like.dtype).to(like.device)


def calibration_curve(
    pit_values: Tensor,
    levels: Sequence[float] | Tensor = DEFAULT_LEVELS,
    *,
    effective_count: int | None = None,
) -> CalibrationCurve:
    r"""Compare the coverage of central intervals with their nominal level.

    .. math:: c(\ell) = \frac{1}{n} \sum_n 1[|u_n - 1/2| \le \ell / 2], \qquad
        \mathrm{se}(\ell) = \sqrt{\ell (1 - \ell) / n}

    Args:
        pit_values: Probability integral transforms :math:`u_n`, any shape, in [0, 1].
        levels: Nominal levels :math:`\ell`, shape `(levels,)`, each in (0, 1).
        effective_count: Number of independent observations :math:`n` in the standard error; the
            number of values by default. Steps of one forecast, and overlapping windows, move
            together: pass the number of rows, or of windows that do not overlap.

    Returns:
        Nominal and empirical coverage with standard error.

    Raises:
        InputError: If a value lies outside [0, 1], a level outside (0, 1), or the count is below 1.

    Example:
        >>> curve = calibration_curve(torch.linspace(0.005, 0.995, 100), [0.5, 0.9])
        >>> curve.empirical
        tensor([0.5000, 0.9000])

    Source: Gneiting, Balabdaoui and Raftery 2007.
    """
    check_finite("pit_values", pit_values)
    outside = (pit_values < 0) | (pit_values > 1)
    refuse_where(outside, "pit_values", pit_values, "values in [0, 1]")
    count = pit_values.numel() if effective_count is None else effective_count
    if count < 1:
        raise InputError(
            "effective_count", expected="at least 1", got=str(count), hint="pass the number of rows"
        )
    nominal = torch.tensor(check_levels(levels), dtype=pit_values.dtype, device=pit_values.device)
    depth = (pit_values.reshape(-1) - 0.5).abs().sort().values
    # Rounding must not push a value that lies exactly on a bound outside.
    bounds = nominal / 2 + 4 * torch.finfo(nominal.dtype).eps
    inside = torch.searchsorted(depth, bounds)
    return CalibrationCurve(
        nominal=nominal,
        empirical=inside.to(nominal.dtype) / depth.numel(),
        standard_error=(nominal * (1 - nominal) / count).sqrt(),
        count=count,
    )
