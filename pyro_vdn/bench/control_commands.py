"""The commands of ``pyro-vdn bench`` that measure control."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from pyro_vdn.bench import control_tables
from pyro_vdn.bench.collapse import STEPS, bench_collapse
from pyro_vdn.bench.control import bench_control
from pyro_vdn.bench.control_cost import bench_control_cost
from pyro_vdn.bench.files import Out, save
from pyro_vdn.bench.regulation import bench_regulation
from pyro_vdn.cli.errors import reported
from pyro_vdn.train.recipes import ForecastingRecipe, RegressionRecipe

Seeds = Annotated[int, typer.Option(help="Number of seeds, counted from 0.", min=1)]


@reported
def control(
    data: Annotated[
        str, typer.Option(help="Tables and series, separated by commas.")
    ] = "energy,concrete,kin8nm,etth1",
    seeds: Seeds = 5,
    first_split: Annotated[
        int, typer.Option(help="Split of a table that the first seed takes.", min=0, max=19)
    ] = 10,
    steps: Annotated[
        int | None, typer.Option(help="Gradient steps in place of the recipes'.", min=1)
    ] = None,
    out: Out = None,
) -> None:
    """Train the same model under every regime of control: does control help prediction?"""
    regression, forecasting = RegressionRecipe(), ForecastingRecipe.demo()
    results = bench_control(
        data=[name.strip() for name in data.split(",")],
        seeds=range(seeds),
        first_split=first_split,
        regression=regression if steps is None else regression.with_steps(steps),
        forecasting=forecasting if steps is None else forecasting.with_steps(steps),
        on_run=lambda results: save(out, results),
    )
    _print(control_tables.control_table(results))


@reported
def collapse(
    seeds: Seeds = 5,
    steps: Annotated[int, typer.Option(help="Steps of each training and cure.", min=1)] = STEPS,
    out: Out = None,
) -> None:
    """Provoke every collapse on chosen units, ask the report, and cure it."""
    results = bench_collapse(
        seeds=range(seeds), steps=steps, on_run=lambda results: save(out, results)
    )
    _print(control_tables.collapse_table(results))


@reported
def regulation(
    seeds: Seeds = 5,
    steps: Annotated[int, typer.Option(help="Steps under the thermostat.", min=20)] = 1000,
    out: Out = None,
) -> None:
    """Revive dead units by a thermostat; bring energies into band by a homeostat."""
    results = bench_regulation(
        seeds=range(seeds), steps=steps, on_run=lambda results: save(out, results)
    )
    _print(control_tables.regulation_table(results))


@reported
def control_cost(
    repeats: Annotated[int, typer.Option(help="Blocks of ten steps of each.", min=1)] = 60,
    out: Out = None,
) -> None:
    """Time training steps with and without control, on one thread."""
    results = bench_control_cost(repeats=repeats)
    save(out, results)
    _print(control_tables.cost_table(results))


def _print(table: str) -> None:
    Console().print(Markdown(table))
