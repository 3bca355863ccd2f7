"""Figures of predictive uncertainty and where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pyro_vdn.diagnostics._figure import (
    ACCENT,
    BAND_NARROW,
    BAND_WIDE,
    INK,
    MUTED,
    WARM,
    legend,
    new_figure,
    style,
    whole_numbers,
)
from pyro_vdn.diagnostics.comparison.decomposition import Decomposition
from pyro_vdn.diagnostics.comparison.unit_shares import UnitShares
from pyro_vdn.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

_BINS = 20
_MOST_LAYERS = 6
_MOST_BARS = 40


def plot_decomposition(decomposition: Decomposition, *, output: int | None = None) -> Figure:
    """Draw both parts of the predictive variance, and the mutual information.

    Rows stand in the order of their total variance. Where they are sequences, means over rows are
    drawn step by step instead.

    Args:
        decomposition: What :func:`decompose_variance` returned.
        output: The output, or class, to draw; by default the sum over all of them, which wants them
            in one unit. Information of outputs is averaged.

    Returns:
        The figure, 1200 px wide at its own resolution; where no information is known, its right
        panel shows the share of the variance that is between draws.

    Raises:
        InputError: For an output that is not there.
        MissingPackageError: If matplotlib is not installed.

    Example:
        >>> import torch
        >>> parts = Decomposition(torch.rand(50, 1), torch.rand(50, 1), None, None, 100)
        >>> [axes.get_title(loc="left") for axes in plot_decomposition(parts).axes]
        ['Predictive variance: ... % between draws', 'Share of the variance between draws']
    """
    aleatoric = _chosen(decomposition.aleatoric, output)
    between = _chosen(decomposition.between, output)
    information = _information(decomposition, output)
    by_step = aleatoric.ndim == 2
    order = slice(None) if by_step else np.argsort(aleatoric + between, kind="stable")
    if by_step:
        aleatoric, between = aleatoric.mean(axis=0), between.mean(axis=0)
        information = None if information is None else information.mean(axis=0)
    figure = new_figure(4.8)
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1.0])
    label = "step" if by_step else "rows, by predictive variance"
    title = f"{100 * between.sum() / (aleatoric + between).sum():.1f} % between draws"
    style(left, title=f"Predictive variance: {title}", x=label, y="variance")
    _draw_parts(left, aleatoric[order], between[order])
    if information is None:
        style(right, title="Share of the variance between draws", x=label, y="share")
        _draw_line(right, (between / (aleatoric + between))[order], by_step=by_step)
    else:
        style(right, title="Information of outcome and neurons", x=label, y="nats")
        _draw_line(right, information[order], by_step=by_step)
    return figure


def plot_unit_shares(shares: UnitShares) -> Figure:
    """Draw the share of the variance between draws that each unit brings in, by rank.

    A panel for each of the first six layers, with the 40 largest units. Bars are what is lost when
    a unit is held at its mean, with two standard errors; dots what is left when it alone is not.

    Args:
        shares: What :func:`unit_shares` returned.

    Returns:
        The figure, 1200 px wide at its own resolution.

    Raises:
        InputError: If no unit was measured.
        MissingPackageError: If matplotlib is not installed.

    Example:
        >>> import torch
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> from pyro_vdn.diagnostics import unit_shares
        >>> model = Regression(3, num_units=4)
        >>> figure = plot_unit_shares(unit_shares(model, NeuronGuide(model), torch.randn(50, 3)))
        >>> figure.axes[0].get_title(loc="left")
        'neurons: 100.0 % lost when held'
    """
    paths = [path for path, layer in shares.layers.items() if layer.units][:_MOST_LAYERS]
    if not paths:
        raise InputError(
            "shares",
            expected="at least one unit that was measured",
            got="none",
            hint="unit_shares(model, guide, x)",
        )
    lines = -(-len(paths) // 2)
    figure = new_figure(4.2 if lines == 1 else 0.6 + 3.2 * lines)
    panels: Any = figure.subplots(lines, min(2, len(paths)), squeeze=False, sharey=True)
    for at, panel in enumerate(panels.flat):
        if at >= len(paths):
            panel.remove()
            continue
        lost = 100 * float(shares.layer_lost(paths[at]).value)
        y = "% of the variance between draws" if at % 2 == 0 else ""
        style(panel, title=f"{paths[at]}: {lost:.1f} % lost when held", x="unit, by share", y=y)
        _draw_units(panel, shares, paths[at])
    legend(panels.flat[0], loc="upper right")
    return figure


def _draw_parts(axes: Axes, aleatoric: Array, between: Array) -> None:
    place = np.arange(1, len(aleatoric) + 1)
    axes.fill_between(place, 0, aleatoric, color=BAND_WIDE, lw=0, label="aleatoric")
    axes.fill_between(
        place, aleatoric, aleatoric + between, color=ACCENT, lw=0, label="between draws"
    )
    axes.set_xlim(1, max(2, len(place)))
    axes.set_ylim(0, 1.2 * float((aleatoric + between).max()))
    whole_numbers(axes.xaxis)
    legend(axes, loc="upper left", ncols=2)


def _draw_line(axes: Axes, values: Array, *, by_step: bool) -> None:
    """Draw values in their order; of rows dots, and means of equal parts of them."""
    place = np.arange(1, len(values) + 1)
    if by_step:
        marker = "o" if len(place) < 30 else None
        axes.plot(place, values, color=ACCENT, lw=2, marker=marker, clip_on=False)
    else:
        axes.scatter(place, values, s=8, color=BAND_NARROW, lw=0, label="row")
        parts = np.array_split(np.arange(len(values)), min(_BINS, max(1, len(values) // 10)))
        means = [(place[part].mean(), values[part].mean()) for part in parts]
        axes.plot(*np.transpose(means), color=ACCENT, lw=2, label="mean of rows")
        legend(axes, loc="best")
    axes.set_xlim(1, max(2, len(place)))
    axes.set_ylim(bottom=0)
    whole_numbers(axes.xaxis)


def _draw_units(axes: Axes, shares: UnitShares, path: str) -> None:
    lost, alone = shares.lost(path), shares.alone(path)
    order = lost.value.argsort(descending=True)[:_MOST_BARS]
    bars, errors, dots = (
        100 * _array(values[order]) for values in (lost.value, lost.error, alone.value)
    )
    place = np.arange(1, len(bars) + 1)
    axes.bar(place, bars, color=BAND_NARROW, width=0.8, label="lost when held")
    axes.errorbar(place, bars, 2 * np.nan_to_num(errors), fmt="none", color=INK, lw=1.2)
    axes.scatter(place, dots, s=22, color=WARM, zorder=3, label="left alone")
    axes.axhline(0.0, color=MUTED, lw=0.8)
    left_out = len(lost.value) - len(bars)
    axes.set_xlim(0.3, len(bars) + 0.7)
    if left_out:
        rest = 100 * float(lost.value.sum()) - bars.sum()
        axes.annotate(
            f"{left_out} more units: {rest:.1f} %",
            (0.98, 0.5),
            xycoords="axes fraction",
            ha="right",
            fontsize=10,
            color=INK,
        )
    units = [shares.layers[path].units[int(at)] for at in order]
    if len(bars) <= 20:
        axes.set_xticks(place, [str(unit) for unit in units])
    else:
        whole_numbers(axes.xaxis)


def _chosen(values: Tensor, output: int | None) -> Array:
    """Return one output, or the sum of them, `(rows,)` or `(rows, time)`."""
    array = _array(values)
    if output is None:
        summed: Array = array.sum(axis=-1)
        return summed
    if not -array.shape[-1] <= output < array.shape[-1]:
        raise InputError(
            "output",
            expected=f"one of {array.shape[-1]} outputs, counted from 0",
            got=str(output),
            hint="output=None for all of them",
        )
    chosen: Array = array[..., output]
    return chosen


def _information(decomposition: Decomposition, output: int | None) -> Array | None:
    values = decomposition.mutual_information
    if values is None:
        return None
    if values.shape != decomposition.between.shape:  # of a class: all classes together
        return _array(values)
    return _array(values.mean(-1)) if output is None else _chosen(values, output)


def _array(values: Tensor) -> Array:
    array: Array = values.detach().cpu().double().numpy()
    return array
