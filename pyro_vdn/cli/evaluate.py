"""``pyro-vdn evaluate``: score a run anew from its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyro_vdn.cli.errors import reported
from pyro_vdn.cli.threads import set_threads


@reported
def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run.")],
    every_window: Annotated[
        bool,
        typer.Option(
            "--all", help="Score every test window or block, where the run took a part of them."
        ),
    ] = False,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 1,
) -> None:
    """Score a run again, from its weights and its data. Nothing is written."""
    from pyro_vdn.cli.table import show_report
    from pyro_vdn.train.run import rescore_run

    set_threads(threads)
    show_report(rescore_run(folder, every_window=every_window))
