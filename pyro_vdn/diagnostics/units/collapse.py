"""The report on which units live, and on what has become of the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_vdn.diagnostics.units.statistics import UnitStatistics, by_layer
from pyro_vdn.diagnostics.units.symptoms import (
    CollapseMode,
    CollapseThresholds,
    Symptom,
    symptoms,
    undecided,
)
from pyro_vdn.errors import InputError


@dataclass(frozen=True)
class UnitCall:
    """What one unit is called, and why.

    Args:
        layer: Path of its layer.
        unit: Its index in the layer.
        mode: What it is called.
        symptoms: Every mode whose symptom it has, the one it is called after first.
        evidence: The numbers with the thresholds they crossed, one part per symptom.

    Example:
        >>> mode = CollapseMode.IGNORED
        >>> UnitCall("neurons", 3, mode, (mode,), "use 0 ± 0 nats a row").to_row()["mode"]
        'ignored'
    """

    layer: str
    unit: int
    mode: CollapseMode
    symptoms: tuple[CollapseMode, ...]
    evidence: str

    @property
    def remedy(self) -> str:
        """What to try; empty for a living unit."""
        return self.mode.remedy

    def to_row(self) -> dict[str, str | int]:
        """Return the call as a plain dictionary."""
        return {
            "layer": self.layer,
            "unit": self.unit,
            "mode": self.mode.value,
            "evidence": self.evidence,
            "remedy": self.remedy,
        }


@dataclass(frozen=True, eq=False)
class CollapseReport:
    """What has become of every unit; printed, it is a table.

    Living units are those without a symptom. They include units that are mildly outside their
    energy band: how many is in the band's shares, of which the table has a line per layer.

    Args:
        statistics: Statistics by layer path.
        calls: One call per unit, layer by layer, in the order of their units.
        thresholds: Where symptoms begin.

    Example:
        >>> import torch
        >>> from pyro_vdn.diagnostics import collapse_report, unit_statistics
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3, num_units=4)
        >>> data = torch.randn(50, 3), torch.randn(50, 1)
        >>> report = collapse_report(unit_statistics(model, NeuronGuide(model), data))
        >>> sum(report.counts().values())
        4
    """

    statistics: dict[str, UnitStatistics]
    calls: tuple[UnitCall, ...]
    thresholds: CollapseThresholds

    def counts(self) -> dict[CollapseMode, int]:
        """Return the number of units of every mode, living ones first, zeros included."""
        called = [call.mode for call in self.calls]
        return {mode: called.count(mode) for mode in CollapseMode}

    def units(self, mode: CollapseMode | str) -> dict[str, list[int]]:
        """Return the units of a mode by layer path, without layers that have none.

        To silence them, `clamp(model, {path: dict.fromkeys(units, "prior") for ...})`.
        """
        found: dict[str, list[int]] = {}
        for call in self.of_mode(mode):
            found.setdefault(call.layer, []).append(call.unit)
        return found

    def of_mode(self, mode: CollapseMode | str) -> list[UnitCall]:
        """Return the calls of one mode."""
        wanted = _as_mode(mode)
        return [call for call in self.calls if call.mode == wanted]

    def undecided(self) -> dict[str, NDArray[np.bool_]]:
        """Say by layer of which living units the use is too noisy to tell it from none, `(units,)`.

        A unit with a symptom has been called by it, whatever the noise of its use.
        """
        noisy = {path: undecided(s, self.thresholds) for path, s in self.statistics.items()}
        for call in self.calls:
            noisy[call.layer][call.unit] &= call.mode is CollapseMode.LIVING
        return noisy

    def costly(self) -> dict[str, list[int]]:
        """Return by layer the living units whose use is surely under minus the threshold.

        Layers without any are left out; *surely* is by the error over rows, draws left out.
        """
        found = {}
        for path, living in self.units(CollapseMode.LIVING).items():
            s = self.statistics[path]
            if s.use is not None and s.use_error is not None:
                most = s.use + 2.0 * s.use_error
                found[path] = [unit for unit in living if most[unit] < -self.thresholds.use]
        return {path: units for path, units in found.items() if units}

    def typical(self, mode: CollapseMode | str) -> UnitCall | None:
        """Return the call of a mode whose unit has the median KL, or None where there is none.

        Undecided units stand for the others only where all are undecided.
        """
        noisy, calls = self.undecided(), self.of_mode(mode)
        calls = [call for call in calls if not noisy[call.layer][call.unit]] or calls
        by_kl = sorted(calls, key=lambda call: float(self.statistics[call.layer].kl[call.unit]))
        return by_kl[len(by_kl) // 2] if by_kl else None

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one plain dictionary per unit: the call, its remedy, and all statistics."""
        measured = [row for s in self.statistics.values() for row in s.to_rows()]
        return [{**call.to_row(), **row} for call, row in zip(self.calls, measured, strict=True)]

    def to_xarray(self) -> Any:
        """Return an `xarray.Dataset` of all units, see :func:`report_to_xarray`."""
        from pyro_vdn.diagnostics.units.collapse_views import report_to_xarray

        return report_to_xarray(self)

    def __str__(self) -> str:
        from pyro_vdn.diagnostics.units.collapse_views import report_table

        return report_table(self)


