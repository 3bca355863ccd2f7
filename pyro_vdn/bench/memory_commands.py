"""The commands of ``pyro-vdn bench`` that measure what memory is good for, and what it costs."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from pyro_vdn.bench.files import Out, save
from pyro_vdn.bench.memory import bench_memory
from pyro_vdn.bench.memory_methods import NAMES
from pyro_vdn.bench.memory_speed import bench_memory_speed, memory_speed_table, window_table
from pyro_vdn.bench.memory_tables import memory_table
from pyro_vdn.bench.results import environment
from pyro_vdn.cli.errors import reported


@reported
def memory(
    data: Annotated[
        str, typer.Option(help=f"Of {', '.join(NAMES)}, separated by commas.")
    ] = ",".join(NAMES),
    seeds: Annotated[int, typer.Option(help="Number of seeds, counted from 0.", min=1)] = 5,
    steps: Annotated[
        int | None, typer.Option(help="Gradient steps in place of the recipes'.", min=1)
    ] = None,
    out: Out = None,
) -> None:
    """Train one network with memory on and off, windows complete and missing, on real series."""
    results = bench_memory(
        data=[name.strip() for name in data.split(",")],
        seeds=range(seeds),
        max_steps=steps,
        on_run=lambda results: save(out, results),
    )
    Console().print(Markdown(memory_table(results)))


@reported
def memory_speed(
    repeats: Annotated[int, typer.Option(help="Rounds of which the median is taken.", min=1)] = 20,
    out: Out = None,
) -> None:
    """Time a step of neurons with memory beside its loop, and along the length of sequences."""
    results = {
        "benchmark": "memory-speed",
        "environment": environment() | {"threads": 1},
        **bench_memory_speed(repeats=repeats),
    }
    save(out, results)
    for table in (memory_speed_table(results), window_table(results)):
        Console().print(Markdown(table))
