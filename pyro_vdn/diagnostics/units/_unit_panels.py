"""The panels of the figures of units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyro_vdn.diagnostics._figure import (
    ACCENT,
    BAND_NARROW,
    INK,
    MUTED,
    WARM,
    plain,
    style,
    whole_numbers,
)
from pyro_vdn.diagnostics.calibration._panels import above_zero
from pyro_vdn.diagnostics.units._heat import cold_to_warm, colour_bar
from pyro_vdn.diagnostics.units.statistics import UnitStatistics
from pyro_vdn.diagnostics.units.symptoms import (
    CollapseMode,
    CollapseThresholds,
    same_for_every_input,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pyro_vdn.diagnostics.units.collapse import CollapseReport

Array = NDArray[np.float64]

_LOOKS: dict[CollapseMode, tuple[str, str]] = {
    CollapseMode.LIVING: (ACCENT, "o"),
    CollapseMode.VARIANCE_BLOW_UP: ("#b07aa1", "D"),
    CollapseMode.FROZEN_IN_TIME: ("#6a8caf", "p"),
    CollapseMode.POSTERIOR_COLLAPSE: (MUTED, "v"),
    CollapseMode.ENERGY_BLOW_UP: (WARM, "^"),
    CollapseMode.DETERMINISTIC_COLLAPSE: ("#e0a339", "s"),
    CollapseMode.IGNORED: (INK, "x"),
}
"""Colour and marker of each mode: told apart by shape and by lightness, not by hue alone."""

_TERM_NAMES = {
    "log_likelihood": "log-likelihood",
    "kl": "KL, weighted",
    "penalty": "penalty",
    "local": "local reconstruction",
    "others": "other latents, log p - log q",
    "elbo": "ELBO, every weight 1",
}
_MOST_NAMES = 40


def draw_contraction(axes: Axes, s: UnitStatistics) -> None:
    """Draw the histogram of contraction, units with the same posterior for all inputs apart."""
    known = np.isfinite(s.contraction)
    values = np.clip(s.contraction[known], -1.0, 1.0)
    same = same_for_every_input(s, CollapseThresholds())[known]
    least = float(values.min()) if len(values) else 0.0
    low = -1.0 if least < -0.5 else min(0.0, float(np.floor(least * 10) / 10))
    unknown = int((~known).sum())
    if unknown:
        _say(axes, f"{unknown} units not shown: their prior has no finite variance")
    bins = np.linspace(low, 1.0, round((1.0 - low) * 20) + 1)
    axes.hist(
        [values[~same], values[same]],
        bins.tolist(),
        stacked=True,
        color=[ACCENT, "#c9ced4"],
        edgecolor="white",
        linewidth=0.8,
        label=["answers to its input", "same for every input"],
    )
    axes.axvline(0.0, color=WARM, lw=1.2, ls=(0, (4, 3)), label="as wide as the prior")
    axes.set_xlim(min(low, -0.05), 1.0)
    whole_numbers(axes.yaxis)
    axes.margins(y=0.08)
    axes.grid(visible=False, axis="x")


def draw_term(axes: Axes, name: str, steps: Array, values: Array, *, bottom: bool) -> None:
    """Draw a loss term over steps: as noted, and smoothed."""
    style(axes, title=_TERM_NAMES.get(name, name), x="training step" if bottom else "", y="nats")
    axes.tick_params(labelbottom=bottom)
    known = np.isfinite(values)
    if not known.all():
        _say(axes, f"{int((~known).sum())} of {len(values)} notes not shown: not finite")
    steps, values = steps[known], values[known]
    if not len(values):
        return
    axes.plot(steps, values, color=BAND_NARROW, lw=1.0)
    axes.plot(steps, _smooth(values, max(1, len(values) // 20)), color=ACCENT, lw=1.8)
    # The first steps of a fit would flatten all that follows.
    low, high = np.quantile(values[len(values) // 20 :], [0.0, 1.0])
    margin = 0.08 * (high - low) or 1.0
    axes.set_ylim(low - margin, high + margin)
    axes.margins(x=0.01)


def draw_responses(
    figure: Figure, axes: Axes, values: Array, features: Sequence[str] | None
) -> None:
    """Draw correlations `(units, features)` with units grouped by their strongest feature."""
    units, count = values.shape
    strongest = np.abs(values).argmax(1)
    order = np.lexsort((-np.abs(values).max(1), strongest))
    mesh = axes.pcolormesh(
        np.arange(units + 1) + 0.5,
        np.arange(count + 1) - 0.5,
        values[order].T,
        cmap=cold_to_warm(),
        vmin=-1,
        vmax=1,
        rasterized=True,
        edgecolors="white" if units * count <= 2000 else "none",
        linewidth=0.6,
    )
    for border in np.flatnonzero(np.diff(strongest[order])) + 1.5:
        axes.axvline(border, color=INK, lw=1.2)
    axes.grid(visible=False)
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_xlim(0.5, units + 0.5)
    if count <= _MOST_NAMES:
        names = features if features is not None else [f"feature {i}" for i in range(count)]
        axes.set_yticks(np.arange(count), [plain(name) for name in names])
    else:
        axes.set_ylabel("feature", fontsize=11, color=INK)
    if units <= 60:
        axes.set_xticks(np.arange(1, units + 1), [str(unit) for unit in order])
        axes.tick_params(axis="x", labelsize=8 if units > 30 else 10)
    else:
        axes.set_xticks([])
    colour_bar(figure, mesh, axes, "correlation of location and input")


def draw_counts(axes: Axes, report: CollapseReport) -> None:
    """Draw the number of units of every mode, as bars."""
    counts = report.counts()
    total = len(report.calls)
    living = counts[CollapseMode.LIVING]
    style(axes, title=f"{living} of {total} units living", x="units")
    at = np.arange(len(counts))
    axes.barh(at, list(counts.values()), color=[_LOOKS[mode][0] for mode in counts], height=0.62)
    layers, measured = len(report.statistics), _measured(report)
    names = {mode: mode.value for mode in counts}
    if 0 < measured < layers:
        names[CollapseMode.IGNORED] += f"\n(use of {measured} of {layers} layers)"
    axes.set_yticks(at, list(names.values()))
    axes.tick_params(axis="y", length=0, labelsize=11)
    axes.set_ylim(len(counts) - 0.5, -0.5)
    axes.set_xlim(0, 1.22 * max(counts.values()))
    whole_numbers(axes.xaxis)
    axes.grid(visible=False, axis="y")
    for place, (mode, count) in zip(at, counts.items(), strict=True):
        text = f" {count}  ({count / total:.0%})" if count else " 0"
        if mode is CollapseMode.IGNORED and not measured:
            text = " use not measured"
        axes.text(
            count, float(place), text, va="center", color=INK if count else MUTED, fontsize=10
        )


def _measured(report: CollapseReport) -> int:
    """Return the number of layers whose use was measured."""
    return sum(s.use is not None for s in report.statistics.values())


def draw_scales(axes: Axes, report: CollapseReport) -> None:
    """Scatter posterior over prior scale against KL, with the thresholds of collapse."""
    thresholds = report.thresholds
    style(axes, title="Where they stand", y="scale / prior scale")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for bound in (thresholds.scale_floor, thresholds.scale_ceiling):
        axes.axhline(bound, color=WARM, lw=1.0, ls=(0, (4, 3)))
    _scatter(axes, report, lambda s: s.scale / s.prior_scale)
    low, high = axes.get_ylim()
    low, high = min(low, 0.3 * thresholds.scale_floor), max(high, 4 * thresholds.scale_ceiling)
    axes.set_ylim(low, high)
    _note(axes, 1.12 * thresholds.scale_ceiling, "blown up", "bottom")
    _note(axes, thresholds.scale_floor / 1.12, "deterministic", "top")


def draw_use(axes: Axes, report: CollapseReport) -> None:
    """Scatter downstream use, or energy where it was not measured, against KL."""
    measured = _measured(report) == len(report.statistics)
    name = "downstream use (nats / row)" if measured else "energy μ²"
    style(axes, x="mean KL to the prior (nats)", y=name)
    axes.set_xscale("log")
    if measured:
        axes.set_yscale("symlog", linthresh=report.thresholds.use, linscale=0.6)
        axes.axhspan(-report.thresholds.use, report.thresholds.use, color=MUTED, alpha=0.18, lw=0)
        _scatter(axes, report, lambda s: np.asarray(s.use))
        _few_ticks(axes, report.thresholds.use)
        _note(axes, 0.9 * report.thresholds.use, "ignored", "top")
    else:
        axes.set_yscale("log")
        _scatter(axes, report, lambda s: above_zero(s.mu2, 1e-6))


def _scatter(axes: Axes, report: CollapseReport, value: Callable[[UnitStatistics], Array]) -> None:
    """Scatter one value per unit against its KL, each mode in its colour and shape."""
    threshold = report.thresholds.kl
    layers = report.statistics.values()
    kl = above_zero(np.concatenate([s.kl for s in layers]), 1e-4)
    values = np.concatenate([value(s) for s in layers])
    modes = np.array([call.mode.value for call in report.calls])
    size = float(np.clip(2500 / len(kl), 10, 42))
    axes.axvline(threshold, color=WARM, lw=1.0, ls=(0, (4, 3)))
    for mode, (colour, marker) in _LOOKS.items():
        chosen = modes == mode.value
        if chosen.any():
            line = 1.4 if marker == "x" else 0.4
            edge: Any = {} if marker == "x" else {"edgecolors": "white"}
            axes.scatter(
                kl[chosen],
                values[chosen],
                s=size,
                color=colour,
                marker=marker,
                linewidths=line,
                alpha=0.9,
                zorder=3,
                **edge,
            )


def _say(axes: Axes, text: str) -> None:
    """Write what is missing from a panel into its upper left corner."""
    box = {"facecolor": "white", "edgecolor": "none", "pad": 2, "alpha": 0.85}
    where: Any = {"transform": axes.transAxes, "va": "top", "ha": "left", "bbox": box}
    axes.text(0.02, 0.97, text, color=WARM, fontsize=9, zorder=5, **where)


def _note(axes: Axes, y: float, text: str, side: str) -> None:
    """Write what a threshold means beside it, at the left edge."""
    where: Any = {"transform": axes.get_yaxis_transform(), "va": side, "ha": "left"}
    where["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.85}
    axes.text(0.012, y, text, color=MUTED, fontsize=9, **where)


def _few_ticks(axes: Axes, threshold: float) -> None:
    """Label the symmetric logarithmic axis at a few round places only."""
    low, high = axes.get_ylim()
    decades = threshold * 10.0 ** np.arange(0, 9)
    ticks = [-d for d in decades[::-1] if -d >= low] + [0.0] + [d for d in decades if d <= high]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.tick_params(axis="y", which="minor", length=0)


def _smooth(values: Array, window: int) -> Array:
    """Return the mean over a centred window, narrower at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    half = np.minimum(np.minimum(at, len(values) - 1 - at), window // 2)
    smoothed: Array = (sums[at + half + 1] - sums[at - half]) / (2 * half + 1)
    return smoothed
