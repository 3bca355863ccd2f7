"""Results of benchmarks: files of runs, their means with standard errors, and tables of them."""

from __future__ import annotations

import math
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch


@dataclass(frozen=True)
class Estimate:
    """A mean over runs with its standard error.

    Args:
        mean: The mean.
        standard_error: Its standard error; not a number for a single run.

    Example:
        >>> print(Estimate.of([1.0, 2.0, 3.0]))
        2.0000 ± 0.5774
    """

    mean: float
    standard_error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Estimate from one value per run."""
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return cls(statistics.fmean(values), error)

    def __str__(self) -> str:
        if math.isnan(self.standard_error):
            return f"{self.mean:.4f}"
        return f"{self.mean:.4f} ± {self.standard_error:.4f}"


def environment() -> dict[str, Any]:
    """Return what a benchmark ran on: versions, processor, threads."""
    return {
        "pyro_vdn": version("pyro-vdn"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }


def collect(runs: Iterable[Mapping[str, Any]], method: str, metric: str) -> list[float]:
    """Return one metric of one method, run by run, leaving out runs without it.

    Args:
        runs: One mapping per run with ``method`` and ``metrics``.
        method: Name of the method.
        metric: Name of the metric.

    Returns:
        One value per run that has the metric.
    """
    values = [run["metrics"].get(metric) for run in runs if run["method"] == method]
    return [float(value) for value in values if value is not None]


def methods(runs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the methods of runs in the order of their first appearance."""
    return list(dict.fromkeys(run["method"] for run in runs))


def markdown_table(runs: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Return a Markdown table of mean ± standard error, one row per method.

    Args:
        runs: One mapping per run with ``method`` and ``metrics``.
        columns: Heading by name of the metric.

    Returns:
        The table.

    Example:
        >>> runs = [{"method": "a", "metrics": {"nll": nll}} for nll in (1.0, 2.0)]
        >>> print(markdown_table(runs, {"nll": "NLL"}))
        | | NLL |
        | --- | --- |
        | a | 1.5000 ± 0.5000 |
    """
    lines = ["| | " + " | ".join(columns.values()) + " |", "| --- " * (len(columns) + 1) + "|"]
    for method in methods(runs):
        cells = []
        for metric in columns:
            values = collect(runs, method, metric)
            cells.append(cell(values))
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(values: Sequence[float]) -> str:
    """Return mean ± standard error, a count as it is, and a dash where there is nothing."""
    if not values:
        return "-"
    if len(set(values)) == 1 and values[0].is_integer() and values[0] > 1:
        return f"{values[0]:,.0f}"
    return str(Estimate.of(values))


def paired_difference(
    runs: Sequence[Mapping[str, Any]], method: str, other: str, metric: str
) -> Estimate:
    """Return the mean of `method - other` over runs paired by seed or split, with its error.

    Args:
        runs: One mapping per run with ``method`` and ``metrics``, both methods in the same order.
        method: Name of one method.
        other: Name of the method it is compared with.
        metric: Name of the metric.

    Returns:
        The mean difference with its standard error.
    """
    mine, theirs = collect(runs, method, metric), collect(runs, other, metric)
    return Estimate.of([a - b for a, b in zip(mine, theirs, strict=True)])
