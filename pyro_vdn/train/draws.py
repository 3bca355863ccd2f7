"""The draws of a run as ArviZ data, with the labels of its data and the way back to its units."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from pyro_vdn.diagnostics import EXPORT_GROUPS, ArviZData, UnitStatistics, to_arviz
from pyro_vdn.train.problem import Problem
from pyro_vdn.train.recipes import ForecastingRecipe

Program = Callable[..., Any]


def draws_to_arviz(
    model: Program,
    guide: Program,
    problem: Problem,
    layers: Mapping[str, UnitStatistics],
    rows: Tensor,
    *,
    num_samples: int = 200,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
) -> ArviZData:
    """Draw some test rows of a run and put them into ArviZ data.

    Args:
        model: The program.
        guide: Its guide.
        problem: The data; values are stored in standard units, with the way back.
        layers: Unit statistics over all test rows, by layer path; empty for a twin.
        rows: Which test rows, `(rows,)`.
        num_samples: Draws.
        seed: Seed of the draws.
        config: The run's configuration.

    Returns:
        All groups of `to_arviz`, with ``predictive_density`` (neurons integrated out) and, in
        ``constant_data``, ``target_mean`` and ``target_scale``. Outputs of series are called
        ``horizon``, 1 for the first step after the window, and their inputs ``lag``, 0 for its last
        step; those of tables bear the names of their columns.
    """
    absent = (
        () if layers else ("unit_stats", "layer_stats", "posterior", "prior", "prior_predictive")
    )
    column = problem.column[rows]
    return to_arviz(
        model,
        guide,
        (problem.test[0][rows], problem.test[1][rows]),
        num_samples=num_samples,
        groups=[group for group in EXPORT_GROUPS if group not in absent],
        seed=seed,
        **_names(problem, rows),
        constant_data={
            "target_mean": problem.targets.mean[column],
            "target_scale": problem.targets.scale[column],
        },
        statistics=layers,
        config=config,
        attrs={
            "units": "standard units; target_mean + target_scale * value gives the original ones",
            "data": problem.source.name,
            "rows_of_unit_stats": "all test rows reported on",
        },
    )


def _names(problem: Problem, rows: Tensor) -> dict[str, Any]:
    """Return what dimensions are called, and their labels."""
    labels: dict[str, Any] = {"row": [problem.labels[row] for row in rows.tolist()]}
    inputs, outputs = problem.test[0].shape[-1], problem.test[1].shape[-1]
    if isinstance(problem.recipe, ForecastingRecipe):
        names = {"output": "horizon", "feature": "lag"}
        labels |= {"horizon": range(1, outputs + 1), "lag": range(1 - inputs, 1)}
        return {"dim_names": names, "coords": labels}
    labels |= {"output": list(problem.targets.names), "feature": list(problem.inputs.names)}
    return {"coords": labels}
