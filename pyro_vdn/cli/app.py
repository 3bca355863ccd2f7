"""The commands, put together."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Annotated

import typer

from pyro_vdn import __version__
from pyro_vdn.cli import data, evaluate, fit, generate, predict, report

BENCH = "pyro_vdn.bench.app"
"""The module whose Typer app ``app`` becomes ``pyro-vdn bench``, where it is installed."""


def make_app() -> typer.Typer:
    """Return the application with every command that is installed."""
    app = typer.Typer(
        name="pyro-vdn",
        help="Variational distributional neurons for Pyro: train, score and predict.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    app.add_typer(fit.app, name="fit")
    app.command("evaluate")(evaluate.evaluate)
    app.command("predict")(predict.predict)
    app.command("generate")(generate.generate)
    app.command("report")(report.report)
    app.add_typer(data.app, name="data")
    if importlib.util.find_spec("pyro_vdn.bench") is not None:
        passed_on = {
            "allow_extra_args": True,
            "ignore_unknown_options": True,
            "help_option_names": [],
        }
        app.command("bench", context_settings=passed_on)(_bench)
    return app


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"pyro-vdn {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", is_eager=True, callback=_show_version
        ),
    ] = False,
) -> None:
    pass


def _bench(context: typer.Context) -> None:
    """Run the benchmarks (`pyro-vdn bench --help` lists them)."""
    # Imported when it is called, so that the help of the other commands stays quick.
    app: typer.Typer = importlib.import_module(BENCH).app
    app(args=context.args, prog_name="pyro-vdn bench")
