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
    typer.Option(help="Training steps of each model.", min=1, show_default="as the recipe says"),
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
References = Annotated[
    str | None,
    typer.Option(
        help="What the neurons are compared with, trained and scored beside them: any of twin "
        "(deterministic), dropout (MC dropout) and ensemble (five twins), with commas; or none.",
        metavar="NAMES",
        show_default="twin",
    ),
]


def chosen_references(given: str | None) -> dict[str, tuple[str, ...]]:
    """Return what ``--references`` changes of a recipe.

    Args:
        given: Names with commas between them, or ``"none"``; None where the option is not given.

    Returns:
        ``references``, or nothing where the option is not given.

    Raises:
        InputError: For unknown or repeated names.

    Example:
        >>> chosen_references("twin, dropout"), chosen_references("none"), chosen_references(None)
        ({'references': ('twin', 'dropout')}, {'references': ()}, {})
    """
    from pyro_vdn.train.members import REFERENCES, check_references

    if given is None:
        return {}
    names = () if given == "none" else tuple(name.strip() for name in given.split(","))
    known = f"--references {','.join(REFERENCES)}, or --references none"
    check_references(names, what="--references", hint=known)
    return {"references": names}
