"""What each unit of a layer does over a data set, with sampling error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_vdn.diagnostics._checks import as_array
from pyro_vdn.diagnostics.units._of_record import (
    answer_of,
    band_bounds,
    check_random,
    check_recorded,
    finite,
    memory_of,
    of_units,
    sampling_error,
)
from pyro_vdn.errors import InputError
from pyro_vdn.poutine import LayerRecord

Array = NDArray[np.float64]

ACTIVE_THRESHOLD = 1e-4
"""Mean KL in nats above which a unit counts as active."""


class Use(NamedTuple):
    """How much the log-likelihood falls when a unit is replaced by its prior.

    Args:
        mean: Mean over rows, `(units,)`, in nats per row.
        standard_error: Its standard error over rows, `(units,)`, in nats per row: how much it would
            change with other rows, not with other draws; NaN below two rows.
        rows: Number of rows behind it.

    Example:
        >>> Use(np.array([0.3, 0.0]), np.array([0.1, 0.0]), rows=100).mean
        array([0.3, 0. ])
    """

    mean: Array
    standard_error: Array
    rows: int


class BandShares(NamedTuple):
    """Shares of units below, within and above their energy band; they add up to one.

    Args:
        below: Share of units whose `mu2` is under their band.
        within: Share of units inside their band, bounds included.
        above: Share of units whose `mu2` is over their band.

    Example:
        >>> BandShares(0.25, 0.5, 0.25).within
        0.5
    """

    below: float
    within: float
    above: float


@dataclass(frozen=True, eq=False, kw_only=True)
class UnitStatistics:
    r"""Statistics of a layer's units over a data set; every array has shape `(units,)`.

    Averages are over rows; standard errors take rows to be independent. With memory every step of a
    sequence is a row, and since steps are not independent, standard errors are too small. Where a
    neuron has several latent dimensions, quantities are averaged over them; KL and information are
    their sums. Below two rows, standard errors and what varies over inputs are NaN.

    Args:
        kl: Mean KL from posterior to prior, in nats.
        kl_error: Its standard error.
        mu2: Mean squared posterior location :math:`E[\mu^2]`, the energy.
        mu2_error: Its standard error.
        mu2_about_prior: The same about the prior's mean, :math:`E[(\mu - m_p)^2]`; NaN where that
            is not finite.
        scale: Root mean posterior variance :math:`\sqrt{E[\sigma^2]}`.
        scale_error: Its standard error, by the delta method.
        contraction: :math:`1 - E[\mathrm{Var}_q] / E[\mathrm{Var}_p]`: 1 is certain, 0 is as wide
            as the prior, negative is wider. For any prior; NaN where its variance is not finite.
        loc_variance: Variance of the posterior location over inputs, :math:`\mathrm{Var}_x(\mu)`.
        information: :math:`\sum_k \frac12 \log(1 + \mathrm{Var}_x(\mu_k) / E[\sigma_k^2])` over
            latent dimensions, in nats: what the location says about the input. A unit with the same
            posterior for every input has none, however large its KL.
        scale_variation: Standard deviation of the posterior scale over inputs, relative to its
            mean.
        prior_scale: Root mean prior variance; NaN where that is not finite.
        active: Whether the KL exceeds `threshold`.
        rows: Number of rows behind the averages.
        threshold: KL in nats above which a unit counts as active; 1e-4 is the published value.
        carried: With memory, the share of a step that its past explains, under the posterior over
            data: :math:`1 - E_q[(z_t - E_p[z_t \mid z_{<t}])^2] / E_q[(z_t - E_p[z_t])^2]`. Of the
            prior itself at order 1 it is :math:`\phi^2`; it is negative where units move against
            what their prior expects. None without memory, or of single steps.
        renewal: With memory, what is new in the course of a sequence: :math:`1 - \text{carried}`
            times the number of steps after the first. At 1 a unit has renewed its energy once; a
            unit near 0 is one number per sequence. None as above, NaN for fewer than 4 steps.
        use: Mean fall of the log-likelihood, in nats per row, when the unit is replaced by draws
            from its prior; None where it was not measured.
        use_error: Its standard error over rows; the noise of draws is not in it.
        band_low: Lower bound of the band on `mu2`; None where there is no band.
        band_high: Its upper bound.

    Example:
        >>> import torch
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> from pyro_vdn.poutine import record
        >>> with record() as seen:
        ...     _ = VariationalNeurons(3, 4)(torch.randn(50, 3))
        >>> statistics = UnitStatistics.of(seen[""])
        >>> statistics.rows, statistics.kl.shape, statistics.active_share()
        (50, (4,), 1.0)

    Source: contraction: Betancourt, *Calibrating Model-Based Inferences and Decisions*, 2018;
    active units: Burda, Grosse and Salakhutdinov, *Importance Weighted Autoencoders*, 2016;
    information: the capacity of a Gaussian channel, Shannon 1948.
    """

    kl: Array
    kl_error: Array
    mu2: Array
    mu2_error: Array
    mu2_about_prior: Array
    scale: Array
    scale_error: Array
    contraction: Array
    loc_variance: Array
    information: Array
    scale_variation: Array
    prior_scale: Array
    active: NDArray[np.bool_]
    rows: int
    threshold: float = ACTIVE_THRESHOLD
    carried: Array | None = None
    renewal: Array | None = None
    use: Array | None = None
    use_error: Array | None = None
    band_low: Array | None = None
    band_high: Array | None = None

    @classmethod
    def of(
        cls,
        record: LayerRecord,
        *,
        band: Sequence[Tensor | ArrayLike] | None = None,
        use: Use | None = None,
        threshold: float = ACTIVE_THRESHOLD,
    ) -> UnitStatistics:
        """Summarise what :func:`pyro_vdn.poutine.record` has seen of a layer.

        Args:
            record: Moments of the layer over a data set.
            band: Bounds `(low, high, ...)` on `mu2`, each `(units,)` or a number; what follows them
                is not read.
            use: What :func:`downstream_use` found for the layer.
            threshold: KL in nats above which a unit counts as active.

        Returns:
            The statistics as float64 arrays.

        Raises:
            InputError: If the record is empty or not finite, its prior is a point, or a band or use
                does not fit the units.
        """
        check_recorded(record)
        kl, mu2, variance, _ = (
            as_array(what, value, ndim=1, sizes="(units,)")
            for what, value in (
                ("kl", record.kl.mean),
                ("mu2", record.energy.mean),
                ("variance", record.variance.mean),
                ("loc", record.loc.variance),
            )
        )
        prior_variance = finite(record.prior_variance.mean)
        check_random(variance, "the posterior")
        check_random(prior_variance, "the prior")
        scale = np.sqrt(variance)
        low, high = (None, None) if band is None else band_bounds(band, len(kl))
        return cls(
            kl=kl,
            kl_error=sampling_error(record.kl),
            mu2=mu2,
            mu2_error=sampling_error(record.energy),
            mu2_about_prior=finite(record.energy_about_prior.mean),
            scale=scale,
            scale_error=sampling_error(record.variance) / (2.0 * scale),
            contraction=1.0 - variance / prior_variance,
            **answer_of(record)._asdict(),
            prior_scale=np.sqrt(prior_variance),
            active=kl > threshold,
            rows=record.kl.count,
            threshold=threshold,
            **memory_of(record)._asdict(),
            use=None if use is None else of_units("use", use.mean, len(kl)),
            use_error=None if use is None else _error_of(use, len(kl)),
            band_low=low,
            band_high=high,
        )

    def active_share(self, threshold: float | None = None) -> float:
        """Return the share of units whose KL exceeds `threshold` nats (by default, its own)."""
        return float(np.mean(self.kl > (self.threshold if threshold is None else threshold)))

    def below_band(self) -> NDArray[np.bool_]:
        """Say which units have too little energy for their band, `(units,)`."""
        return self.mu2 < self._band()[0]

    def above_band(self) -> NDArray[np.bool_]:
        """Say which units have too much energy for their band, `(units,)`."""
        return self.mu2 > self._band()[1]

    def band_shares(self) -> BandShares:
        """Return the shares of units below, within and above their band."""
        below, above = self.below_band(), self.above_band()
        return BandShares(*(float(np.mean(part)) for part in (below, ~below & ~above, above)))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return what is known of the units by name, ready for the `unit_stats` group of ArviZ."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}

    def to_rows(self) -> list[dict[str, int | float | bool]]:
        """Return one plain dictionary per unit, for a table, a CSV file or JSON."""
        columns = {name: values.tolist() for name, values in self.to_arrays().items()}
        return [
            {"unit": unit, **{name: column[unit] for name, column in columns.items()}}
            for unit in range(len(self.kl))
        ]

    def _band(self) -> tuple[Array, Array]:
        if self.band_low is None or self.band_high is None:
            raise InputError(
                "band",
                expected="statistics with a band",
                got="none",
                hint="unit_statistics(..., bands={'neurons': (low, high)})",
            )
        return self.band_low, self.band_high


def _error_of(use: Use, units: int) -> Array:
    """Return the standard error of use, which one row cannot tell."""
    if use.rows < 2:
        return np.full(units, np.nan)
    return of_units("use", use.standard_error, units)


def by_layer(
    statistics: Mapping[str, UnitStatistics] | UnitStatistics,
) -> dict[str, UnitStatistics]:
    """Return statistics by layer path, given them so or those of one layer."""
    layers = {"": statistics} if isinstance(statistics, UnitStatistics) else dict(statistics)
    if not layers:
        raise InputError(
            "statistics",
            expected="at least one layer",
            got="none",
            hint="unit_statistics(model, guide, batches)",
        )
    return layers
