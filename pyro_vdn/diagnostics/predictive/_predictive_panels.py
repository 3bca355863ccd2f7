"""The single panels of figures about predictive checks and transforms."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyro_vdn.diagnostics._figure import (
    ACCENT,
    BAND_NARROW,
    BAND_WIDE,
    INK,
    MUTED,
    WARM,
    plain,
    style,
    whole_numbers,
)
from pyro_vdn.diagnostics.predictive._p_value_text import p_value_text
from pyro_vdn.diagnostics.predictive.ecdf_bands import EcdfBand
from pyro_vdn.diagnostics.predictive.histogram_bands import HistogramBand

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
_MOST_TICKS = 40
"""Places beyond which labels would overlap."""
_FEW_VALUES = 12
_SLACK = 1e-9


def draw_ecdf_difference(axes: Axes, difference: Array, band: EcdfBand, label: str) -> None:
    """Draw how far the distribution function is from uniform, `(points,)`, in its band."""
    x = np.r_[0.0, band.points, 1.0]
    ends = (np.r_[0.0, side, 0.0] for side in (band.lower_difference, band.upper_difference))
    axes.fill_between(x, *ends, color=MUTED, alpha=0.22, lw=0, label=label)
    axes.axhline(0.0, color=INK, lw=1.2, label="calibrated")
    axes.plot(x, np.r_[0.0, difference, 0.0], color=ACCENT, lw=1.8, label="values")
    beyond = (difference < band.lower_difference - _SLACK) | (
        difference > band.upper_difference + _SLACK
    )
    if beyond.any():
        at = band.points[beyond], difference[beyond]
        axes.plot(*at, color=WARM, ls="", marker="o", ms=4, label="outside")
    axes.set_xlim(0.0, 1.0)
    most = max(float(np.abs(difference).max()), float(band.upper_difference.max()))
    axes.set_ylim(-1.3 * most, 1.6 * most)  # above: the legend


def draw_bars(axes: Axes, heights: Array, band: HistogramBand, label: str) -> None:
    """Draw a histogram relative to uniform, `(bins,)`, in its band."""
    beyond = (heights < band.lower - _SLACK) | (heights > band.upper + _SLACK)
    colours = np.where(beyond, WARM, BAND_NARROW)
    edges = band.edges
    axes.bar(edges[:-1], heights, np.diff(edges), align="edge", color=colours.tolist(), ec="white")
    low, high = (np.r_[side, side[-1]] for side in (band.lower, band.upper))
    axes.fill_between(
        edges, low, high, step="post", color=MUTED, alpha=0.22, lw=0, zorder=0.5, label=label
    )
    for side in (band.lower, band.upper):
        axes.stairs(side, edges, baseline=None, color=MUTED, lw=1.1)
    axes.axhline(1.0, color=INK, lw=1.2, label="calibrated")
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(0.0, 1.3 * max(float(heights.max()), float(band.upper.max())))
    axes.grid(visible=False, axis="x")


def draw_replicated(
    axes: Axes, name: str, replicated: Array, observed: float, p_value: float, *, outside: bool
) -> None:
    """Draw a histogram of a statistic of draws, `(draws,)`, with that of the data."""
    known = replicated[np.isfinite(replicated)]
    undefined = math.isnan(observed) or len(known) == 0
    style(axes)
    axes.set_yticks([])
    axes.grid(visible=False)
    look: dict[str, Any] = {"loc": "left", "fontsize": 12, "pad": 8, "parse_math": False}
    if undefined:
        axes.set_title(f"{name}: undefined", color=MUTED, **look)
        axes.set_xticks([])
        return
    axes.set_title(f"{name}: p {p_value_text(p_value)}", color=WARM if outside else INK, **look)
    at, many = np.unique(known, return_counts=True)
    if len(at) <= _FEW_VALUES and len(at) < len(known):  # bins would be off what is discrete
        axes.vlines(at, 0, many, color=BAND_NARROW, lw=9, label="draws of the model")
        axes.set_ylim(bottom=0)
        reach = max(float(at[-1]), observed) - min(float(at[0]), observed)
        margin = 0.15 * reach or 0.5
        axes.set_xlim(min(at[0], observed) - margin, max(at[-1], observed) + margin)
    else:
        bins = min(40, max(5, round(1.5 * len(known) ** 0.5)))
        axes.hist(known, bins, color=BAND_NARROW, histtype="stepfilled", label="draws of the model")
    axes.axvline(observed, color=WARM, lw=2.2, label="data")
    axes.locator_params(axis="x", nbins=5)


def draw_places(
    axes: Axes,
    replicated: Array,
    observed: Array,
    outside: NDArray[np.bool_],
    places: Sequence[Hashable],
    *,
    ordered: bool,
) -> None:
    """Draw intervals of a statistic of draws by place, `(draws, places)`, with that of the data.

    Args:
        axes: Where to draw.
        replicated: `(draws, places)`, NaN where undefined.
        observed: `(places,)`, likewise.
        outside: Where the data lie outside, `(places,)`.
        places: Labels.
        ordered: Whether places follow each other, as steps do: bands instead of bars.
    """
    known = np.isfinite(replicated).any(0)
    fan = np.full((len(_LEVELS), len(places)), np.nan)
    if known.any():
        fan[:, known] = np.nanquantile(replicated[:, known], _LEVELS, axis=0, method="weibull")
    x = np.asarray(places, dtype=np.float64) if ordered else np.arange(len(places), dtype=float)
    if ordered:
        axes.fill_between(x, fan[0], fan[4], color=BAND_WIDE, lw=0, label="90 % of draws")
        axes.fill_between(x, fan[1], fan[3], color=BAND_NARROW, lw=0, label="50 % of draws")
        axes.plot(x, fan[2], color=ACCENT, lw=1.4, label="median of draws")
        axes.plot(x, observed, color=INK, lw=1.2, label="data")
        axes.margins(x=0.02)
        whole_numbers(axes.xaxis)
    else:
        width = float(np.clip(180 / len(places), 1.5, 14))
        axes.vlines(x, fan[0], fan[4], color=BAND_WIDE, lw=width, label="90 % of draws")
        axes.vlines(x, fan[1], fan[3], color=BAND_NARROW, lw=width, label="50 % of draws")
        axes.plot(x, observed, color=INK, ls="", marker="o", ms=4, label="data")
        axes.set_xlim(-0.6, len(places) - 0.4)
        _label_places(axes, places)
    if outside.any():
        axes.plot(
            x[outside],
            observed[outside],
            color=WARM,
            ls="",
            marker="o",
            ms=5.5,
            label="data outside",
        )
    axes.margins(y=0.08)
    axes.grid(visible=False, axis="x")


def _label_places(axes: Axes, places: Sequence[Hashable]) -> None:
    if len(places) > _MOST_TICKS:
        whole_numbers(axes.xaxis)
        return
    names = [str(place) for place in places]
    longest = max(len(name) for name in names)
    axes.set_xticks(range(len(names)), [plain(name) for name in names])
    if longest * len(names) > 60:
        axes.tick_params(axis="x", rotation=90 if len(names) > 12 else 30)
