"""The commands of ``pyro-vdn bench`` that measure neurons in a language model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from pyro_vdn.bench.files import Out, save
from pyro_vdn.bench.language import bench_language
from pyro_vdn.bench.language_methods import SETTINGS
from pyro_vdn.bench.language_speed import bench_language_speed
from pyro_vdn.bench.language_tables import language_speed_table, language_table, signal_table
from pyro_vdn.bench.results import environment
from pyro_vdn.cli.errors import reported


@reported
def language(
    models: Annotated[
        Path,
        typer.Option(help="Folder of trained weights; what is there is kept.", file_okay=False),
    ] = Path("runs/bench-language"),
    settings: Annotated[
        str, typer.Option(help=f"Of {', '.join(SETTINGS)}, separated by commas.")
    ] = ",".join(SETTINGS),
    seeds: Annotated[int, typer.Option(help="Number of seeds, counted from 0.", min=1)] = 3,
    out: Out = None,
) -> None:
    """Train a small GPT as neurons, twin, dropout and ensemble; score, shift and decide."""
    results = bench_language(
        models,
        settings=[name.strip() for name in settings.split(",")],
        seeds=range(seeds),
        on_run=lambda results: save(out, results),
    )
    for table in (language_table(results), signal_table(results)):
        Console().print(Markdown(table))


@reported
def language_speed(
    repeats: Annotated[int, typer.Option(help="Rounds of which the median is taken.", min=1)] = 60,
    out: Out = None,
) -> None:
    """Time a training step of a small GPT with neurons beside its deterministic effect."""
    results = {
        "benchmark": "language-speed",
        "environment": environment() | {"threads": 1},
        "repeats": repeats,
        "results": bench_language_speed(repeats=repeats),
    }
    save(out, results)
    Console().print(Markdown(language_speed_table(results)))
