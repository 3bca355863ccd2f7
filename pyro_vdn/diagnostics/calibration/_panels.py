"""The single panels that the public figures are composed of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pyro_vdn.diagnostics._figure import (
    ACCENT,
    BAND_NARROW,
    BAND_WIDE,
    INK,
    MUTED,
    WARM,
    legend,
    style,
)
from pyro_vdn.diagnostics.predictive._predictive_panels import draw_bars
from pyro_vdn.diagnostics.predictive.histogram_bands import histogram_band
from pyro_vdn.diagnostics.units.statistics import UnitStatistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

_NORMAL_95 = 1.959964
_KL_LABEL = "mean KL to the prior (nats)"


def draw_fan(axes: Axes, past: Array, truth: Array, fan: Array) -> None:
    """Draw history `(past,)`, truth `(steps,)` and quantiles `(5, steps)` from time 0 on."""
    before = np.arange(1 - len(past), 1)
    after = np.arange(1, len(truth) + 1)
    axes.fill_between(after, fan[0], fan[4], color=BAND_WIDE, lw=0, label="90 % interval")
    axes.fill_between(after, fan[1], fan[3], color=BAND_NARROW, lw=0, label="50 % interval")
    axes.axvline(0.5, color=MUTED, lw=0.9, ls=(0, (2, 3)))
    axes.plot(before, past, color=INK, lw=1.3, label="history")
    axes.plot(after, fan[2], color=ACCENT, lw=1.8, label="forecast median")
    # The truth goes on from the last observed value; the forecast starts one step later.
    axes.plot(np.r_[0, after], np.r_[past[-1], truth], color=WARM, lw=1.4, label="truth")
    axes.set_xlim(before[0], after[-1])
    axes.margins(y=0.08)


def draw_histogram(axes: Axes, values: Array, bins: int, count: int) -> None:
    """Draw the PIT histogram relative to uniform, with the band of a calibrated model."""
    band = histogram_band(count, bins=bins)
    style(axes, title="PIT histogram", x="probability integral transform", y="relative frequency")
    draw_bars(axes, band.heights(values), band, "95 % band")
    legend(axes, loc="upper right", ncols=2)


def draw_coverage(axes: Axes, nominal: Array, empirical: Array, error: Array) -> None:
    """Draw empirical over nominal coverage, each of shape `(levels,)`, around the diagonal."""
    held = float(np.interp(0.9, nominal, empirical))
    style(
        axes,
        title=f"Coverage: the 90 % interval holds {100 * held:.1f} %",
        x="nominal coverage (%)",
        y="empirical coverage (%)",
    )
    ends = np.array([0.0, 1.0])
    level, half = np.r_[0.0, nominal, 1.0], np.r_[0.0, _NORMAL_95 * error, 0.0]
    low, high = np.clip(level - half, 0, 1), np.clip(level + half, 0, 1)
    axes.fill_between(
        100 * level, 100 * low, 100 * high, color=MUTED, alpha=0.22, lw=0, label="95 % band"
    )
    axes.plot(100 * ends, 100 * ends, color=INK, lw=1.2, label="calibrated")
    axes.plot(
        100 * nominal,
        100 * empirical,
        color=ACCENT,
        lw=1.4,
        marker="o",
        ms=5,
        label="model",
        clip_on=False,
        zorder=3,
    )
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_aspect("equal")
    for x, y, side, note in (
        (4, 94, "left", "above: too wide"),
        (96, 5, "right", "below: too narrow"),
    ):
        box = {"facecolor": "white", "edgecolor": "none", "pad": 2}
        axes.text(x, y, note, ha=side, color=MUTED, fontsize=10, bbox=box)
    legend(axes, loc="center left", bbox_to_anchor=(1.0, 0.5))


def draw_rank(axes: Axes, kl: Array, statistics: UnitStatistics) -> None:
    """Draw units by falling KL, active ones coloured, with the threshold."""
    order = np.argsort(-kl, kind="stable")
    rank, active = np.arange(1, len(kl) + 1), statistics.active[order]
    size = float(np.clip(1500 / len(kl), 8, 40))
    title = f"{int(active.sum())} of {len(kl)} units active"
    style(axes, title=title, x="unit, ordered by KL", y=_KL_LABEL)
    axes.set_yscale("log")
    axes.vlines(
        rank[active], statistics.threshold, kl[order][active], color=BAND_WIDE, lw=1.2, zorder=1
    )
    for mask, colour, label in ((active, ACCENT, "active"), (~active, MUTED, "collapsed")):
        if mask.any():
            axes.scatter(rank[mask], kl[order][mask], s=size, color=colour, lw=0, label=label)
    axes.axhline(statistics.threshold, color=WARM, lw=1.1, ls=(0, (4, 3)), label="threshold")
    legend(axes, loc="upper right", markerscale=(40 / size) ** 0.5)


def draw_units(
    axes: Axes, kl: Array, values: Array, statistics: UnitStatistics, label: str
) -> None:
    """Scatter one statistic over KL, active units coloured."""
    style(axes, x=_KL_LABEL, y=label)
    axes.set_xscale("log")
    size = float(np.clip(1500 / len(kl), 8, 30))
    for mask, colour in ((statistics.active, ACCENT), (~statistics.active, MUTED)):
        axes.scatter(kl[mask], values[mask], s=size, color=colour, alpha=0.75, lw=0)
    axes.axvline(statistics.threshold, color=WARM, lw=1.1, ls=(0, (4, 3)))


def above_zero(values: Array, floor: float) -> Array:
    """Lift values to a tenth of `floor`, or of the smallest positive value if that is lower."""
    positive = values[values > 0]
    least = min(floor, float(positive.min())) if len(positive) else floor
    return np.maximum(values, 0.1 * least)
