"""Figures of units: over training, over the data, and what they answer to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_vdn.diagnostics._checks import as_array
from pyro_vdn.diagnostics._figure import INK, new_figure, style
from pyro_vdn.diagnostics.units import _heat, _unit_panels
from pyro_vdn.diagnostics.units._of_record import band_bounds
from pyro_vdn.diagnostics.units.collapse import CollapseReport
from pyro_vdn.diagnostics.units.history import TrainingHistory
from pyro_vdn.diagnostics.units.statistics import UnitStatistics, by_layer
from pyro_vdn.diagnostics.units.symptoms import CollapseThresholds
from pyro_vdn.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]


def plot_training(
    history: TrainingHistory, path: str, *, band: Sequence[Tensor | ArrayLike] | None = None
) -> Figure:
    """Draw KL and energy of a layer's units over training, as heat maps of units by steps.

    Units are ordered by their KL in the last quarter, the same in both maps. A line separates the
    units that have collapsed onto their prior from the others. With a band, energy is shown against
    each unit's own band: plain inside it, blue below, orange above.

    Args:
        history: What was noted during training.
        path: Path of the layer.
        band: Bounds `(low, high, ...)` on `mu2`, each `(units,)` or a number.

    Returns:
        The figure, 1200 px wide at its own resolution.

    Raises:
        InputError: For a layer that was never noted, or a band of another number of units.
        MissingPackageError: If matplotlib is not installed.

    Example:
        >>> import torch
        >>> history = TrainingHistory()
        >>> moments = {name: torch.rand(5, 8) for name in ("kl", "mu2", "scale")}
        >>> history.load_state_dict(
        ...     {"layers": {"neurons": {"step": [0, 10, 20, 30, 40], **moments}}, "terms": {}}
        ... )
        >>> [axes.get_title(loc="left") for axes in plot_training(history, "neurons").axes[:2]]
        ['KL to the prior: neurons (below the line, under 0.01 nats)', 'Energy μ² = E[μ(x)²]']
    """
    steps, kl = history.steps(path).astype(float), history.of(path, "kl")
    late = kl[-max(1, len(kl) // 4) :].mean(0)
    order = np.argsort(-late, kind="stable")
    kl, mu2 = kl[:, order], history.of(path, "mu2")[:, order]
    bounds = None if band is None else band_bounds(band, kl.shape[1])
    figure = new_figure(8.6)
    above, below = figure.subplots(2, 1, sharex=True)
    collapsed = CollapseThresholds.kl
    title = f"KL to the prior: {path or 'the layer'} (below the line, under {collapsed:g} nats)"
    _heat.style_heat(above, title, bottom=False)
    _heat.draw_kl(figure, above, steps, kl, collapsed)
    if bounds is None:
        _heat.style_heat(below, "Energy μ² = E[μ(x)²]", bottom=True)
        _heat.draw_energy(figure, below, steps, mu2)
    else:
        _heat.style_heat(below, "Energy μ² = E[μ(x)²] against its band", bottom=True)
        _heat.draw_energy_in_band(figure, below, steps, mu2, bounds[0][order], bounds[1][order])
    return figure


def plot_contraction(statistics: Mapping[str, UnitStatistics] | UnitStatistics) -> Figure:
    """Draw the histogram of posterior contraction, a panel per layer.

    Units that have the same posterior for every input are told apart: theirs is a contraction from
    which nothing was learned. Values under -1 are counted at -1; units without a contraction are
    counted in words.

    Args:
        statistics: Statistics by layer path, or of one layer.

    Returns:
        The figure, 1200 px wide at its own resolution.

    Raises:
        InputError: If there is no layer.
        MissingPackageError: If matplotlib is not installed.

    Example:
        >>> import torch
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> from pyro_vdn.poutine import record
        >>> with record() as seen:
        ...     _ = VariationalNeurons(3, 4)(torch.randn(50, 3))
        >>> len(plot_contraction(UnitStatistics.of(seen[""])).axes)
        1
    """
    layers = by_layer(statistics)
    columns = min(3, len(layers))
    lines = -(-len(layers) // columns)
    figure = new_figure(1.2 + 3.4 * lines)
    axes: Any = figure.subplots(lines, columns, squeeze=False, sharex=True)
    for panel in axes.flat[len(layers) :]:
        panel.remove()
    for at, (panel, (path, s)) in enumerate(zip(axes.flat, layers.items(), strict=False)):
        title = "Posterior contraction" + (f": {path}" if path else "")
        bottom, left = at + columns >= len(layers), at % columns == 0
        x = "1 - posterior variance / prior variance" if bottom else ""
        style(panel, title=title, x=x, y="units" if left else "")
        panel.tick_params(labelbottom=bottom)
        _unit_panels.draw_contraction(panel, s)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=len(labels),
        fontsize=11,
        frameon=False,
        labelcolor=INK,
    )
    return figure


def plot_loss_terms(history: TrainingHistory) -> Figure:
    """Draw the terms of the loss over training, a panel each; what was always zero is left out.

    Notes that are not finite are left out and counted in words.

    Args:
        history: What was noted during training, with loss terms.

    Returns:
        The figure, 1200 px wide at its own resolution.

    Raises:
        InputError: If no loss terms were noted.
        MissingPackageError: If matplotlib is not installed.

    Example:
        >>> history = TrainingHistory()
        >>> terms = {"step": [0, 10], "log_likelihood": [-3.0, -1.0], "kl": [0.1, 0.4]}
        >>> history.load_state_dict({"layers": {}, "terms": terms})
        >>> [axes.get_title(loc="left") for axes in plot_loss_terms(history).axes]
        ['log-likelihood', 'KL, weighted']
    """
    terms = history.terms()
    steps = terms.pop("step", np.zeros(0))
    shown = {name: values for name, values in terms.items() if np.any(values != 0)}
    if not shown:
        raise InputError(
            "history",
            expected="notes with loss terms",
            got="none",
            hint="history.note(step, seen, loss.terms(model, guide, x, y))",
        )
    columns = {1: 1, 2: 2, 4: 2}.get(len(shown), 3)
    lines = -(-len(shown) // columns)
    figure = new_figure(4.0 if lines == 1 else 0.8 + 2.7 * lines)
    axes: Any = figure.subplots(lines, columns, squeeze=False, sharex=True)
    for panel in axes.flat[len(shown) :]:
        panel.remove()
    for at, (panel, (name, values)) in enumerate(zip(axes.flat, shown.items(), strict=False)):
        bottom = at + columns >= len(shown)
        _unit_panels.draw_term(panel, name, steps, values, bottom=bottom)
    return figure


def plot_responses(
    responses: Tensor | ArrayLike, *, features: Sequence[str] | None = None, title: str = ""
) -> Figure:
    """Draw which units answer to which inputs: correlations, features by units.

    Units are grouped by the feature that they answer most to, the strongest first.

    Args:
        responses: Correlations of a layer from :func:`unit_responses`, `(units, features)`.
        features: Names of the features.
        title: Title; by default, what is shown.

    Returns:
        The figure, 1200 px wide at its own resolution.

    Raises:
        InputError: For another shape, values outside [-1, 1], or another number of names.
        MissingPackageError: If matplotlib is not installed.

    Example:
        >>> figure = plot_responses([[0.9, 0.0], [-0.1, 0.8], [0.2, -0.7]], features=["a", "b"])
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['a', 'b']
    """
    values = as_array("responses", responses, ndim=2, sizes="(units, features)")
    if np.abs(values).max() > 1:
        raise InputError(
            "responses",
            expected="correlations in [-1, 1]",
            got=f"{values.flat[np.abs(values).argmax()]:g}",
            hint="pass unit_responses(model, guide, batches)['neurons']",
        )
    count = values.shape[1]
    if features is not None and len(features) != count:
        raise InputError(
            "features",
            expected=f"{count} names, one per feature",
            got=str(len(features)),
            hint="features=None numbers them",
        )
    figure = new_figure(float(np.clip(1.9 + 0.34 * count, 3.4, 9.0)))
    panel = figure.subplots()
    heading = title or "Which units answer to which inputs"
    style(panel, title=heading, x="unit, grouped by the feature it answers most to")
    _unit_panels.draw_responses(figure, panel, values, features)
    return figure


def plot_collapse(report: CollapseReport) -> Figure:
    """Draw a collapse report: how many units of each kind, and where they stand.

    Args:
        report: What :func:`collapse_report` returned.

    Returns:
        The figure, 1200 px wide at its own resolution.

    Raises:
        MissingPackageError: If matplotlib is not installed.

    Example:
        >>> import torch
        >>> from pyro_vdn.diagnostics import collapse_report
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> from pyro_vdn.poutine import record
        >>> with record() as seen:
        ...     _ = VariationalNeurons(3, 4)(torch.randn(50, 3))
        >>> figure = plot_collapse(collapse_report(UnitStatistics.of(seen[""])))
        >>> figure.axes[0].get_title(loc="left")
        '4 of 4 units living'
    """
    layers = len(report.statistics)
    figure = new_figure(6.0 + 0.25 * max(0, layers - 3))
    panels: Any = figure.subplot_mosaic(
        [["counts", "scale"], ["counts", "use"]], width_ratios=[1.0, 1.25]
    )
    _unit_panels.draw_counts(panels["counts"], report)
    _unit_panels.draw_scales(panels["scale"], report)
    _unit_panels.draw_use(panels["use"], report)
    panels["scale"].tick_params(labelbottom=False)
    panels["use"].sharex(panels["scale"])
    figure.align_ylabels([panels["scale"], panels["use"]])
    return figure
