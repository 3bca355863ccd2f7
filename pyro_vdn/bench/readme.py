"""The tables of the README, made from the files of results that it quotes."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from types import ModuleType
from typing import Any

from pyro_vdn.bench import (
    chain_tables,
    control_tables,
    forecasting,
    language_tables,
    memory_speed,
    memory_tables,
    regression,
    uncertainty_tables,
)
from pyro_vdn.bench.results import collect, markdown_table, paired_difference
from pyro_vdn.bench.speed import Comparison

#: File of results by name of the table.
FILES = {
    "collapse": "collapse-energy.json",
    "control": "control.json",
    "control_cost": "control-cost.json",
    "demo": "demo.json",
    "evidence": "evidence.json",
    "forecasting": "forecasting-etth1.json",
    "language": "language.json",
    "language_ablation": "language.json",
    "language_readouts": "language.json",
    "language_shift": "language.json",
    "language_signal": "language.json",
    "language_speed": "language-speed.json",
    "memory": "memory.json",
    "memory_speed": "memory-speed.json",
    "nuts": "nuts.json",
    "regression": "regression-energy.json",
    "regulation": "regulation.json",
    "simulated": "simulated.json",
    "speed": "speed.json",
    "uncertainty": "uncertainty.json",
}


def load_results(name: str) -> dict[str, Any]:
    """Return the results behind a table, of `FILES`."""
    text = files("pyro_vdn.bench").joinpath("reference", FILES[name]).read_text(encoding="utf-8")
    results: dict[str, Any] = json.loads(text)
    return results


def table(name: str) -> str:
    """Return a table of the README as Markdown.

    Args:
        name: A name of `FILES`.

    Example:
        >>> print(table("speed").splitlines()[1])
        | --- | --- | --- | --- | --- |
    """
    results = load_results(name)
    if name in _TABLES:
        return _TABLES[name](results)
    module = regression if name == "regression" else forecasting
    return f"{markdown_table(results['runs'], module.COLUMNS)}\n\n{_paired(results, module)}"


def fill(text: str) -> str:
    """Return a Markdown text with every marked table replaced by the current one."""
    for name in FILES:
        start, end = f"<!-- table: {name} -->", "<!-- end -->"
        if start not in text:
            continue
        before, rest = text.split(start, 1)
        text = f"{before}{start}\n{table(name)}\n{end}{rest.split(end, 1)[1]}"
    return text


def _paired(results: dict[str, Any], module: ModuleType) -> str:
    """Say by how much neurons and twin differ, paired by seed or split, and how often."""
    metric = next(iter(module.COLUMNS))
    runs, pair = results["runs"], (module.NEURONS, module.TWIN)
    difference = paired_difference(runs, *pair, metric)
    mine, theirs = (collect(runs, method, metric) for method in pair)
    wins = sum(a < b for a, b in zip(mine, theirs, strict=True))
    return (
        f"Paired, the NLL of neurons minus that of the twin is {difference}; "
        f"neurons are lower in {wins} of {len(mine)} runs."
    )


def _demo_table(results: dict[str, Any]) -> str:
    names = {"neurons": forecasting.NEURONS, "twin": forecasting.TWIN}
    runs = [
        {
            "method": names[name],
            "metrics": metrics | {"training_seconds": round(metrics["training_seconds"])},
        }
        for name, metrics in results["models"].items()
    ]
    return markdown_table(runs, forecasting.COLUMNS | {"training_seconds": "training, s"})


def _speed_table(results: dict[str, Any]) -> str:
    lines = ["| S | step | beside | time | peak memory |", "| --- | --- | --- | --- | --- |"]
    for values in results["results"]:
        one = Comparison(**values)
        lines.append(
            f"| {one.num_particles} | {one.name} | {one.reference} "
            f"| {one.relative_time:.2f} x | {one.relative_memory:.2f} x |"
        )
    return "\n".join(lines)


_TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "collapse": control_tables.collapse_table,
    "control": control_tables.control_table,
    "control_cost": control_tables.cost_table,
    "demo": _demo_table,
    "evidence": chain_tables.evidence_table,
    "language": language_tables.language_table,
    "language_ablation": language_tables.ablation_table,
    "language_readouts": language_tables.readout_table,
    "language_shift": language_tables.shift_table,
    "language_signal": language_tables.signal_table,
    "language_speed": language_tables.language_speed_table,
    "memory": memory_tables.memory_table,
    "memory_speed": memory_speed.speed_tables,
    "nuts": chain_tables.nuts_table,
    "regulation": control_tables.regulation_table,
    "simulated": uncertainty_tables.simulated_table,
    "speed": _speed_table,
    "uncertainty": uncertainty_tables.uncertainty_table,
}
