"""``pyro-vdn fit language``: train a language model and its references on a text."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyro_vdn.cli.errors import reported
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
    from pyro_vdn.train.language_recipe import LanguageRecipe

_SIZES = {"layers": "num_layers", "width": "width", "block": "block_size"}


@reported
def language(
    text: Annotated[
        str | None,
        typer.Option(
            help="pydoc (inside Python), tinyshakespeare, or a file of UTF-8 text.",
            show_default="pydoc",
        ),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="char, byte or bpe.", show_default="char")
    ] = None,
    vocabulary: Annotated[
        int | None, typer.Option(help="Tokens of a bpe.", min=257, show_default="1024")
    ] = None,
    share: Annotated[
        float | None,
        typer.Option(
            help="Share of the training part to keep; below 1 the recipe is that for few data.",
            show_default="1.0",
        ),
    ] = None,
    layers: Annotated[int | None, typer.Option(help="Blocks.", min=1, show_default="4")] = None,
    width: Annotated[
        int | None,
        typer.Option(help="Size of a token's representation.", min=1, show_default="128"),
    ] = None,
    block: Annotated[
        int | None, typer.Option(help="Tokens that the model reads.", min=2, show_default="64")
    ] = None,
    seed: Seed = None,
    steps: Steps = None,
    out: Out = None,
    demo: Demo = False,
    resume: Resume = False,
    references: References = None,
    threads: Threads = 1,
) -> None:
    """Model a text: `pyro-vdn fit language --demo --out runs/text`."""
    from pyro_vdn.train.problem import Source

    set_threads(threads)
    sizes = {"layers": layers, "width": width, "block": block}
    given = {"text": text, "tokenizer": tokenizer, "vocabulary": vocabulary, "share": share}
    if resume:
        rest = {**sizes, "seed": seed, "steps": steps, "demo": demo or None}
        resume_run(out, "language", {**given, **rest, "references": references})
        return
    recipe = _recipe(share, demo)
    changes: dict[str, Any] = {"tokenizer": tokenizer, "vocab_size": vocabulary}
    changes |= {_SIZES[name]: value for name, value in sizes.items()}
    changes = {name: value for name, value in changes.items() if value is not None}
    recipe = with_references(replace(recipe, **changes), references)
    if steps:
        recipe = recipe.with_steps(steps)
    start_run(Source(_place(text or "pydoc")), recipe, seed or 0, out)


def _recipe(share: float | None, demo: bool) -> LanguageRecipe:
    from pyro_vdn.train.language_recipe import LanguageRecipe

    few = share is not None and share != 1.0
    recipe = LanguageRecipe.few_data(share or 0.0) if few else LanguageRecipe()
    return recipe.demo() if demo else recipe


def _place(text: str) -> str:
    """Return a text's name, or its file's whole path, so that the run finds it from anywhere."""
    from pyro_vdn.datasets import TEXT_NAMES

    known = text in TEXT_NAMES or not os.path.exists(text)
    return text if known else str(Path(text).resolve())
