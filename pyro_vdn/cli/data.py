"""``pyro-vdn data``: which data sets there are, and fetching them."""

from __future__ import annotations

from typing import Annotated

import typer

from pyro_vdn.cli.errors import reported

app = typer.Typer(help="List the data sets, or download one.", no_args_is_help=True)


@app.command("list")
@reported
def list_datasets() -> None:
    """List every data set: its task, size, licence, and where its file is."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from pyro_vdn.datasets import describe

    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("name", "task", "size", "licence", "status", "note"):
        table.add_column(heading, overflow="fold")
    for row in describe():
        table.add_row(*row)
    Console(highlight=False).print(table)


@app.command("get")
@reported
def get(
    name: Annotated[str, typer.Argument(help="Name of the data set, as `data list` shows it.")],
    accept: Annotated[str | None, typer.Option(help="Consent that some data sets ask for.")] = None,
) -> None:
    """Make sure that a data set is on this machine, downloading it if need be; print its path."""
    from pyro_vdn.datasets import fetch

    typer.echo(str(fetch(name, accept=accept)))
