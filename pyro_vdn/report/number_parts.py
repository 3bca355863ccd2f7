"""The parts of a report on numbers, tables and series, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyro_vdn.diagnostics import unit_statistics
from pyro_vdn.infer.evaluating import own_noise
from pyro_vdn.report.blocks import picture
from pyro_vdn.report.neurons_part import neurons_part
from pyro_vdn.report.number_calibration import calibration_part
from pyro_vdn.report.number_checks import checks_part
from pyro_vdn.report.number_results import number_results
from pyro_vdn.report.number_scores import scores_part
from pyro_vdn.report.part import Part
from pyro_vdn.report.variance_blocks import variance_blocks
from pyro_vdn.train.members import NEURONS
from pyro_vdn.train.pictures import prediction_figure
from pyro_vdn.train.problem import Problem
from pyro_vdn.train.recipes import ForecastingRecipe

Program = Callable[..., Any]
_USE_ROWS = 512


def number_parts(
    models: Mapping[str, Sequence[tuple[Program, Program]]],
    problem: Problem,
    *,
    num_draws: int,
    say: Callable[[str], None],
) -> list[Part]:
    """Measure a run on numbers and return the sections that show it.

    Args:
        models: Programs with their guides by method, the neurons first.
        problem: The data.
        num_draws: Draws behind predictive checks and pictures.
        say: Told what is going on.
    """
    results = number_results(models, problem, num_draws=num_draws, say=say)
    say("scores, calibration, predictive checks")
    parts = [scores_part(results), calibration_part(results), checks_part(results)]
    say("predictions")
    parts.append(predictions_part(*models[NEURONS][0], problem))
    say("what the neurons do")
    layers = unit_statistics(*models[NEURONS][0], problem.test, max_use_rows=_USE_ROWS)
    return [*parts, neurons_part(layers, *variance_blocks(*models[NEURONS][0], problem.test[0]))]


def predictions_part(model: Program, guide: Program, problem: Problem) -> Part:
    """Return the section of predictions beside what came.

    Args:
        model: The neurons.
        guide: Their guide.
        problem: The data.
    """
    with own_noise(0):
        figure = prediction_figure(model, guide, problem)
    series = isinstance(problem.recipe, ForecastingRecipe)
    alt = (
        "Forecasts of six test windows as fans, beside the history and what came."
        if series
        else "Central intervals of test rows, ordered by predicted median, and what came."
    )
    return Part("predictions", "Predictions", (picture(figure, alt=alt),))
