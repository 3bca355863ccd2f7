"""Which units carry information and which have collapsed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_vdn.diagnostics._checks import as_array
from pyro_vdn.errors import InputError

ACTIVE_THRESHOLD = 1e-4
"""Mean KL in nats above which a unit counts as active."""


@dataclass(frozen=True, eq=False)
class UnitActivity:
    """Per-unit statistics over a data set; every array has shape `(units,)`.

    Args:
        kl: Mean KL from posterior to prior, in nats.
        mean_energy: Mean squared posterior location, `mu2`.
        scale: Mean posterior standard deviation.
        contraction: One minus posterior over prior variance: 1 is certain, 0 is as wide as the
            prior, negative is wider.
        active: Whether the KL exceeds `threshold`.
        threshold: KL in nats above which a unit counts as active.

    Example:
        >>> one = np.ones(2)
        >>> UnitActivity(np.array([0.0, 1.0]), one, one, 0 * one, one > 0).active_share()
        0.5
    """

    kl: NDArray[np.float64]
    mean_energy: NDArray[np.float64]
    scale: NDArray[np.float64]
    contraction: NDArray[np.float64]
    active: NDArray[np.bool_]
    threshold: float = ACTIVE_THRESHOLD

    def active_share(self, threshold: float | None = None) -> float:
        """Return the share of units whose KL exceeds `threshold` nats (by default, its own)."""
        return float(np.mean(self.kl > (self.threshold if threshold is None else threshold)))

    def to_arrays(self) -> dict[str, NDArray[np.float64] | NDArray[np.bool_]]:
        """Return the statistics by name, ready to be the `unit_stats` group of ArviZ data."""
        return {
            "kl": self.kl,
            "mean_energy": self.mean_energy,
            "scale": self.scale,
            "contraction": self.contraction,
            "active": self.active,
        }

    def to_rows(self) -> list[dict[str, int | float | bool]]:
        """Return one plain dictionary per unit, for a table, a CSV file or JSON."""
        columns = {name: values.tolist() for name, values in self.to_arrays().items()}
        return [
            {"unit": unit, **{name: column[unit] for name, column in columns.items()}}
            for unit in range(len(self.kl))
        ]


def unit_activity(
    kl: Tensor | ArrayLike,
    mean_energy: Tensor | ArrayLike,
    scale: Tensor | ArrayLike,
    *,
    prior_scale: float = 1.0,
    threshold: float = ACTIVE_THRESHOLD,
) -> UnitActivity:
    r"""Summarise how much each unit says about its input.

    .. math:: \text{contraction}_i = 1 - \sigma_i^2 / \sigma_\text{prior}^2, \qquad
        \text{active}_i = [\mathrm{KL}_i > \text{threshold}]

    Args:
        kl: Mean KL per unit over the data, shape `(units,)`, in nats.
        mean_energy: Mean squared posterior location :math:`E[\mu_i^2]`, shape `(units,)`.
        scale: Mean posterior standard deviation :math:`E[\sigma_i]`, shape `(units,)`.
        prior_scale: Standard deviation of the prior.
        threshold: KL in nats above which a unit counts as active.

    Returns:
        The statistics as float64 arrays of shape `(units,)`.

    Raises:
        InputError: If lengths differ, a value is not finite, an energy is negative, or a scale is
            not positive.

    Example:
        >>> activity = unit_activity([0.8, 1e-6], [0.5, 0.0], [0.4, 1.0])
        >>> activity.active_share()
        0.5
        >>> activity.to_rows()[0]["contraction"]
        0.84

    Source: contraction: Betancourt, *Calibrating Model-Based Inferences and Decisions*, 2018;
    active units: Burda, Grosse and Salakhutdinov, *Importance Weighted Autoencoders*, 2016.
    """
    given = {"kl": kl, "mean_energy": mean_energy, "scale": scale}
    arrays = {
        what: as_array(what, value, ndim=1, sizes="(units,)") for what, value in given.items()
    }
    for what, array in arrays.items():
        _check_length(what, array, len(arrays["kl"]))
    _check_sign("mean_energy", arrays["mean_energy"], arrays["mean_energy"] < 0, "zero or more")
    _check_sign("scale", arrays["scale"], arrays["scale"] <= 0, "positive values")
    _check_sign("prior_scale", np.array([prior_scale]), np.array([prior_scale <= 0]), "positive")
    return UnitActivity(
        **arrays,
        contraction=1.0 - (arrays["scale"] / prior_scale) ** 2,
        active=arrays["kl"] > threshold,
        threshold=threshold,
    )


def _check_length(what: str, array: NDArray[np.float64], units: int) -> None:
    if len(array) != units:
        raise InputError(
            what,
            expected=f"{units} units, as in kl",
            got=f"{len(array)}",
            hint="average every statistic over the same layer",
        )


def _check_sign(
    what: str, array: NDArray[np.float64], bad: NDArray[np.bool_], expected: str
) -> None:
    if bad.any():
        unit = int(bad.argmax())
        raise InputError(
            what,
            expected=expected,
            got=f"{array[unit]} at ({unit},)",
            hint="pass standard deviations and mean squares, not their logarithms",
        )
