"""``pyro-vdn report``: one page on a run, to be looked at in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyro_vdn.cli.errors import reported
from pyro_vdn.cli.threads import set_threads


@reported
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Page to write; an earlier one is replaced.", show_default="DIR/report.html"
        ),
    ] = None,
    draws: Annotated[
        int, typer.Option(help="Draws behind predictive checks and pictures.", min=100)
    ] = 400,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 1,
) -> None:
    """Write a page on a run: warnings, scores, calibration, predictive checks, pictures, units.

    It is one file that needs no network: `pyro-vdn report runs/demo`.
    """
    from pyro_vdn.report import write_report

    set_threads(threads)
    made = write_report(
        folder, out, num_draws=draws, say=lambda message: typer.echo(message, err=True)
    )
    typer.echo(f"report written to {made}")