def collapse_report(
    statistics: Mapping[str, UnitStatistics] | UnitStatistics,
    *,
    thresholds: CollapseThresholds | None = None,
) -> CollapseReport:
    """Say of every unit whether it lives, and if not, how it has collapsed.

    A unit is living that has no symptom; so is one that is mildly outside its energy band, which
    the report shows in the shares of units below, within and above it. One with several is called
    after the first in the order of `CollapseMode`: a unit whose variance has blown up can hardly be
    judged otherwise, one that its memory has frozen says little for that reason, and one that says
    nothing about its input is that, whatever its energy; the others stay in its evidence. Where no
    use was measured, no unit can be called ignored, and the report says so; as it does where there
    is but one row, or a prior without a finite variance.

    Args:
        statistics: What :func:`unit_statistics` measured, or the statistics of one layer.
        thresholds: Where symptoms begin.

    Returns:
        The report.

    Raises:
        InputError: If there is no layer.

    Example:
        >>> import torch
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> from pyro_vdn.poutine import record
        >>> layer = VariationalNeurons(3, 4)
        >>> with record() as seen, torch.no_grad():
        ...     _ = layer.posterior.loc.weight[0].zero_()
        ...     _ = layer(torch.randn(50, 3))
        >>> collapse_report(UnitStatistics.of(seen[""])).units("posterior collapse")
        {'': [0]}
    """
    layers = by_layer(statistics)
    thresholds = thresholds or CollapseThresholds()
    calls = [call for path, s in layers.items() for call in _calls(path, s, thresholds)]
    return CollapseReport(layers, tuple(calls), thresholds)


def _calls(path: str, s: UnitStatistics, thresholds: CollapseThresholds) -> list[UnitCall]:
    """Call every unit of a layer."""
    found, noisy = symptoms(s, thresholds), undecided(s, thresholds)
    return [_call(path, unit, s, found, bool(noisy[unit])) for unit in range(len(s.kl))]


def _call(
    path: str, unit: int, s: UnitStatistics, found: dict[CollapseMode, Symptom], noisy: bool
) -> UnitCall:
    modes = tuple(mode for mode, symptom in found.items() if symptom.present[unit])
    if modes:
        evidence = "; ".join(found[mode].evidence(unit) for mode in modes)
        return UnitCall(path, unit, modes[0], modes, evidence)
    evidence = f"KL {s.kl[unit]:.3g} nats, scale {_to_prior(s, unit)}, mu2 {s.mu2[unit]:.3g}"
    if s.use is not None and s.use_error is not None:
        evidence += f", use {s.use[unit]:.2g} ± {s.use_error[unit]:.1g} nats a row"
    return UnitCall(
        path, unit, CollapseMode.LIVING, (), evidence + (" (undecided)" if noisy else "")
    )


def _to_prior(s: UnitStatistics, unit: int) -> str:
    if np.isnan(s.prior_scale[unit]):
        return f"{s.scale[unit]:.2g}, the prior's not finite"
    return f"{s.scale[unit] / s.prior_scale[unit]:.2g} of the prior's"


def _as_mode(mode: CollapseMode | str) -> CollapseMode:
    try:
        return CollapseMode(mode)
    except ValueError:
        raise InputError(
            "mode",
            expected=f"one of {[known.value for known in CollapseMode]}",
            got=repr(mode),
            hint="mode='posterior collapse'",
        ) from None
