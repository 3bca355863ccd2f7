"""Figures of reliability: of quantiles, and of probabilities of an event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyro_vdn.diagnostics._figure import (
    ACCENT,
    BAND_NARROW,
    INK,
    MUTED,
    legend,
    new_figure,
    style,
)
from pyro_vdn.diagnostics.calibration.event_reliability import EventReliability
from pyro_vdn.diagnostics.calibration.reliability import QuantileReliability
from pyro_vdn.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

_MOST_GROUPS = 12
_MOST_CURVES = 3


def plot_quantile_reliability(reliability: QuantileReliability, *, title: str = "") -> Figure:
    """Draw the share of targets below each quantile, less its level, by group.

    A calibrated model stays around zero, inside the band. From below zero at low levels to above it
    at high ones, intervals are too wide; the other way round, too narrow; on one side of zero
    throughout, predictions are too low (above) or too high (below).

    Args:
        reliability: What :func:`quantile_reliability` returned, of at most twelve groups.
        title: What stands before the names of groups, such as `"step"`, or over a single panel.

    Returns:
        The figure, 1200 px wide at its own resolution.

    Raises:
        InputError: For more than twelve groups.
        MissingPackageError: If matplotlib is not installed.

    Example:
        >>> import torch
        >>> from pyro_vdn.diagnostics import quantile_reliability
        >>> quantiles, target = torch.tensor([[0.25] * 90, [0.75] * 90]), torch.rand(90)
        >>> found = quantile_reliability(quantiles, [0.25, 0.75], target)
        >>> len(plot_quantile_reliability(found).axes)
        1

    Source: Pinson, McSharry and Madsen 2010.
    """
    groups = len(reliability.groups)
    if groups > _MOST_GROUPS:
        raise InputError(
            "reliability",
            expected=f"at most {_MOST_GROUPS} groups, one panel each",
            got=str(groups),
            hint="join groups, such as steps of the horizon, by wider labels",
        )
    columns = {1: 1, 2: 2, 4: 2}.get(groups, 3)
    lines = -(-groups // columns)
    figure = new_figure(0.9 + 2.9 * lines if groups > 1 else 5.0)
    panels: Any = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for at, axes in enumerate(panels.flat):
        if at >= groups:
            axes.remove()
            continue
        _draw_quantiles(axes, reliability, at)
        bottom, left = at + columns >= groups, at % columns == 0
        name = (title or "Quantiles") if groups == 1 else f"{title} {reliability.groups[at]}"
        name += ": inside the band" if bool(reliability.inside[at]) else ": outside the band"
        x = "level of the quantile (%)" if bottom else ""
        style(axes, title=name.strip(), x=x, y="targets below it,\nless the level (%)" * left)
        axes.tick_params(labelbottom=bottom, labelleft=left)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    look = {"fontsize": 11, "frameon": False, "labelcolor": INK}
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), **look)
    return figure


def plot_event_reliability(
    curves: Mapping[str, EventReliability] | EventReliability, *, event: str = "the event"
) -> Figure:
    """Draw how often an event came, by the probability given to it, and how often each was given.

    Args:
        curves: What :func:`event_reliability` returned, or several by name, at most three.
        event: What the event is, in words, such as `"demand above 900 MW"`.

    Returns:
        The figure, 1200 px wide at its own resolution.

    Raises:
        InputError: For no curve or more than three.
        MissingPackageError: If matplotlib is not installed.

    Example:
        >>> import torch
        >>> from pyro_vdn.diagnostics import event_reliability
        >>> probability = torch.linspace(0.1, 0.9, 200)
        >>> figure = plot_event_reliability(event_reliability(probability, probability > 0.5))
        >>> len(figure.axes)
        2

    Source: Dimitriadis, Gneiting and Jordan 2021.
    """
    named = dict(curves) if isinstance(curves, Mapping) else {"": curves}
    if not 1 <= len(named) <= _MOST_CURVES:
        raise InputError(
            "curves",
            expected=f"1 to {_MOST_CURVES} curves",
            got=str(len(named)),
            hint="event_reliability(probability, event)",
        )
    several = len(named) > 1
    figure = new_figure(6.2 if several else 5.4)
    panels: Any
    if several:
        panels = figure.subplots(2, len(named), squeeze=False, height_ratios=[3.0, 1.0]).T
    else:
        panels = figure.subplots(1, 2, squeeze=False, width_ratios=[1.3, 1.0])
    for at, (name, curve) in enumerate(named.items()):
        upper, lower = panels[at]
        y = f"how often {event} came (%)" if at == 0 else ""
        title = name if several else "Reliability of the predicted probability"
        style(upper, title=title, x="" if several else "predicted probability (%)", y=y)
        _draw_event(upper, curve)
        y = "predictions (%)" if at == 0 else ""
        style(lower, x="predicted probability (%)", y=y)
        _draw_counts(lower, curve)
    legend(panels[0, 0], loc="lower right")
    return figure


def _draw_quantiles(axes: Axes, reliability: QuantileReliability, group: int) -> None:
    """Draw shares less their levels, with the band, both 0 at the ends by definition."""
    level = reliability.nominal.numpy()
    x = 100 * np.r_[0.0, level, 1.0]

    def gap(shares: Array) -> Array:
        return np.asarray(100 * np.r_[0.0, shares - level, 0.0], dtype=np.float64)

    low, high, share = (
        gap(value[group].numpy())
        for value in (reliability.lower, reliability.upper, reliability.empirical)
    )
    axes.fill_between(x, low, high, color=MUTED, alpha=0.22, lw=0, label="band if calibrated")
    axes.axhline(0.0, color=INK, lw=1.2, label="calibrated")
    axes.plot(x, share, color=ACCENT, lw=1.4)
    look: dict[str, Any] = {"color": ACCENT, "lw": 1.4, "marker": "o", "ms": 4.5}
    axes.plot(x[1:-1], share[1:-1], label="model", **look)
    axes.set_xlim(0, 100)


def _draw_event(axes: Axes, curve: EventReliability) -> None:
    """Draw the curve over its band, and how the Brier score splits."""
    x, y, low, high = (
        100 * value.numpy()
        for value in (curve.probability, curve.frequency, curve.lower, curve.upper)
    )
    label = f"{100 * curve.level:.0f} % band if calibrated"
    axes.fill_between(x, low, high, color=MUTED, alpha=0.22, lw=0, label=label)
    axes.plot([0, 100], [0, 100], color=INK, lw=1.2, label="calibrated")
    axes.plot(x, y, color=ACCENT, lw=1.8, label="model")
    axes.set_xlim(0, 100)
    axes.set_ylim(-2, 102)
    text = (
        f"Brier score      {curve.brier_score:.4f}\n"
        f"= miscalibration {curve.miscalibration:.4f}\n"
        f"- discrimination {curve.discrimination:.4f}\n"
        f"+ uncertainty    {curve.uncertainty:.4f}"
    )
    box = {"facecolor": "white", "edgecolor": "none", "pad": 3, "alpha": 0.9}
    font: dict[str, Any] = {"family": "monospace", "fontsize": 9, "color": INK}
    axes.text(0.03, 0.97, text, transform=axes.transAxes, va="top", bbox=box, **font)


def _draw_counts(axes: Axes, curve: EventReliability) -> None:
    share = 100 * curve.count.double().numpy() / float(curve.count.sum())
    edges = np.linspace(0, 100, len(share) + 1)
    axes.bar(edges[:-1], share, np.diff(edges), align="edge", color=BAND_NARROW, ec="white")
    axes.set_xlim(0, 100)
    axes.grid(visible=False, axis="x")
