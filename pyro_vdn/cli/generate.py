"""``pyro-vdn generate``: let a run write or read text, and colour what it was unsure of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pyro_vdn.cli.errors import reported
from pyro_vdn.cli.threads import set_threads

if TYPE_CHECKING:
    from pyro_vdn.train.text_from_run import RunText


@reported
def generate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a language run.")],
    prompt: Annotated[str | None, typer.Option(help="Text to continue.")] = None,
    text: Annotated[
        Path | None, typer.Option(help="File of UTF-8 text to read instead of writing.")
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens to write.", min=1)] = 200,
    temperature: Annotated[
        float, typer.Option(help="Above 0; below 1 the text is more predictable.")
    ] = 1.0,
    top_k: Annotated[
        int | None,
        typer.Option(help="Draw among the most probable tokens alone.", min=1, show_default="all"),
    ] = None,
    samples: Annotated[int, typer.Option(help="Draws of the neurons for every token.", min=1)] = 16,
    seed: Annotated[int, typer.Option(help="Seed of all draws.", min=0)] = 0,
    html: Annotated[
        Path | None, typer.Option(help="Page to write that colours the tokens; must not exist.")
    ] = None,
    by: Annotated[
        str, typer.Option(help="Colour by mutual_information, entropy or kl.")
    ] = "mutual_information",
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 1,
) -> None:
    """Continue a text: `pyro-vdn generate runs/text --prompt "The " --html page.html`."""
    from pyro_vdn.train import text_from_run

    set_threads(threads)
    _check_page(html, by)
    if text is None:
        given = _given(prompt)
        written = text_from_run.generate_text(
            folder,
            given,
            tokens,
            temperature=temperature,
            top_k=top_k,
            num_samples=samples,
            seed=seed,
        )
        typer.echo(written.text)
    else:
        written = text_from_run.read_text(
            folder, _read(text, prompt), num_samples=samples, seed=seed
        )
        if html is None:
            typer.echo(_summary(written))
    if html is not None:
        _write_page(html, written, by)
        typer.echo(f"page written to {html}", err=True)


def _check_page(html: Path | None, by: str) -> None:
    """Refuse a page that cannot be written before anything is computed."""
    from pyro_vdn.errors import RunFolderError
    from pyro_vdn.nn.shapes import check_choice
    from pyro_vdn.report import SCORES

    check_choice("--by", by, tuple(SCORES), hint="--by mutual_information")
    if html is not None and html.exists():
        raise RunFolderError(f"{html}: exists, nothing was changed. Try: another --html.")


def _given(prompt: str | None) -> str:
    from pyro_vdn.errors import InputError

    if prompt is None:
        raise InputError(
            "--prompt", expected="a text to continue", got="none", hint='--prompt "The "'
        )
    return prompt


def _read(text: Path, prompt: str | None) -> str:
    from pyro_vdn.datasets import load_text
    from pyro_vdn.errors import InputError

    if prompt is not None:
        raise InputError(
            "--prompt", expected="none beside --text", got=repr(prompt), hint="leave one of them"
        )
    return load_text(text).content


def _write_page(html: Path, written: RunText, by: str) -> None:
    from pyro_vdn.report import token_page
    from pyro_vdn.train.files import replacing

    read = written.num_given == len(written.pieces)
    page = token_page(
        written.reading,
        written.pieces,
        by=by,
        title=f"{'Read' if read else 'Written'} by a model of {written.name}",
        num_given=written.num_given,
    )
    with replacing(html) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _summary(written: RunText) -> str:
    scores = written.reading._asdict()
    names = {"nll": "NLL", "entropy": "entropy", "mutual_information": "mutual information"}
    names["kl"] = "KL"
    means = ", ".join(f"{names[name]} {float(scores[name].nanmean()):.4f}" for name in names)
    return f"{len(written.pieces):,} tokens; mean per token, in nats: {means}"
