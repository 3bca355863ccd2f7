"""Options that the commands of ``pyro-vdn fit`` have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Seed = Annotated[
    int | None,
    typer.Option(help="Seed of weights, batches and noise.", min=0, show_default="0"),
]
Steps = Annotated[
    int | None,
    typer.Option(
        help="Training steps of each of the two models.", min=1, show_default="as the recipe says"
    ),
]
Threads = Annotated[
    int, typer.Option(help="CPU threads; models this small run best on one.", min=1)
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the run; new or empty.",
        show_default="runs/TASK-DATA-TIME",
        file_okay=True,
    ),
]
Demo = Annotated[bool, typer.Option("--demo", help="Smaller budget: minutes on two cores.")]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Continue the interrupted run in --out, with its own settings."),
]
NoTwin = Annotated[bool, typer.Option("--no-twin", help="Train the neurons only.")]
