"""Options that the commands of ``pyro-vdn fit`` have in common."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from pyro_vdn.train.members import Compared

R = TypeVar("R", bound="Compared")

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


def with_references(recipe: R, given: str | None) -> R:
    """Return a recipe with the references that ``--references`` names.

    Args:
        recipe: A recipe.
        given: Names with commas between them, or ``"none"``; None where the option is not given.

    Returns:
        The recipe, changed where the option is given.

    Raises:
        InputError: For unknown or repeated names.

    Example:
        >>> from pyro_vdn.train.recipes import RegressionRecipe
        >>> chosen = with_references(RegressionRecipe(), "twin, dropout")
        >>> chosen.references, with_references(chosen, "none").references
        (('twin', 'dropout'), ())
        >>> with_references(chosen, None) == chosen
        True
    """
    from pyro_vdn.train.members import REFERENCES, check_references

    if given is None:
        return recipe
    names = () if given == "none" else tuple(name.strip() for name in given.split(","))
    known = f"--references {','.join(REFERENCES)}, or --references none"
    check_references(names, what="--references", hint=known)
    return replace(recipe, references=names)
