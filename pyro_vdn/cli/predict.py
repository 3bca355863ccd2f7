"""``pyro-vdn predict``: CSV in, CSV out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyro_vdn.cli.errors import reported


@reported
def predict(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run.")],
    source: Annotated[
        Path,
        typer.Option(
            "--input",
            help="CSV file with a header: rows of features, or a series whose last rows are the "
            "window to forecast from.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", help="CSV file to write; must not exist.")],
    draws: Annotated[int, typer.Option(help="Draws behind the quantiles.", min=19)] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the draws.", min=0)] = 0,
) -> None:
    """Predict for a CSV file: mean, standard deviation and quantiles, in original units.

    A table gives a row per row; a series gives a row per channel and step ahead.
    """
    from pyro_vdn.train.predict_file import predict_file

    rows = predict_file(folder, source, output, num_samples=draws, seed=seed)
    typer.echo(f"{rows} rows written to {output}")
