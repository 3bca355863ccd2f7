"""The figure of how long units remember."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_vdn.diagnostics._figure import (
    ACCENT,
    BAND_WIDE,
    INK,
    MUTED,
    WARM,
    legend,
    new_figure,
    style,
)
from pyro_vdn.diagnostics.calibration._panels import above_zero
from pyro_vdn.diagnostics.units.persistence import Array, UnitPersistence
from pyro_vdn.diagnostics.units.persistence_report import PersistenceReport
from pyro_vdn.diagnostics.units.symptoms import CollapseThresholds
from pyro_vdn.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_TICKS = 40


def plot_persistence(report: PersistenceReport) -> Figure:
    """Draw how long units remember, a row per layer: half-lives, and what steps carry over.

    On the left, the half-life of every unit in the report's unit of time, the shortest first,
    beside the length of a sequence. On the right, the share of a step that its past explains, under
    the posterior over data against under the prior: above the line a unit is slower than its prior
    says, below it quicker. Units that renew too little of themselves to be called living are marked
    as frozen.

    Args:
        report: What :func:`persistence_report` returned.

    Returns:
        The figure, 1200 px wide at its own resolution.

    Raises:
        InputError: If there is no layer.
        MissingPackageError: If matplotlib is not installed.

    Example:
        >>> import torch
        >>> from pyro_vdn.diagnostics import persistence_report
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.nn import AutoregressiveNormal, VariationalNeurons
        >>> layer = VariationalNeurons(3, 4, prior=AutoregressiveNormal(4))
        >>> x = torch.randn(8, 20, 3)
        >>> figure = plot_persistence(persistence_report(layer, NeuronGuide(layer), x, unit="h"))
        >>> figure.axes[0].get_ylabel()
        'half-life (h)'
    """
    if not report.layers:
        raise InputError(
            "report",
            expected="at least one layer with memory",
            got="none",
            hint="persistence_report(model, guide, batches)",
        )
    count = len(report.layers)
    figure = new_figure(1.0 + 3.9 * count)
    axes: Any = figure.subplots(count, 2, squeeze=False, width_ratios=[1.6, 1.0])
    for at, (path, units) in enumerate(report.layers.items()):
        bottom = at == count - 1
        _draw_half_lives(axes[at, 0], path, units, bottom=bottom)
        _draw_carried(axes[at, 1], units, bottom=bottom)
    return figure


def _draw_half_lives(axes: Axes, path: str, units: UnitPersistence, *, bottom: bool) -> None:
    order = np.argsort(units.half_life, kind="stable")
    length, count = units.steps * units.step, len(order)
    finite = units.half_life[np.isfinite(units.half_life)]
    longest = max([length, *finite.tolist()])
    values = above_zero(np.minimum(units.half_life[order], 10 * longest), units.step)
    name = f": {path}" if path else ""
    title = f"Half-lives{name}, median {np.median(units.half_life):.3g} {units.unit}"
    x = "unit, ordered by half-life" if bottom else ""
    style(axes, title=title, x=x, y=f"half-life ({units.unit})")
    axes.set_yscale("log")
    rank = np.arange(1, count + 1)
    axes.vlines(rank, values.min() / 1.6, values, color=BAND_WIDE, lw=2.0, zorder=1)
    size = float(np.clip(1500 / count, 10, 46))
    frozen = _frozen(units)[order]
    for mask, colour, marker, label in (
        (~frozen, ACCENT, "o", "moves"),
        (frozen, WARM, "s", "frozen in time"),
    ):
        if mask.any():
            axes.scatter(
                rank[mask], values[mask], s=size, color=colour, marker=marker, lw=0, label=label
            )
    axes.axhline(length, color=INK, lw=1.2, ls=(0, (4, 3)), label="length of a sequence")
    axes.set_ylim(values.min() / 1.6, 1.8 * max(values.max(), length))
    if count <= _MOST_TICKS:
        axes.set_xticks(rank, [str(unit) for unit in order])
    axes.grid(visible=False, axis="x")
    legend(axes, loc="upper left")


def _draw_carried(axes: Axes, units: UnitPersistence, *, bottom: bool) -> None:
    prior, posterior = units.prior_carried, np.maximum(units.posterior_carried, -1.0)
    low = min(0.0, float(posterior.min()))
    x = "under the prior" if bottom else ""
    style(axes, title="Share carried over from the past", x=x, y="under the posterior, over data")
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1.1, ls=(0, (4, 3)), zorder=1)
    size = float(np.clip(1500 / len(prior), 10, 46))
    frozen = _frozen(units)
    for mask, colour, marker in ((~frozen, ACCENT, "o"), (frozen, WARM, "s")):
        axes.scatter(
            prior[mask], posterior[mask], s=size, color=colour, marker=marker, lw=0, zorder=3
        )
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(low - 0.04, 1.04)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 2, "alpha": 0.85}
    for share, y, side, note in (
        (0.03, 0.97, "left", "slower than the prior"),
        (0.97, 0.03, "right", "quicker"),
    ):
        where: Any = {"transform": axes.transAxes, "ha": side, "bbox": box}
        where["va"] = "top" if side == "left" else "bottom"
        axes.text(share, y, note, color=MUTED, fontsize=9, **where)


def _frozen(units: UnitPersistence) -> Any:
    """Say which units renew too little of themselves over a sequence, `(units,)`."""
    renewal: Array = units.renewal
    return renewal < CollapseThresholds.renewal
