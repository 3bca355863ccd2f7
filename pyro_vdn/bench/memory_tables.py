"""Tables of the benchmark of memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyro_vdn.bench.memory_methods import METHODS, ON
from pyro_vdn.bench.results import Estimate, collect, paired_difference

Results = Mapping[str, Any]
SCORES = {"joint_nll": "joint NLL", "crps": "CRPS"}


def memory_table(results: Results) -> str:
    """Return, by score, methods against regimes: the mean, and the paired difference to memory on.

    Args:
        results: What `bench_memory` returned.
    """
    return "\n\n".join(_score_table(results["runs"], metric) for metric in SCORES)


def _score_table(runs: Sequence[Mapping[str, Any]], metric: str) -> str:
    regimes = list(dict.fromkeys(run["regime"] for run in runs))
    head = ["data", SCORES[metric], "parameters", *regimes]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for data in dict.fromkeys(run["data"] for run in runs):
        for method in METHODS:
            own = [run for run in runs if (run["data"], run["method"]) == (data, method.name)]
            if not own:
                continue
            cells = [_cell(runs, data, method.name, regime, metric) for regime in regimes]
            parameters = f"{own[0]['metrics']['parameters']:,.0f}"
            lines.append("| " + " | ".join([data, method.name, parameters, *cells]) + " |")
    return "\n".join(lines)


def _cell(
    runs: Sequence[Mapping[str, Any]], data: str, method: str, regime: str, metric: str
) -> str:
    """Return the mean with its standard error, and by how much more that is than memory on."""
    here = [run for run in runs if (run["data"], run["regime"]) == (data, regime)]
    mean = Estimate.of(collect(here, method, metric))
    if method == ON:
        return f"**{mean.mean:.3f}** ± {mean.standard_error:.3f}"
    difference = paired_difference(here, method, ON, metric)
    return f"{mean.mean:.3f} ({difference.mean:+.3f} ± {difference.standard_error:.3f})"
