"""Tables of the benchmarks of language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyro_vdn.bench.language_methods import SETTINGS
from pyro_vdn.bench.results import Estimate, collect

Results = Mapping[str, Any]
_COLUMNS = {
    "nll": "NLL",
    "scaled_nll": "NLL at its temperature",
    "ece": "ECE",
    "cvar_nll": "CVaR 5 %",
    "mutual_information": "MI",
}
_BASELINE = "entropy"


def language_table(results: Results) -> str:
    """Return methods against scores, by setting: the mean, and the paired difference to the twin.

    Args:
        results: What `bench_language` returned.
    """
    head = ["", *_COLUMNS.values(), "parameters", "training, s"]
    tables = []
    for name, setting in SETTINGS.items():
        runs = [run for run in results["runs"] if run["setting"] == name]
        lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
        for method in dict.fromkeys(run["method"] for run in runs):
            cells = [_cell(runs, method, metric) for metric in _COLUMNS]
            facts = [_count(runs, method, fact) for fact in ("parameters", "train_seconds")]
            lines.append("| " + " | ".join([method, *cells, *facts]) + " |")
        if runs:
            tables.append(f"Trained on {setting.what}:\n\n" + "\n".join(lines))
    return "\n\n".join(tables)


def _cell(runs: Sequence[Mapping[str, Any]], method: str, metric: str) -> str:
    own, twin = (_by_seed(runs, name, metric) for name in (method, "twin"))
    mean = sum(own.values()) / len(own)
    differences = [own[seed] - twin[seed] for seed in own if seed in twin]
    if method == "twin" or metric == "mutual_information":
        return f"{mean:.4f}"
    if method == "ensemble":  # the same networks for all seeds
        return f"{mean:.4f} ({Estimate.of(differences).mean:+.4f})"
    difference = Estimate.of(differences)
    return f"{mean:.4f} ({difference.mean:+.4f} ± {difference.standard_error:.4f})"


def _by_seed(runs: Sequence[Mapping[str, Any]], method: str, metric: str) -> dict[int, float]:
    return {run["seed"]: run["metrics"][metric] for run in runs if run["method"] == method}


def _count(runs: Sequence[Mapping[str, Any]], method: str, fact: str) -> str:
    values = collect(runs, method, fact)
    return f"{sum(values) / len(values):,.0f}" if values else ""


def signal_table(results: Results, risk: str = "wrong") -> str:
    """Return by how much each score's area under the risk-coverage curve exceeds that of entropy.

    Args:
        results: What `bench_language` returned.
        risk: ``"wrong"`` for the share of wrong tokens, ``"nll"`` for nats.
    """
    signals = results["signals"]
    shares = list(dict.fromkeys(row["corruption"] for row in signals[0]["aurc"]))
    head = ["trained on", "score", *(f"{share:.0%} corrupted" for share in shares)]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for name, setting in SETTINGS.items():
        found = [signal for signal in signals if signal["setting"] == name]
        rows = [row for signal in found for row in signal["aurc"] if row["risk"] == risk]
        for score in dict.fromkeys(row["score"] for row in rows):
            own = [row for row in rows if row["score"] == score]
            cells = [_area(own, share, score == _BASELINE) for share in shares]
            lines.append("| " + " | ".join([setting.what, score, *cells]) + " |")
        added = [row for signal in found for row in signal["added"] if row["risk"] == risk]
        for base in dict.fromkeys(row["to"] for row in added):
            own = [row for row in added if row["to"] == base]
            cells = [_saved(own, share) for share in shares]
            label = f"saved by internal scores beyond {base}"
            lines.append("| " + " | ".join([setting.what, label, *cells]) + " |")
    return "\n".join(lines)


def _area(rows: Sequence[Mapping[str, Any]], share: float, baseline: bool) -> str:
    what = "aurc" if baseline else "difference"
    here = Estimate.of([row[what][0] for row in rows if row["corruption"] == share])
    return f"**{here.mean:.4f}**" if baseline else f"{here.mean:+.4f} ± {here.standard_error:.4f}"


def _saved(rows: Sequence[Mapping[str, Any]], share: float) -> str:
    here = [row["saved"] for row in rows if row["corruption"] == share]
    mean = Estimate.of([saved[0] for saved in here])
    clear = sum(saved[1] > 0 for saved in here)
    return f"{mean.mean:+.4f} ± {mean.standard_error:.4f} (clear in {clear} of {len(here)})"


def language_speed_table(results: Results) -> str:
    """Return the time of training steps beside that of the deterministic effect.

    Args:
        results: What `bench_language_speed` returned, under ``results``.
    """
    lines = ["| step | ms | beside the deterministic effect |", "| --- | --- | --- |"]
    for row in results["results"]:
        lines.append(f"| {row['name']} | {row['milliseconds']:.1f} | {row['ratio']:.2f} x |")
    return "\n".join(lines)
