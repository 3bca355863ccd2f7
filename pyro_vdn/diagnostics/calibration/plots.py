"""Figures of forecasts, calibration and unit activity, drawn without global state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_vdn.diagnostics._checks import as_array
from pyro_vdn.diagnostics._figure import INK, new_figure, style
from pyro_vdn.diagnostics.calibration import _panels
from pyro_vdn.diagnostics.calibration.calibration import DEFAULT_LEVELS, calibration_curve
from pyro_vdn.diagnostics.scoring.quantiles import draw_quantiles
from pyro_vdn.diagnostics.units.statistics import UnitStatistics
from pyro_vdn.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAN_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""The quantiles of a fan: median, central 50 % and central 90 %."""

_MOST_PANELS = 12


def plot_fan(
    history: Tensor | ArrayLike,
    target: Tensor | ArrayLike,
    *,
    draws: Tensor | ArrayLike | None = None,
    quantiles: Tensor | ArrayLike | None = None,
    titles: Sequence[str] | None = None,
    time_label: str = "steps from the forecast origin",
    value_label: str = "value",
) -> Figure:
    """Draw forecasts as fans: history, truth, median, central 50 % and 90 % bands.

    One panel per row, at most twelve; the last observed value is at time 0.

    Args:
        history: Values up to the forecast, shape `(rows, past)`.
        target: True continuation, shape `(rows, steps)`.
        draws: Forecast draws, shape `(draws, rows, steps)`, at least 19.
        quantiles: Instead of draws: forecast quantiles at :data:`FAN_LEVELS`, shape
            `(5, rows, steps)`.
        titles: One title per row.
        time_label: Label of the time axis, with its unit.
        value_label: Label of the value axis, with its unit.

    Returns:
        The figure, 1200 px wide at its own resolution.

    Raises:
        InputError: If shapes disagree, a value is not finite, there are more than twelve rows, or
            not exactly one of draws and quantiles is given.
        MissingPackageError: If matplotlib is not installed.

    Example:
        >>> draws = torch.randn(100, 2, 24, generator=torch.Generator().manual_seed(0))
        >>> figure = plot_fan(torch.zeros(2, 48), torch.zeros(2, 24), draws=draws)
        >>> len(figure.axes)
        2

    Source: Britton, Fisher and Whitley, *The Inflation Report Projections*, 1998.
    """
    past = as_array("history", history, ndim=2, sizes="(rows, past)")
    truth = as_array("target", target, ndim=2, sizes="(rows, steps)")
    rows = len(truth)
    _check_rows(past, rows, titles)
    fan = _fan(draws, quantiles, truth)
    columns = {1: 1, 2: 2, 4: 2}.get(rows, 3)
    lines = -(-rows // columns)
    figure = new_figure(0.7 + 3.0 * lines if lines > 1 else 4.6)
    axes: Any = figure.subplots(lines, columns, squeeze=False)
    for row, panel in enumerate(axes.flat):
        if row >= rows:
            panel.remove()
            continue
        bottom, left = row + columns >= rows, row % columns == 0
        title = titles[row] if titles is not None else ""
        style(panel, title=title, x=time_label if bottom else "", y=value_label if left else "")
        _panels.draw_fan(panel, past[row], truth[row], fan[:, row])
    _legend_above(figure, axes.flat[0])
    return figure


def plot_calibration(
    pit_values: Tensor, *, bins: int = 20, effective_count: int | None = None
) -> Figure:
    r"""Draw calibration: histogram of PIT values, and nominal against empirical coverage.

    The shaded bands hold 95 % of the results of a calibrated model: of the histogram all bars
    together (:func:`histogram_band`; a bar outside is red), of the coverage point by point, the
    nominal level :math:`\pm 1.96 \sqrt{p (1 - p) / n}`.

    Args:
        pit_values: Probability integral transforms from :func:`pit`, any shape, in [0, 1].
        bins: Bins of the histogram, at least 2.
        effective_count: Number of independent observations :math:`n` behind the bands, as in
            :func:`calibration_curve`; the number of values by default.

    Returns:
        The figure, 1200 px wide at its own resolution.

    Raises:
        InputError: If a value lies outside [0, 1], or there are fewer than two bins.
        MissingPackageError: If matplotlib is not installed.

    Example:
        >>> figure = plot_calibration(torch.linspace(0.0, 1.0, 500))
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['PIT histogram', 'Coverage: the 90 % interval holds 90.0 %']

    Source: Gneiting, Balabdaoui and Raftery, *Probabilistic Forecasts, Calibration and Sharpness*,
    2007.
    """
    if bins < 2:
        raise InputError("bins", expected="at least 2", got=str(bins), hint="try 10 or 20")
    curve = calibration_curve(pit_values, DEFAULT_LEVELS, effective_count=effective_count)
    figure = new_figure(5.4)
    left, right = figure.subplots(1, 2)
    values = pit_values.detach().cpu().double().reshape(-1).numpy()
    _panels.draw_histogram(left, values, bins, curve.count)
    nominal, empirical, error = (
        value.detach().cpu().double().numpy()
        for value in (curve.nominal, curve.empirical, curve.standard_error)
    )
    _panels.draw_coverage(right, nominal, empirical, error)
    return figure


def plot_unit_activity(statistics: UnitStatistics) -> Figure:
    """Draw which units live: KL by rank, and KL against energy and posterior scale.

    Units with a KL of zero or less are drawn at the lower edge of the logarithmic axis.

    Args:
        statistics: Statistics of a layer's units.

    Returns:
        The figure, 1200 px wide at its own resolution.

    Raises:
        MissingPackageError: If matplotlib is not installed.

    Example:
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> from pyro_vdn.poutine import record
        >>> with record() as seen:
        ...     _ = VariationalNeurons(3, 4)(torch.randn(50, 3))
        >>> figure = plot_unit_activity(UnitStatistics.of(seen[""]))
        >>> figure.axes[0].get_title(loc="left")
        '4 of 4 units active'
    """
    figure = new_figure(6.0)
    panels: Any = figure.subplot_mosaic(
        [["rank", "energy"], ["rank", "scale"]], width_ratios=[1.25, 1.0]
    )
    kl = _panels.above_zero(statistics.kl, statistics.threshold)
    _panels.draw_rank(panels["rank"], kl, statistics)
    energy = _panels.above_zero(statistics.mu2, 1e-6)
    _panels.draw_units(panels["energy"], kl, energy, statistics, "mean energy E[μ²]")
    label = "posterior scale \u221aE[\u03c3²]"
    _panels.draw_units(panels["scale"], kl, statistics.scale, statistics, label)
    panels["energy"].set_yscale("log")
    panels["energy"].set_xlabel("")
    panels["energy"].tick_params(labelbottom=False)
    panels["energy"].set_title(
        "Energy and scale over KL", loc="left", fontsize=12, color=INK, pad=8
    )
    figure.align_ylabels([panels["energy"], panels["scale"]])
    return figure


def _check_rows(past: NDArray[np.float64], rows: int, titles: Sequence[str] | None) -> None:
    if rows > _MOST_PANELS:
        raise InputError(
            "target",
            expected=f"at most {_MOST_PANELS} rows, one panel each",
            got=f"{rows}",
            hint="pick a few, for example target[:6]",
        )
    for what, count in (
        ("history", len(past)),
        ("titles", rows if titles is None else len(titles)),
    ):
        if count != rows:
            raise InputError(
                what,
                expected=f"{rows} rows, as in target",
                got=f"{count}",
                hint="pass the same rows everywhere",
            )


def _fan(
    draws: Tensor | ArrayLike | None,
    quantiles: Tensor | ArrayLike | None,
    truth: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return quantiles at `FAN_LEVELS`, shape `(5, rows, steps)`, from whichever was given."""
    if (draws is None) == (quantiles is None):
        raise InputError(
            "draws, quantiles",
            expected="exactly one of the two",
            got="none" if draws is None else "both",
            hint="pass draws=... of shape (draws, rows, steps)",
        )
    rows, steps = truth.shape
    if draws is not None:
        array = as_array("draws", draws, ndim=3, sizes="(draws, rows, steps)")
        _check_fan("draws", array, ("draws", rows, steps))
        return draw_quantiles(torch.from_numpy(array), FAN_LEVELS).numpy()
    assert quantiles is not None
    array = as_array("quantiles", quantiles, ndim=3, sizes="(5, rows, steps)")
    _check_fan("quantiles", array, (len(FAN_LEVELS), rows, steps))
    return array


def _check_fan(what: str, array: NDArray[np.float64], sizes: tuple[int | str, int, int]) -> None:
    if any(size not in (got, "draws") for got, size in zip(array.shape, sizes, strict=True)):
        raise InputError(
            what,
            expected=f"shape ({', '.join(str(size) for size in sizes)}), as in target",
            got=f"shape {array.shape}",
            hint="pass the same rows and steps everywhere",
        )


def _legend_above(figure: Figure, axes: Any) -> None:
    """Put one legend for all panels above them, in reading order."""
    handles, labels = axes.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    order = ("history", "truth", "forecast median", "50 % interval", "90 % interval")
    figure.legend(
        [by_label[label] for label in order],
        order,
        loc="outside upper center",
        ncols=len(order),
        fontsize=11,
        frameon=False,
        labelcolor=INK,
    )
