"""Figures of predictive checks, and of transforms or ranks that should be uniform."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from pyro_vdn.diagnostics._figure import INK, MUTED, legend, new_figure, style
from pyro_vdn.diagnostics.predictive import _predictive_panels as _panels
from pyro_vdn.diagnostics.predictive._p_value_text import p_value_text
from pyro_vdn.diagnostics.predictive.ecdf_bands import ecdf_band
from pyro_vdn.diagnostics.predictive.histogram_bands import histogram_band
from pyro_vdn.diagnostics.predictive.predictive_check import PredictiveCheck
from pyro_vdn.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_PANELS = 16
_X_LABELS = {"horizon": "step", "group": "group", "output": "output", "row": "row"}


def plot_pit(
    values: Tensor | ArrayLike,
    *,
    ranks: int | None = None,
    level: float = 0.95,
    bins: int = 20,
    effective_count: int | None = None,
) -> Figure:
    """Draw transforms, or ranks, that should be uniform: distribution function and histogram.

    Left, the empirical distribution function less the uniform one, right the histogram; each in a
    band that holds *all* of it with probability `level` if the values are uniform. The title says
    how often uniform values stray as far. A curve that first rises above 0 and then falls below it
    comes from predictions that are too narrow, the reverse from too wide ones; one above 0
    throughout, from predictions that are too high.

    Args:
        values: Transforms from :func:`pit` or :func:`loo_pit`, in [0, 1], or ranks such as those of
            simulation-based calibration; any shape.
        ranks: Number of possible ranks, `draws + 1`; None for transforms.
        level: Probability that each band holds, in (0, 1).
        bins: Bins of the histogram, at least 2.
        effective_count: Number of independent values behind the bands, the number of values by
            default. Steps of one forecast, and overlapping windows, move together: pass the number
            of rows, or of windows that do not overlap.

    Returns:
        The figure, 1200 px wide at its own resolution.

    Raises:
        InputError: If a value is out of range, or a number too small.
        MissingPackageError: If matplotlib is not installed.

    Example:
        >>> figure = plot_pit(np.linspace(0.0, 1.0, 400) ** 1.5)
        >>> figure.axes[0].get_title(loc="left")
        'Distribution function: leaves the 95 % band (p < 0.001)'

    Source: Säilynoja, Bürkner and Vehtari 2022.
    """
    given = math.prod(values.shape if isinstance(values, Tensor) else np.shape(values))
    count = given if effective_count is None else effective_count
    band = ecdf_band(count, level=level, ranks=ranks)
    bars = histogram_band(count, bins=bins, level=level, ranks=ranks)
    difference, p_value = band.difference(values), band.p_value(values)
    band_label = f"{100 * level:g} % band"
    figure = new_figure(5.0)
    left, right = figure.subplots(1, 2)
    what = "probability integral transform" if ranks is None else "rank, as a share"
    verdict = "stays in" if band.inside(values) else "leaves"
    title = f"Distribution function: {verdict} the {band_label} (p {p_value_text(p_value)})"
    style(left, title=title, x=what, y="empirical less uniform")
    _panels.draw_ecdf_difference(left, difference, band, band_label)
    legend(left, loc="upper right", ncols=2)
    note = "up, then down: too narrow   ·   down, then up: too wide"
    left.text(0.02, 0.03, note, transform=left.transAxes, color=MUTED, fontsize=10)
    style(right, title=f"Histogram of {given} values", x=what, y="relative frequency")
    _panels.draw_bars(right, bars.heights(values), bars, band_label)
    legend(right, loc="upper right", ncols=2)
    return figure


def plot_predictive_check(check: PredictiveCheck, *, level: float = 0.95) -> Figure:
    """Draw statistics of the data among those of the draws, one panel per statistic.

    Of everything together: a histogram of the draws' statistics with a line for the data and the
    p-value. By group, step, output or row: intervals of the draws with the data. Where the data lie
    outside the central interval of the draws at `level`, they (or the title) are set in red; each
    place is judged by itself, so expect a share `1 - level` of them.

    Args:
        check: What :func:`predictive_check` returned, of at most 16 statistics.
        level: Share of the draws beyond which data are marked, in (0, 1).

    Returns:
        The figure, 1200 px wide at its own resolution.

    Raises:
        InputError: If there are too many statistics, the level lies outside (0, 1), or there are
            too few draws for it.
        MissingPackageError: If matplotlib is not installed.

    Example:
        >>> import torch
        >>> from pyro_vdn.diagnostics import predictive_check
        >>> check = predictive_check(torch.randn(200, 50), 9 + torch.randn(50), statistics=["mean"])
        >>> plot_predictive_check(check).axes[0].get_title(loc="left")
        'mean: p = 0.002'

    Source: Gelman et al., *Bayesian Data Analysis*, 3rd edition, 2013, chapter 6; Gabry et al.,
    *Visualization in Bayesian Workflow*, 2019.
    """
    names = check.names
    if len(names) > _MOST_PANELS:
        raise InputError(
            "check",
            expected=f"at most {_MOST_PANELS} statistics, one panel each",
            got=str(len(names)),
            hint="predictive_check(draws, y, statistics=['mean', 'sd', 'max'])",
        )
    outside = check.outside(level)
    arrays = check.to_arrays()
    single = len(check.places) == 1
    lines = -(-len(names) // (4 if single else 2))
    columns = -(-len(names) // lines)
    figure = new_figure(0.8 + (2.3 if single else 2.9) * max(lines, 1 + (columns < 2)))
    axes: Any = figure.subplots(lines, columns, squeeze=False)
    for at, panel in enumerate(axes.flat):
        if at >= len(names):
            panel.remove()
            continue
        replicated, seen = arrays["replicated"][:, at], arrays["observed"][at]
        if single:
            p_value = float(arrays["p_value"][at, 0])
            _panels.draw_replicated(
                panel, names[at], replicated[:, 0], float(seen[0]), p_value, outside=outside[at, 0]
            )
            continue
        last = at + columns >= len(names)
        known = int(np.isfinite(arrays["p_value"][at]).sum())
        title = f"{names[at]}: {int(outside[at].sum())} of {known} outside {100 * level:g} %"
        style(panel, title=title, x=_X_LABELS[check.per] if last else "")
        ordered = check.per == "horizon"
        _panels.draw_places(panel, replicated, seen, outside[at], check.places, ordered=ordered)
    _legend_above(figure)
    return figure


def _legend_above(figure: Figure) -> None:
    """Put one legend for all panels above them."""
    named: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    if named:
        where: dict[str, Any] = {"loc": "outside upper center", "ncols": len(named)}
        look: dict[str, Any] = {"fontsize": 11, "frameon": False, "labelcolor": INK}
        figure.legend(list(named.values()), list(named), **where, **look)
