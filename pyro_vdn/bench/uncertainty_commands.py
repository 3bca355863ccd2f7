"""The commands of ``pyro-vdn bench`` that measure uncertainty."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from pyro_vdn.bench.files import Out, save
from pyro_vdn.bench.simulated_uncertainty import bench_simulated
from pyro_vdn.bench.table_uncertainty import RECIPE, bench_tables
from pyro_vdn.bench.uncertainty_tables import simulated_table, uncertainty_table
from pyro_vdn.cli.errors import reported


@reported
def simulated(
    simulations: Annotated[
        int, typer.Option(help="Simulated data sets behind a coverage or a verdict.", min=2)
    ] = 500,
    repeats: Annotated[int, typer.Option(help="Verdicts of each guide.", min=1)] = 20,
    conformal_sets: Annotated[
        int, typer.Option(help="Calibration and test sets of conformal intervals.", min=2)
    ] = 2000,
    out: Out = None,
) -> None:
    """Check coverage, simulation-based calibration, k-hat and conformal intervals on known data."""
    results = bench_simulated(
        simulations=simulations,
        repeats=repeats,
        conformal_sets=conformal_sets,
        on_part=lambda results: save(out, results),
    )
    Console().print(Markdown(simulated_table(results)))


@reported
def uncertainty(
    data: Annotated[str, typer.Option(help="Tables, separated by commas.")] = "energy,concrete",
    splits: Annotated[
        int, typer.Option(help="Number of splits, counted from 0.", min=1, max=20)
    ] = 5,
    steps: Annotated[
        int | None, typer.Option(help="Gradient steps in place of the recipe's.", min=1)
    ] = None,
    ensemble_size: Annotated[int, typer.Option(help="Networks of the ensemble.", min=2)] = 5,
    out: Out = None,
) -> None:
    """Train neurons and all references on tables; score them as they are and recalibrated."""
    recipe = replace(RECIPE, ensemble_size=ensemble_size)
    results = bench_tables(
        data=[name.strip() for name in data.split(",")],
        splits=range(splits),
        recipe=recipe if steps is None else recipe.with_steps(steps),
        on_run=lambda results: save(out, results),
    )
    Console().print(Markdown(uncertainty_table(results)))
