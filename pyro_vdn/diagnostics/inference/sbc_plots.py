"""The figure of simulation-based calibration."""

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
    plain,
    style,
)
from pyro_vdn.diagnostics.inference.sbc_result import SBCResult, quantities

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LABELLED = 3
_MOST_PANELS = 12


def plot_sbc(result: SBCResult) -> Figure:
    """Draw the ranks' distribution functions less the uniform one, with the band of exact guides.

    One panel per site or quantity, at most twelve; a line for each unit or step. Lines of
    quantities that fail stand out, the worst three by name. The band is that of one quantity by
    itself: of many lines some leave it by chance, which the verdicts allow for. A line that rises
    first and falls below 0 later belongs to draws that spread too little.

    Args:
        result: What `simulation_based_calibration` returned.

    Returns:
        The figure, 1200 px wide at its own resolution.

    Raises:
        MissingPackageError: If matplotlib is not installed.

    Example:
        >>> import torch
        >>> even = torch.arange(100) % 20
        >>> figure = plot_sbc(SBCResult({"z": torch.stack([even, even // 3], -1)}, num_draws=19))
        >>> figure.axes[0].get_title(loc="left")
        'z: 1 of 2 fail'

    Source: Säilynoja, Bürkner and Vehtari, *Graphical Test for Discrete Uniformity and its
    Applications in Goodness-of-Fit Evaluation and Multiple Sample Comparison*, 2022.
    """
    names = list(result.ranks)[:_MOST_PANELS]
    columns = {1: 1, 2: 2, 4: 2}.get(len(names), 3)
    lines = -(-len(names) // columns)
    figure = new_figure(0.7 + 3.4 * lines if lines > 1 else 4.6)
    panels: Any = figure.subplots(lines, columns, squeeze=False, sharex=True)
    for index, panel in enumerate(panels.flat):
        if index >= len(names):
            panel.remove()
            continue
        _draw(panel, result, names[index])
        if index % columns == 0:
            panel.set_ylabel("ECDF less uniform", fontsize=11, color=INK)
        if index + columns >= len(names):
            panel.set_xlabel("rank among draws, as a share", fontsize=11, color=INK)
            panel.tick_params(labelbottom=True)
    return figure


def _draw(panel: Any, result: SBCResult, name: str) -> None:
    band = result.band
    at = np.concatenate([[0.0], band.points, [1.0]])
    panel.fill_between(
        at,
        np.pad(band.lower_difference, 1),
        np.pad(band.upper_difference, 1),
        color=BAND_WIDE,
        linewidth=0,
        label=f"{100 * result.level:g} % band",
    )
    panel.axhline(0.0, color=MUTED, linewidth=0.8)
    failed = [label for label, of, _ in result.failed if of == name]
    lines = quantities(result.ranks[name], name)
    for label, ranks in sorted(lines.items(), key=lambda line: line[0] in failed):
        shown = plain(label) if label in failed[:_LABELLED] else None
        colour = WARM if label in failed else ACCENT
        width = 1.6 if label in failed else 1.0
        difference = np.pad(band.difference(ranks), 1)
        panel.plot(at, difference, color=colour, linewidth=width, alpha=0.8, label=shown)
    count = len(failed)
    verdict = f"{count} of {len(lines)} fail" if count else "uniform"
    style(panel, title=f"{name}: {verdict}")
    panel.set_xlim(0.0, 1.0)
    legend(panel, loc="best")
