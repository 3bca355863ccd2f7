"""Heat maps of units over steps: colours, edges, and the place of a value in its band."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyro_vdn.diagnostics._figure import ACCENT, INK, MUTED, WARM, style, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

_TINY = 1e-12
_PAPER = "#f6f4ef"
_DEEP = "#0d3b4f"
_BURNT = "#7a2413"


def light_to_dark() -> Any:
    """Return a sequential map from paper to ink; its lightness falls evenly."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(
        "vdn_light_to_dark", [_PAPER, "#cfe3ea", "#93c1d0", "#4d94ad", ACCENT, _DEEP]
    )


def cold_to_warm(*, blank: float = 0.0) -> Any:
    """Return a diverging map, blue to orange, with a share `blank` of plain paper in its middle."""
    from matplotlib.colors import LinearSegmentedColormap

    low, high = 0.5 - 0.5 * blank, 0.5 + 0.5 * blank
    stops = [(0.0, _DEEP), (0.55 * low, ACCENT), (low, "#d3e5ec" if blank else _PAPER)]
    if blank:
        stops += [(low + 1e-6, _PAPER), (high - 1e-6, _PAPER)]
    stops += [(high, "#f6d9cd" if blank else _PAPER), (1 - 0.55 * low, WARM), (1.0, _BURNT)]
    return LinearSegmentedColormap.from_list("vdn_cold_to_warm", _distinct(stops))


def place_in_band(values: Array, low: Array, high: Array) -> Array:
    """Return where values stand: -1/2 to 1/2 inside their band, then decades below and above it."""
    at, low, high = (np.log10(np.maximum(value, _TINY)) for value in (values, low, high))
    inside = (at - low) / np.maximum(high - low, _TINY) - 0.5
    outside = np.where(at < low, at - low - 0.5, at - high + 0.5)
    place: Array = np.where((at < low) | (at > high), outside, inside)
    return place


def edges(steps: Array) -> Array:
    """Return the borders of cells around steps, `(times,)` to `(times + 1,)`."""
    if len(steps) == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    between = 0.5 * (steps[1:] + steps[:-1])
    ends = 2 * steps[:1] - between[:1], 2 * steps[-1:] - between[-1:]
    return np.concatenate([ends[0], between, ends[1]])


def draw_heat(axes: Axes, steps: Array, values: Array, **colours: Any) -> Any:
    """Draw `(times, units)` as cells, units upwards from the first."""
    mesh = axes.pcolormesh(
        edges(steps), np.arange(values.shape[1] + 1) + 0.5, values.T, rasterized=True, **colours
    )
    axes.grid(visible=False)
    axes.set_ylim(values.shape[1] + 0.5, 0.5)
    whole_numbers(axes.yaxis)
    return mesh


def colour_bar(figure: Figure, mesh: Any, axes: Axes, label: str, **options: Any) -> Any:
    """Add a colour bar in the house look."""
    bar = figure.colorbar(mesh, ax=axes, pad=0.012, aspect=22, fraction=0.05, **options)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=10, colors=INK, color=MUTED, length=3)
    bar.ax.tick_params(which="minor", length=0)
    bar.set_label(label, fontsize=11, color=INK)
    return bar


def draw_kl(figure: Figure, axes: Axes, steps: Array, kl: Array, mark: float) -> None:
    """Draw KL `(times, units)` on a logarithmic scale, with a mark on its colour bar."""
    from matplotlib.colors import LogNorm

    top = max(float(kl.max()), 10 * mark)
    norm = LogNorm(vmin=0.01 * mark, vmax=top, clip=True)
    mesh = draw_heat(axes, steps, kl, norm=norm, cmap=light_to_dark())
    bar = colour_bar(figure, mesh, axes, "KL (nats)", extend="min")
    bar.ax.axhline(mark, color=WARM, lw=1.6)
    _outline(axes, steps, kl, mark, WARM)


def draw_energy(figure: Figure, axes: Axes, steps: Array, mu2: Array) -> None:
    """Draw energy `(times, units)` on a logarithmic scale."""
    from matplotlib.colors import LogNorm

    shown = np.maximum(mu2, _TINY)
    low = max(float(np.quantile(shown, 0.02)), 1e-6)
    norm = LogNorm(vmin=low, vmax=max(float(shown.max()), 10 * low), clip=True)
    mesh = draw_heat(axes, steps, shown, norm=norm, cmap=light_to_dark())
    colour_bar(figure, mesh, axes, "energy μ²", extend="min")


def draw_energy_in_band(
    figure: Figure, axes: Axes, steps: Array, mu2: Array, low: Array, high: Array
) -> None:
    """Draw energy `(times, units)` against the band of each unit, `(units,)`."""
    place = place_in_band(mu2, low, high)
    reach = float(np.clip(np.ceil(np.abs(place).max() - 0.5), 1, 3))
    limit = 0.5 + reach
    mesh = draw_heat(
        axes, steps, place, vmin=-limit, vmax=limit, cmap=cold_to_warm(blank=0.5 / limit)
    )
    bar = colour_bar(figure, mesh, axes, "energy μ² against its band", extend="both")
    decades = np.arange(reach, 0, -1)
    bar.set_ticks([*(-0.5 - decades), -0.5, 0.5, *(0.5 + decades[::-1])])
    same = bool(np.ptp(low) == 0 and np.ptp(high) == 0)
    names = (f"low {low[0]:.2g}", f"high {high[0]:.2g}") if same else ("low", "high")
    bar.set_ticklabels(
        [
            *(f"low / {10**d:g}" for d in decades),
            *names,
            *(f"high \u00d7 {10**d:g}" for d in decades[::-1]),
        ]
    )
    for bound in (-0.5, 0.5):
        bar.ax.axhline(bound, color=INK, lw=1.2)


def style_heat(axes: Axes, title: str, *, bottom: bool) -> None:
    """Give a heat map its titles; only the lowest of a stack names the steps."""
    style(axes, title=title, x="training step" if bottom else "", y="unit, ordered by final KL")
    axes.grid(visible=False)


def _outline(axes: Axes, steps: Array, values: Array, level: float, colour: str) -> None:
    """Draw the border between cells under and over a level, where there is one."""
    over = (values > level).astype(float)
    if len(steps) > 1 and values.shape[1] > 1 and 0 < over.mean() < 1:
        units = np.arange(1, values.shape[1] + 1)
        axes.contour(steps, units, over.T, levels=[0.5], colors=colour, linewidths=1.2)


def _distinct(stops: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Drop stops at the place of the one before."""
    kept = [stops[0]]
    for stop in stops[1:]:
        if stop[0] > kept[-1][0]:
            kept.append(stop)
    return kept
