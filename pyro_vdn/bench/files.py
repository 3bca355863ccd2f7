"""Where a benchmark's results go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pyro_vdn.train.files import write_json

Out = Annotated[
    Path | None, typer.Option(help="JSON file to write the results to.", dir_okay=False)
]


def save(out: Path | None, results: dict[str, Any]) -> None:
    """Write results to a file, where one was asked for.

    Args:
        out: The file, or None.
        results: The results.
    """
    if out is not None:
        write_json(out, results)
