"""Coverage at all levels by every method, and along the horizon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from pyro_vdn.diagnostics import calibration_curve
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
from pyro_vdn.report.coverage_findings import Stretch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOOKS = ((WARM, "-"), (INK, "-"), (MUTED, "-"), (WARM, ":"), (INK, ":"), (MUTED, ":"))
_Z = 1.959964
_ROOM = 0.3


def plot_coverage(
    transforms: Mapping[str, Tensor],
    count: int,
    stretches: Mapping[float, Sequence[Stretch]],
) -> Figure:
    """Draw how much central intervals hold: at all levels, and at chosen levels along the horizon.

    Args:
        transforms: Probability integral transforms by what each method is called, those of the
            neurons first, with a band.
        count: Number of independent targets behind the band.
        stretches: Coverage along the horizon by level; without a second stretch there is no panel.

    Returns:
        The figure.

    Example:
        >>> import torch
        >>> plot_coverage({"neurons": torch.rand(50, 1)}, 50, {}).axes[0].get_title(loc="left")
        'Targets inside central intervals, less the level'
    """
    along = {level: parts for level, parts in stretches.items() if len(parts) > 1}
    figure = new_figure(4.6)
    panels = figure.subplots(1, 2 if along else 1, squeeze=False)
    _draw_levels(panels[0, 0], transforms, count)
    if along:
        _draw_steps(panels[0, 1], along)
    return figure


def _draw_levels(axes: Axes, transforms: Mapping[str, Tensor], count: int) -> None:
    title = "Targets inside central intervals, less the level"
    style(axes, title=title, x="level (%)", y="points (above 0: too wide)")
    axes.axhline(0.0, color=MUTED, lw=1.2)
    for at, (name, values) in enumerate(transforms.items()):
        curve = calibration_curve(values[~values.isnan()], effective_count=count)
        level = 100 * curve.nominal.double().numpy()
        gap = 100 * (curve.empirical - curve.nominal).double().numpy()
        if at == 0:
            half = 100 * _Z * curve.standard_error.double().numpy()
            axes.fill_between(level, -half, half, color=BAND_WIDE, lw=0, label="95 % at each level")
            axes.plot(level, gap, color=ACCENT, lw=2, marker="o", ms=4, label=name, zorder=3)
        else:
            colour, line = _LOOKS[(at - 1) % len(_LOOKS)]
            axes.plot(level, gap, color=colour, lw=1.4, ls=line, label=name)
    axes.set_xlim(0, 100)
    low, high = axes.get_ylim()
    axes.set_ylim(low - _ROOM * (high - low), high)
    legend(axes, loc="lower center", ncols=3)


def _draw_steps(axes: Axes, along: Mapping[float, Sequence[Stretch]]) -> None:
    style(
        axes,
        title="Along the horizon, with 95 % intervals",
        x="steps ahead",
        y="targets inside (%)",
    )
    for (level, parts), colour in zip(along.items(), (WARM, ACCENT), strict=False):
        middle = [(part.first + part.last) / 2 for part in parts]
        share = np.array([100 * part.share.value for part in parts])
        half = np.array([100 * part.share.half_width for part in parts])
        axes.axhline(100 * level, color=colour, lw=1.2, ls="--")
        axes.errorbar(
            middle,
            share,
            half if np.isfinite(half).all() else None,
            color=colour,
            marker="o",
            ms=5,
            lw=1.6,
            capsize=3,
            label=f"{100 * level:.0f} % interval",
        )
    axes.set_xlim(0.5, along[next(iter(along))][-1].last + 0.5)
    axes.set_ylim(0, 100)
    legend(axes, loc="lower right", ncols=2)
