"""Tables of the benchmarks of control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyro_vdn.bench.control import COLUMNS as REGIME_COLUMNS
from pyro_vdn.bench.control import OFF
from pyro_vdn.bench.control_cost import TOGETHER, Cost
from pyro_vdn.bench.regulation import COLUMNS as REGULATION_COLUMNS
from pyro_vdn.bench.results import cell, collect, markdown_table, methods, paired_difference

LIVING = "living"

Results = Mapping[str, Any]


def control_table(results: Results) -> str:
    """Return regimes by data set: scores, and the paired difference of the NLL to no control.

    Args:
        results: What `bench_control` returned.
    """
    heads = [*REGIME_COLUMNS.values()]
    lines = [
        "| data | control | NLL minus off | " + " | ".join(heads) + " |",
        "| --- " * (len(heads) + 3) + "|",
    ]
    for data in dict.fromkeys(run["data"] for run in results["runs"]):
        runs = [run for run in results["runs"] if run["data"] == data]
        for method in methods(runs):
            pair = [run for run in runs if run["method"] in (method, OFF)]
            difference = "" if method == OFF else str(paired_difference(pair, method, OFF, "nll"))
            cells = [cell(collect(runs, method, metric)) for metric in REGIME_COLUMNS]
            lines.append(f"| {data} | {method} | {difference} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def collapse_table(results: Results) -> str:
    """Return, by illness, how many victims and others were called right, and how many cured.

    Args:
        results: What `bench_collapse` returned.
    """
    lines = [
        "| illness | cause | victims called right | others called living | cure "
        "| victims no longer ill | victims living |",
        "| --- " * 7 + "|",
    ]
    for illness in dict.fromkeys(run["illness"] for run in results["runs"]):
        runs = [run for run in results["runs"] if run["illness"] == illness]
        lines.append(_collapse_row(illness, runs))
    return "\n".join(lines)


def _collapse_row(illness: str, runs: Sequence[Mapping[str, Any]]) -> str:
    if "victims" not in runs[0]:
        calls = [call for run in runs for call in run["calls"]]
        return f"| {illness} | | | {_count(calls, LIVING)} | | | |"
    victims = [run["calls"][unit] for run in runs for unit in run["victims"]]
    others = [
        call for run in runs for unit, call in enumerate(run["calls"]) if unit not in run["victims"]
    ]
    after = [run["calls_after_cure"][unit] for run in runs for unit in run["victims"]]
    well = [call for call in after if call != illness]
    return (
        f"| {illness} | {runs[0]['cause']} | {_count(victims, illness)} | {_count(others, LIVING)} "
        f"| {runs[0]['cure']} | {len(well)} of {len(after)} | {_count(after, LIVING)} |"
    )


def _count(calls: Sequence[str], called: str) -> str:
    return f"{sum(call == called for call in calls)} of {len(calls)}"


def regulation_table(results: Results) -> str:
    """Return what thermostat and homeostat reached.

    Args:
        results: What `bench_regulation` returned.
    """
    return markdown_table(results["runs"], REGULATION_COLUMNS)


def cost_table(results: Results) -> str:
    """Return what control adds to a training step, by step.

    Args:
        results: What `bench_control_cost` returned.
    """
    costs = [Cost(**values) for values in results["results"]]
    controls = list(dict.fromkeys(cost.control for cost in costs))
    head = ["training step", "ms without", *controls]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for step in dict.fromkeys(cost.step for cost in costs):
        own = {cost.control: cost for cost in costs if cost.step == step}
        values = [f"{100 * own[control].relative:+.1f} %" for control in controls]
        base = f"{own[TOGETHER].milliseconds:.1f}"
        lines.append(f"| {step} | {base} | " + " | ".join(values) + " |")
    return "\n".join(lines)
