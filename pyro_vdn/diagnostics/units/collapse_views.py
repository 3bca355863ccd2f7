"""The collapse report as a table and as xarray."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_vdn.diagnostics.units.symptoms import CollapseMode

if TYPE_CHECKING:
    from pyro_vdn.diagnostics.units.collapse import CollapseReport, UnitCall

_LINE = 96


def report_table(report: CollapseReport) -> str:
    """Return a report as a table: counts, shares, a typical unit's evidence and what to try.

    Args:
        report: The report.

    Returns:
        Text of lines of at most 96 characters, whatever the number of units.

    Example:
        >>> import torch
        >>> from pyro_vdn.diagnostics import UnitStatistics, collapse_report
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> from pyro_vdn.poutine import record
        >>> with record() as seen:
        ...     _ = VariationalNeurons(3, 4)(torch.ones(50, 3))
        >>> print(report_table(collapse_report(UnitStatistics.of(seen[""]))).splitlines()[0])
        4 units over 50 rows
    """
    lines = [_heading(report)]
    for mode, count in report.counts().items():
        if not count and mode is not CollapseMode.LIVING:
            continue
        lines.append(f"  {mode.value:<22} {count:>5}  {count / len(report.calls):>6.1%}")
        typical = report.typical(mode)
        if typical is not None:
            lines += _indented(f"typical: {unit_name(typical)}, {typical.evidence}")
        if mode.remedy:
            lines += _indented(f"try: {mode.remedy}")
    return "\n".join([*lines, *_notes(report)])


def report_to_xarray(report: CollapseReport) -> Any:
    """Return a report as one `xarray.Dataset` over all units.

    Args:
        report: The report.

    Returns:
        A data set with the dimension `unit`, whose labels are `<layer>[<index>]`. `layer`, `index`
        and `mode` are further coordinates along it, so that `data.where(data.mode == "ignored",
        drop=True)` and `data.groupby("layer")` work; every statistic is a variable (NaN where a
        layer's was not measured), as is `evidence`. Thresholds are attributes.

    Example:
        >>> import torch
        >>> from pyro_vdn.diagnostics import UnitStatistics, collapse_report
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> from pyro_vdn.poutine import record
        >>> with record() as seen:
        ...     _ = VariationalNeurons(3, 4)(torch.randn(50, 3))
        >>> data = report_to_xarray(collapse_report({"a": UnitStatistics.of(seen[""])}))
        >>> str(data["mode"].sel(unit="a[2]").item())
        'living'
    """
    import xarray as xr

    layers = [s.to_arrays() for s in report.statistics.values()]
    sizes = [len(s.kl) for s in report.statistics.values()]
    names = dict.fromkeys(name for arrays in layers for name in arrays)
    variables = {
        name: np.concatenate(
            [
                arrays.get(name, np.full(size, np.nan))
                for arrays, size in zip(layers, sizes, strict=True)
            ]
        )
        for name in names
    }
    variables["evidence"] = np.array([call.evidence for call in report.calls])
    coords = {
        "unit": [unit_name(call) for call in report.calls],
        "layer": ("unit", [call.layer for call in report.calls]),
        "index": ("unit", [call.unit for call in report.calls]),
        "mode": ("unit", [call.mode.value for call in report.calls]),
    }
    rows = {f"rows_{path}" if path else "rows": s.rows for path, s in report.statistics.items()}
    return xr.Dataset(
        {name: ("unit", values) for name, values in variables.items()},
        coords=coords,
        attrs={**_thresholds(report), **rows},
    )


def unit_name(call: UnitCall) -> str:
    """Return a unit's name, `<layer>[<index>]`."""
    return f"{call.layer}[{call.unit}]"


def _heading(report: CollapseReport) -> str:
    rows = sorted({s.rows for s in report.statistics.values()})
    over = f"{rows[0]:,}" if len(rows) == 1 else f"{rows[0]:,} to {rows[-1]:,}"
    layers = len(report.statistics)
    inside = "" if layers == 1 else f" in {layers} layers"
    return f"{len(report.calls)} units{inside} over {over} rows"


def _indented(text: str) -> list[str]:
    return textwrap.wrap(
        text, _LINE, initial_indent=6 * " ", subsequent_indent=8 * " ", break_long_words=False
    )


def _notes(report: CollapseReport) -> list[str]:
    notes = _unknown(report)
    missing = [path for path, s in report.statistics.items() if s.use is None]
    if missing:
        which = "" if len(missing) == len(report.statistics) else f" of {', '.join(missing)}"
        notes.append(
            f"Use{which} was not measured, so no unit of it can be called ignored: "
            "unit_statistics(..., use=True)."
        )
    noisy = sum(int(mask.sum()) for mask in report.undecided().values())
    if noisy:
        notes.append(
            f"Undecided: the use of {noisy} units is too noisy to tell it from none; raise "
            "max_use_rows or num_samples."
        )
    costly = sum(len(units) for units in report.costly().values())
    if costly:
        notes.append(
            f"Costly: {costly} living units have a use that is surely negative: on these rows "
            "their prior would predict better (the error is over rows, not draws). Try held-out "
            "rows, more training, or pruning them."
        )
    for path, s in report.statistics.items():
        if s.band_low is not None:
            shares = s.band_shares()
            notes.append(
                f"Band of {path or 'the layer'}: {shares.below:.1%} of units below, "
                f"{shares.within:.1%} within, {shares.above:.1%} above."
            )
    return [line for note in notes for line in textwrap.wrap(note, _LINE)]


def _unknown(report: CollapseReport) -> list[str]:
    """Say what cannot be told of a layer, by name."""
    notes = []
    for path, s in report.statistics.items():
        unknown = int(np.isnan(s.prior_scale).sum())
        if unknown:
            notes.append(
                f"The prior of {unknown} units of {path or 'the layer'} has no finite variance: "
                "ratios to it are unknown, so that a blow-up of their variance, of their energy "
                "without a band, or a deterministic collapse would not be seen."
            )
        if s.rows < 2:
            notes.append(
                f"Of {path or 'the layer'} there is one row: it cannot tell which units are the "
                "same for every input, and nothing has a standard error. Measure over more rows."
            )
    return notes


def _thresholds(report: CollapseReport) -> dict[str, float]:
    return {f"threshold_{name}": value for name, value in vars(report.thresholds).items()}
