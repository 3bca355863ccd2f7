"""The commands of ``pyro-vdn bench``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pyro_vdn.bench import forecasting as forecasting_bench
from pyro_vdn.bench import regression as regression_bench
from pyro_vdn.bench.results import cell, collect, environment, methods
from pyro_vdn.bench.speed import SpeedResult, bench_speed
from pyro_vdn.train.files import write_json
from pyro_vdn.train.recipes import ForecastingRecipe, RegressionRecipe

app = typer.Typer(
    help="Run the benchmarks whose results the README quotes.",
    no_args_is_help=True,
    add_completion=False,
)

Out = Annotated[
    Path | None, typer.Option(help="JSON file to write the results to.", dir_okay=False)
]
Steps = Annotated[int | None, typer.Option(help="Gradient steps in place of the recipe's.", min=1)]


@app.command()
def speed(
    repeats: Annotated[int, typer.Option(help="Rounds of which the median is taken.", min=1)] = 200,
    out: Out = None,
) -> None:
    """Time a LocalELBO step beside hand-written PyTorch and two-pass losses, on one thread."""
    results = [bench_speed(num_particles, repeats=repeats) for num_particles in (1, 4)]
    for result in results:
        _print_speed(result)
    _save(
        out,
        {
            "benchmark": "speed",
            "environment": environment() | {"threads": 1},
            "repeats": repeats,
            "results": [asdict(result) for result in results],
        },
    )


@app.command()
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
        on_run=lambda results: _save(out, results),
    )
    _print_runs(results, forecasting_bench.COLUMNS)


@app.command()
def regression(
    data: Annotated[str, typer.Option(help="Name of a UCI table.")] = "energy",
    splits: Annotated[int, typer.Option(help="Number of splits, counted from 0.", min=1)] = 10,
    steps: Steps = None,
    accept: Annotated[str | None, typer.Option(help="Consent that some sets ask for.")] = None,
    out: Out = None,
) -> None:
    """Train neurons and their Student-t twin on the standard splits of a table."""
    recipe = RegressionRecipe()
    results = regression_bench.bench_regression(
        data=data,
        splits=range(splits),
        recipe=recipe if steps is None else recipe.with_steps(steps),
        accept=accept,
        on_run=lambda results: _save(out, results),
    )
    _print_runs(results, regression_bench.COLUMNS)


def _save(out: Path | None, results: dict[str, Any]) -> None:
    if out is not None:
        write_json(out, results)


def _print_speed(result: SpeedResult) -> None:
    table = Table(title=f"one step, S = {result.num_particles}, one thread")
    for heading in ("", "median ms", "relative", "peak MiB"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, milliseconds in result.milliseconds.items():
        peak = result.peak_mebibytes[name]
        table.add_row(name, f"{milliseconds:.2f}", f"{result.ratio(name):.2f} x", f"{peak:.1f}")
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
