"""The commands of ``pyro-vdn bench`` that compare chains with exact inference and with NUTS."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from pyro_vdn.bench import evidence as evidence_bench
from pyro_vdn.bench import nuts as nuts_bench
from pyro_vdn.bench.chain_tables import evidence_table, nuts_table
from pyro_vdn.bench.files import Out, save
from pyro_vdn.cli.errors import reported


@reported
def evidence(
    sets: Annotated[int, typer.Option(help="Simulated sets, counted from 0.", min=1)] = 20,
    steps: Annotated[
        int, typer.Option(help="Gradient steps of each fit.", min=1)
    ] = evidence_bench.STEPS,
    out: Out = None,
) -> None:
    """Fit linear-Gaussian chains and compare bound, moments and parameters with exact ones."""
    results = evidence_bench.bench_evidence(
        sets=range(sets), steps=steps, on_run=lambda results: save(out, results)
    )
    _print(evidence_table(results, by_unit=True))


@reported
def nuts(
    steps: Annotated[
        int, typer.Option(help="Gradient steps of each fit.", min=1)
    ] = nuts_bench.STEPS,
    draws: Annotated[int, typer.Option(help="Draws of NUTS.", min=20)] = nuts_bench.DRAWS,
    out: Out = None,
) -> None:
    """Compare posteriors over time with NUTS on chains whose observations are not normal."""
    results = nuts_bench.bench_nuts(
        steps=steps, draws=draws, on_run=lambda results: save(out, results)
    )
    _print(nuts_table(results))


def _print(table: str) -> None:
    Console().print(Markdown(table))
