"""``pyro-vdn fit``: train neurons and references, score all, write a run folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyro_vdn.cli.errors import reported
from pyro_vdn.cli.language import language
from pyro_vdn.cli.options import (
    Demo,
    Out,
    References,
    Resume,
    Seed,
    Steps,
    Threads,
    with_references,
)
from pyro_vdn.cli.runs import resume_run, start_run
from pyro_vdn.cli.threads import set_threads

if TYPE_CHECKING:
    from pyro_vdn.train.problem import Recipe

app = typer.Typer(
    help="Train distributional neurons and what they are compared with, and score all.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.command("language")(language)


@app.command("forecasting")
@reported
def forecasting(
    data: Annotated[
        str | None,
        typer.Option(
            help="Series: etth1, etth2, exchange, or a CSV file, a row per time step.",
            show_default="etth1",
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Channel to forecast; repeat for several.",
            show_default="every column but the time",
        ),
    ] = None,
    input_length: Annotated[
        int | None, typer.Option(help="Steps to look back on.", min=2, show_default="336")
    ] = None,
    horizon: Annotated[
        int | None, typer.Option(help="Steps to forecast.", min=1, show_default="96")
    ] = None,
    units: Annotated[
        int | None,
        typer.Option(help="Number of distributional neurons.", min=1, show_default="48"),
    ] = None,
    seed: Seed = None,
    steps: Steps = None,
    out: Out = None,
    demo: Demo = False,
    resume: Resume = False,
    references: References = None,
    threads: Threads = 1,
) -> None:
    """Forecast a series: `pyro-vdn fit forecasting --demo --out runs/demo`."""
    from pyro_vdn.train.recipes import ForecastingRecipe

    set_threads(threads)
    lengths: dict[str, Any] = {"input_length": input_length, "horizon": horizon, "num_units": units}
    given = {"data": data, "target": target, "seed": seed, "steps": steps, **lengths}
    given["references"] = references
    if resume:
        resume_run(out, "forecasting", {**given, "demo": demo or None})
        return
    recipe = ForecastingRecipe.demo() if demo else ForecastingRecipe()
    recipe = replace(recipe, **{name: value for name, value in lengths.items() if value})
    if recipe.kernel_size > recipe.input_length:
        recipe = replace(recipe, kernel_size=recipe.input_length - 1 + recipe.input_length % 2)
    if steps:
        recipe = recipe.with_steps(steps)
    recipe = with_references(recipe, references)
    _start(recipe, data or "etth1", target or [], 0, None, seed or 0, out)


@app.command("regression")
@reported
def regression(
    data: Annotated[
        str | None,
        typer.Option(
            help="Table: energy, concrete, ... (`pyro-vdn data list`), or a CSV file.",
            show_default="energy",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Column to predict; for a CSV file only.")
    ] = None,
    split: Annotated[
        int | None,
        typer.Option(help="Which of the 20 standard splits.", min=0, max=19, show_default="0"),
    ] = None,
    accept: Annotated[str | None, typer.Option(help="Consent that a data set asks for.")] = None,
    units: Annotated[
        int | None,
        typer.Option(help="Number of distributional neurons.", min=1, show_default="50"),
    ] = None,
    seed: Seed = None,
    steps: Steps = None,
    out: Out = None,
    demo: Demo = False,
    resume: Resume = False,
    references: References = None,
    threads: Threads = 1,
) -> None:
    """Predict one column of a table: `pyro-vdn fit regression --data houses.csv --target price`."""
    from pyro_vdn.train.recipes import RegressionRecipe

    set_threads(threads)
    if resume:
        given = {"data": data, "target": target, "split": split, "accept": accept}
        rest = {"num_units": units, "seed": seed, "steps": steps, "demo": demo or None}
        resume_run(out, "regression", {**given, **rest, "references": references})
        return
    recipe = RegressionRecipe.demo() if demo else RegressionRecipe()
    if units:
        recipe = replace(recipe, num_units=units)
    if steps:
        recipe = recipe.with_steps(steps)
    recipe = with_references(recipe, references)
    targets = [target] if target else []
    _start(recipe, data or "energy", targets, split or 0, accept, seed or 0, out)


def _start(
    recipe: Recipe,
    data: str,
    target: list[str],
    split: int,
    accept: str | None,
    seed: int,
    out: Path | None,
) -> None:
    from pyro_vdn.train.problem import Source

    source = Source(data, tuple(target), split, accept)
    if source.is_file and Path(data).exists():
        source = replace(source, data=str(Path(data).resolve()))
    start_run(source, recipe, seed, out)
