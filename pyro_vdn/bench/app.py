"""The commands of ``pyro-vdn bench``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pyro_vdn.bench import (
    chain_commands,
    control_commands,
    language_commands,
    memory_commands,
    uncertainty_commands,
)
from pyro_vdn.bench import forecasting as forecasting_bench
from pyro_vdn.bench import regression as regression_bench
from pyro_vdn.bench.files import Out, save
from pyro_vdn.bench.results import cell, collect, environment, methods
from pyro_vdn.bench.speed import Comparison, bench_speed
from pyro_vdn.cli.errors import reported
from pyro_vdn.train.recipes import ForecastingRecipe, RegressionRecipe

app = typer.Typer(
    help="Run the benchmarks whose results the README quotes.",
    no_args_is_help=True,
    add_completion=False,
)
for command in (
    control_commands.control,
    control_commands.collapse,
    control_commands.regulation,
    control_commands.control_cost,
    chain_commands.evidence,
    chain_commands.nuts,
    memory_commands.memory,
    memory_commands.memory_speed,
    language_commands.language,
    language_commands.language_speed,
    uncertainty_commands.simulated,
    uncertainty_commands.uncertainty,
):
    app.command()(command)

Steps = Annotated[int | None, typer.Option(help="Gradient steps in place of the recipe's.", min=1)]


@app.command()
@reported
def speed(
    repeats: Annotated[int, typer.Option(help="Rounds of which the median is taken.", min=1)] = 200,
    out: Out = None,
) -> None:
    """Time a LocalELBO step beside hand-written PyTorch and two-pass losses, on one thread."""
    results = [
        comparison for particles in (1, 4) for comparison in bench_speed(particles, repeats=repeats)
    ]
    _print_speed(results)
    save(
        out,
        {
            "benchmark": "speed",
            "environment": environment() | {"threads": 1},
            "repeats": repeats,
            "results": [asdict(result) for result in results],
        },
    )


@app.command()
@reported
def forecasting(
    data: Annotated[str, typer.Option(help="Name of a series, or a CSV file.")] = "etth1",
    seeds: Annotated[int, typer.Option(help="Number of seeds, counted from 0.", min=1)] = 3,
    steps: Steps = None,
    out: Out = None,
) -> None:
    """Train neurons and their twin for several seeds; score them on all test windows."""
    recipe = ForecastingRecipe()
    results = forecasting_bench.bench_forecasting(
        data=data,
        seeds=range(seeds),
        recipe=recipe if steps is None else recipe.with_steps(steps),
        on_run=lambda results: save(out, results),
    )
    _print_runs(results, forecasting_bench.COLUMNS)


@app.command()
@reported
def regression(
    data: Annotated[str, typer.Option(help="Name of a UCI table.")] = "energy",
    splits: Annotated[int, typer.Option(help="Number of splits, counted from 0.", min=1)] = 10,
    restarts: Annotated[
        int, typer.Option(help="Fits per split and method; validation chooses one.", min=1)
    ] = 2,
    steps: Steps = None,
    accept: Annotated[str | None, typer.Option(help="Consent that some sets ask for.")] = None,
    out: Out = None,
) -> None:
    """Train neurons and their Student-t twin on the standard splits of a table."""
    recipe = RegressionRecipe()
    results = regression_bench.bench_regression(
        data=data,
        splits=range(splits),
        restarts=restarts,
        recipe=recipe if steps is None else recipe.with_steps(steps),
        accept=accept,
        on_run=lambda results: save(out, results),
    )
    _print_runs(results, regression_bench.COLUMNS)


def _print_speed(results: list[Comparison]) -> None:
    table = Table(title="one step, one thread: median time and peak memory beside a reference")
    for heading in ("S", "step", "ms", "reference", "ms", "time", "memory"):
        table.add_column(heading)
    for one in results:
        table.add_row(
            str(one.num_particles),
            one.name,
            f"{one.milliseconds:.2f}",
            one.reference,
            f"{one.reference_milliseconds:.2f}",
            f"{one.relative_time:.2f} x",
            f"{one.relative_memory:.2f} x",
        )
    Console().print(table)


def _print_runs(results: dict[str, Any], columns: dict[str, str]) -> None:
    runs = results["runs"]
    table = Table(title=f"{results['data']}: mean ± standard error")
    table.add_column("")
    for method in methods(runs):
        table.add_column(method, justify="right")
    for metric, heading in columns.items():
        values = [collect(runs, method, metric) for method in methods(runs)]
        table.add_row(heading, *(cell(value) for value in values))
    Console().print(table)
