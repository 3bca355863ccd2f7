"""Tables of the benchmarks of uncertainty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyro_vdn.bench.results import cell, collect, methods, paired_difference
from pyro_vdn.bench.table_uncertainty import COLUMNS

Results = Mapping[str, Any]


def simulated_table(results: Results) -> str:
    """Return what was seen on simulated data beside what ought to be.

    Args:
        results: What `bench_simulated` returned.
    """
    split, adaptive = results["split_conformal"], results["adaptive_conformal"]
    repeats = results["repeats"]
    rows = [
        (
            f"central {100 * part['nominal']:.0f} % intervals of an exact guide, "
            f"{results['simulations']} simulations of 3 units",
            f"{100 * part['nominal']:.0f} %",
            f"{100 * part['share']:.1f} ± {100 * part['standard_error']:.1f} %",
        )
        for part in results["coverage"]
    ]
    rows += [
        (
            f"simulation-based calibration passes a guide: {name}",
            f"95 % of {repeats}" if name == "exact" else "never",
            f"{passed} of {repeats}",
        )
        for name, passed in results["verdicts"].items()
    ]
    rows += [
        (f"worst k-hat of a row, guide: {name}", _bound(name), _k_hat(part["worst_k_hat"]))
        for name, part in results["evidence"].items()
    ]
    rows += [
        (
            f"split conformal, {split['sets']:,} sets of a model whose own interval holds "
            f"{100 * split['raw']:.0f} %",
            "90 %",
            f"{100 * split['share']:.2f} ± {100 * split['standard_error']:.2f} %",
        ),
        (
            f"split conformal after the spread doubled, {adaptive['series']} series",
            "no promise",
            f"{100 * adaptive['split_after_shift']:.1f} %",
        ),
        (
            "adaptive conformal after the spread doubled",
            "90 %",
            f"{100 * adaptive['adaptive_after_shift']:.1f} %",
        ),
    ]
    lines = ["| check | should be | is |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _bound(name: str) -> str:
    return "below 0.5" if name == "exact" else "says how far off"


def _k_hat(value: float | str | None) -> str:
    return "-∞: all weights are equal" if value is None else f"{float(value):.2f}"


def uncertainty_table(results: Results) -> str:
    """Return scores by table and method, and the paired difference of the NLL to the neurons.

    Args:
        results: What `bench_tables` returned.
    """
    lines = [
        "| data | method | NLL minus that of neurons | " + " | ".join(COLUMNS.values()) + " |",
        "| --- " * (len(COLUMNS) + 3) + "|",
    ]
    for data in dict.fromkeys(run["data"] for run in results["runs"]):
        runs = [run for run in results["runs"] if run["data"] == data]
        first, *_ = methods(runs)
        for method in methods(runs):
            differences = " | ".join(
                "" if method == first else str(paired_difference(runs, method, first, metric))
                for metric in ("nll", "aurc")
            )
            cells = " | ".join(cell(collect(runs, method, metric)) for metric in COLUMNS)
            lines.append(f"| {data} | {method} | {differences} | {cells} |")
    return "\n".join(lines)
