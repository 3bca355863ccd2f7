"""Figure of a comparison of fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyro_vdn.diagnostics._figure import ACCENT, BAND_NARROW, INK, MUTED, new_figure, plain, style
from pyro_vdn.diagnostics.comparison.compare import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_compare(comparison: Comparison) -> Figure:
    """Draw how far each fit falls behind the best, with its interval, and the weights.

    Differences are in nats per row. They are paired, so that their intervals, not those of elpd
    itself, say which fit is worse.

    Args:
        comparison: What :func:`compare` returned.

    Returns:
        The figure, 1200 px wide at its own resolution.

    Raises:
        MissingPackageError: If matplotlib is not installed.

    Example:
        >>> from pyro_vdn.diagnostics import compare
        >>> easy = np.random.default_rng(0).normal(size=200)
        >>> figure = plot_compare(compare({"a": easy - 1.1, "b": easy + 0.2 * np.sin(easy)}))
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['Held-out log density, less that of b', 'Weights']
    """
    names = [fit.name for fit in comparison.fits]
    figure = new_figure(1.9 + 0.5 * len(names))
    left, right = figure.subplots(1, 2, width_ratios=[2.4, 1.0], sharey=True)
    title = f"Held-out log density, less that of {names[0]}"
    style(left, title=title, x=f"nats per row, with {100 * comparison.level:g} % interval")
    style(right, title="Weights", x="weight in a mixture of all")
    _draw_differences(left, comparison)
    _draw_weights(right, comparison)
    left.set_yticks(range(len(names)), [plain(name) for name in names])
    left.set_ylim(len(names) - 0.4, -0.6)
    right.tick_params(axis="y", labelleft=False, length=0)
    return figure


def _draw_differences(axes: Axes, comparison: Comparison) -> None:
    axes.axvline(0.0, color=MUTED, lw=1.2)
    for at, fit in enumerate(comparison.fits):
        behind, half = -fit.elpd_diff / comparison.rows, (fit.upper - fit.lower) / 2
        look = ACCENT if fit.is_worse or at == 0 else MUTED
        axes.errorbar(
            behind, at, xerr=half / comparison.rows, color=look, fmt="o", ms=7, lw=2, capsize=4
        )
        if at:
            axes.annotate(
                f"{behind:+.3g}",
                (behind, at),
                (0, 9),
                textcoords="offset points",
                ha="center",
                fontsize=9,
                color=INK,
            )


def _draw_weights(axes: Axes, comparison: Comparison) -> None:
    weights = np.array([fit.weight for fit in comparison.fits])
    axes.barh(range(len(weights)), weights, color=BAND_NARROW, height=0.55)
    for at, weight in enumerate(weights):
        axes.annotate(
            f"{weight:.2f}",
            (weight, at),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=10,
            color=INK,
        )
    axes.set_xlim(0, 1.15)
    axes.set_xticks([0, 0.5, 1])
