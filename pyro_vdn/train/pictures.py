"""The pictures of a run: forecasts or predictions, calibration, unit activity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_vdn.diagnostics import (
    draw_quantiles,
    plot_calibration,
    plot_fan,
    plot_unit_activity,
    save,
)
from pyro_vdn.diagnostics._figure import (
    ACCENT,
    BAND_NARROW,
    BAND_WIDE,
    WARM,
    legend,
    new_figure,
    style,
)
from pyro_vdn.infer import predict
from pyro_vdn.train.evaluate import Evaluation, predictive
from pyro_vdn.train.problem import Problem
from pyro_vdn.train.recipes import ForecastingRecipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Program = Callable[..., Any]
FORECAST = "forecast.png"
CALIBRATION = "calibration.png"
UNITS = "units.png"
_PAST = 96
_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
_DRAWS = 400


def save_pictures(
    folder: Path, model: Program, guide: Program, problem: Problem, evaluation: Evaluation
) -> list[Path]:
    """Draw and write the pictures of a run.

    Args:
        folder: The run's folder.
        model: The program.
        guide: Its guide.
        problem: The data.
        evaluation: What `evaluate_fully` returned for the test rows.

    Returns:
        The files written: forecasts, calibration and, where there are random units, their activity.
    """
    figures = {FORECAST: prediction_figure(model, guide, problem)}
    count = min(problem.independent, evaluation.pit.numel())
    figures[CALIBRATION] = plot_calibration(evaluation.pit, effective_count=count)
    if evaluation.layers:
        last = list(evaluation.layers)[-1]
        figures[UNITS] = plot_unit_activity(evaluation.layers[last])
    for name, figure in figures.items():
        save(figure, folder / name)
    return [folder / name for name in figures]


def prediction_figure(model: Program, guide: Program, problem: Problem) -> Figure:
    """Draw predictions of test rows beside what came: fans of series, intervals of a table's rows.

    Args:
        model: The program.
        guide: Its guide.
        problem: The data.

    Returns:
        The figure; draws depend on the global random state.
    """
    if isinstance(problem.recipe, ForecastingRecipe):
        return _fan(model, guide, problem)
    return _intervals(model, guide, problem)


def picture_rows(problem: Problem, count: int) -> Tensor:
    """Choose test rows spread evenly over the test part, going through the channels, `(count,)`."""
    channels = len(problem.targets.names)
    windows = len(problem.test[0]) // channels
    count = min(count, windows * channels)
    at = torch.linspace(0, windows - 1, count).long()
    channel = (channels - 1 - torch.arange(count)) % channels
    return at * channels + channel


def _fan(model: Program, guide: Program, problem: Problem) -> Figure:
    rows = picture_rows(problem, 6)
    x, y = problem.test[0][rows], problem.test[1][rows]
    draws = predictive(predict(model, guide, x, num_samples=_DRAWS)).draws
    mean, scale = _way_back(problem, rows)
    return plot_fan(
        (x * scale + mean)[:, -_PAST:],
        y * scale + mean,
        draws=draws * scale + mean,
        titles=[problem.labels[row] for row in rows.tolist()],
        value_label="value, original units",
    )


def _intervals(model: Program, guide: Program, problem: Problem) -> Figure:
    """Draw truth and central intervals of test rows, ordered by their predicted median."""
    rows = torch.arange(min(200, len(problem.test[0])))
    x, y = problem.test[0][rows], problem.test[1][rows]
    mean, scale = _way_back(problem, rows)
    draws = predictive(predict(model, guide, x, num_samples=_DRAWS)).draws * scale + mean
    quantiles = draw_quantiles(draws[..., 0], _LEVELS)  # (levels, rows)
    order = quantiles[2].argsort()
    low, inner_low, median, inner_high, high = quantiles[:, order].numpy()
    truth = (y * scale + mean)[order, 0].numpy()
    figure = new_figure(5.4)
    axes = figure.subplots()
    name = problem.targets.names[0]
    style(
        axes,
        title=f"{problem.source.name}: predictions of {len(rows)} test rows",
        x="test row, ordered by predicted median",
        y=f"{name}, original units",
    )
    at = rows.numpy() + 1
    axes.vlines(at, low, high, color=BAND_WIDE, lw=5, label="90 % interval")
    axes.vlines(at, inner_low, inner_high, color=BAND_NARROW, lw=5, label="50 % interval")
    axes.plot(at, median, color=ACCENT, lw=0, marker="_", ms=7, label="predicted median")
    axes.scatter(at, truth, s=14, color=WARM, zorder=3, label="truth")
    axes.margins(x=0.01)
    legend(axes, loc="upper left")
    return figure


def _way_back(problem: Problem, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and scale of each row's target, `(rows, 1)`."""
    column = problem.column[rows]
    return problem.targets.mean[column, None], problem.targets.scale[column, None]
