"""Tables of the benchmarks that compare chains with exact inference and with NUTS."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from pyro_vdn.bench.results import cell, collect, methods

Results = Mapping[str, Any]
Runs = Sequence[Mapping[str, Any]]

#: Names of the parameters in tables.
SYMBOLS = {"phi": "phi", "scale": "s", "noise": "r"}


def evidence_table(results: Results, *, by_unit: bool = False) -> str:
    """Return how far fits are from exact inference, and the coverage of intervals.

    Args:
        results: What `bench_evidence` returned.
        by_unit: Whether the estimates of every unit stand between, beside the truth.
    """
    fits = [run for run in results["runs"] if "parameters" in run]
    intervals = [run for run in results["runs"] if "intervals" in run]
    tables = [_fit_table(fits, results["truth"]), _interval_table(intervals, results)]
    if by_unit:
        tables.insert(1, _unit_table(fits, results["truth"]))
    return "\n\n".join(tables)


def within(runs: Runs, name: str, truth: Sequence[float], errors: float = 2.0) -> list[bool]:
    """Say of every estimate whether the truth is within some standard errors of it.

    An estimate without a standard error, where the evidence has no maximum near, is not.

    Args:
        runs: Fits of one setting.
        name: The parameter.
        truth: Its true value in each unit.
        errors: Number of standard errors.
    """
    return [
        error is not None and abs(estimate - true) <= errors * error
        for run in runs
        for estimate, true, error in zip(
            run["parameters"][name]["estimate"],
            truth,
            run["parameters"][name]["standard_error"],
            strict=True,
        )
    ]


def covered(runs: Runs, name: str, truth: Sequence[float]) -> list[bool]:
    """Say of every interval whether it holds the truth.

    Args:
        runs: Intervals of one method.
        name: The parameter.
        truth: Its true value in each unit.
    """
    return [
        low <= true <= high
        for run in runs
        for (low, high), true in zip(zip(*run["intervals"][name], strict=True), truth, strict=True)
    ]


def _fit_table(fits: Runs, truth: Mapping[str, Sequence[float]]) -> str:
    heads = ["nats below the evidence, per step", "smoothed means off", "variances off"]
    within_heads = [f"{symbol} within 2 errors" for symbol in SYMBOLS.values()]
    lines = [
        "| fitted | " + " | ".join([*heads, *within_heads]) + " |",
        "| --- " * (len(heads) + len(within_heads) + 1) + "|",
    ]
    for method in methods(fits):
        runs = [run for run in fits if run["method"] == method]
        gap = f"{max(collect(runs, method, 'gap')):.1e}"
        errors = [max(collect(runs, method, key)) for key in ("mean_error", "variance_error")]
        cells = [gap, *(f"{100 * error:.2f} %" for error in errors)]
        for name in SYMBOLS:
            known = name in runs[0]["parameters"]
            cells.append(_count(within(runs, name, truth[name])) if known else "known")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _unit_table(fits: Runs, truth: Mapping[str, Sequence[float]]) -> str:
    """Return truth and estimates of every unit: their mean, their spread, and the error told."""
    lines = [
        "| fitted | parameter | truth | mean ± standard error | spread over sets | error told |",
        "| --- " * 6 + "|",
    ]
    for method in methods(fits):
        runs = [run for run in fits if run["method"] == method]
        for name in runs[0]["parameters"]:
            for unit, true in enumerate(truth[name]):
                values = [run["parameters"][name]["estimate"][unit] for run in runs]
                errors = [run["parameters"][name]["standard_error"][unit] for run in runs]
                told = [error for error in errors if error is not None]
                spread = f"{statistics.stdev(values):.4f}" if len(values) > 1 else "-"
                lines.append(
                    f"| {method} | {SYMBOLS[name]} | {true} | {cell(values)} | {spread} "
                    f"| {f'{statistics.fmean(told):.4f}' if told else '-'} |"
                )
    return "\n".join(lines)


def _interval_table(intervals: Runs, results: Results) -> str:
    level = f"{100 * results['level']:.0f} %"
    lines = [
        f"| hyperparameters | phi in its {level} interval | s | nats below the evidence |",
        "| --- " * 4 + "|",
    ]
    for method in methods(intervals):
        runs = [run for run in intervals if run["method"] == method]
        counts = [_count(covered(runs, name, results["truth"][name])) for name in ("phi", "scale")]
        gap = cell(collect(runs, method, "gap"))
        lines.append(f"| {method} | {counts[0]} | {counts[1]} | {gap} |")
    return "\n".join(lines)


def nuts_table(results: Results) -> str:
    """Return how far marginals are from those of NUTS, and from exact ones.

    Args:
        results: What `bench_nuts` returned.
    """
    lines = [
        "| observed | posterior | means off NUTS (worst) | sd over that of NUTS "
        "| 1-Wasserstein from NUTS | from exact marginals |",
        "| --- " * 6 + "|",
    ]
    for run in results["runs"]:
        exact = f"{run['from_exact']['wasserstein']:.3f}"
        cells = ["", "", ""]
        if "from_nuts" in run:
            off = run["from_nuts"]
            cells = [
                f"{off['mean']:.3f} ({off['mean_worst']:.2f})",
                f"{off['ratio']:.3f} ({off['ratio_low']:.2f} to {off['ratio_high']:.2f})",
                f"{off['wasserstein']:.3f}",
            ]
        lines.append(f"| {run['kind']} | {run['method']} | {' | '.join(cells)} | {exact} |")
    return "\n".join(lines)


def _count(values: Sequence[bool]) -> str:
    return f"{sum(values)} of {len(values)}"
