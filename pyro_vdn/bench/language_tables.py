"""Tables of the benchmarks of language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyro_vdn.bench.language_methods import SETTINGS
from pyro_vdn.bench.results import Estimate, collect

Results = Mapping[str, Any]
_COLUMNS = {
    "nll_whole": "NLL, both halves",
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
        return f"{mean:.4f} ({_signed([sum(differences) / len(differences)])})"
    return f"{mean:.4f} ({_signed(differences)})"


def _signed(values: Sequence[float]) -> str:
    """Return mean ± standard error with the sign of the mean; one value has no error."""
    estimate = Estimate.of(values)
    return f"{'' if estimate.mean < 0 else '+'}{estimate}"


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
    here = [row[what][0] for row in rows if row["corruption"] == share]
    return f"**{Estimate.of(here).mean:.4f}**" if baseline else _signed(here)


def _saved(rows: Sequence[Mapping[str, Any]], share: float) -> str:
    here = [row["saved"] for row in rows if row["corruption"] == share]
    if not here:
        return ""
    clear = sum(saved[1] > 0 for saved in here)
    return f"{_signed([saved[0] for saved in here])} (clear in {clear} of {len(here)})"


def shift_table(results: Results) -> str:
    """Return what neurons say of text whose context is corrupted: means and errors over seeds.

    Args:
        results: What `bench_language` returned.
    """
    columns = {"nll": "NLL", "entropy": "entropy", "mutual_information": "MI", "kl": "KL"}
    head = ["trained on", "corrupted", *columns.values()]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for name, setting in SETTINGS.items():
        found = [signal for signal in results["signals"] if signal["setting"] == name]
        rows = [row for signal in found for row in signal["shift"] if row["method"] == "neurons"]
        for share in dict.fromkeys(row["corruption"] for row in rows):
            own = [row for row in rows if row["corruption"] == share]
            cells = [str(Estimate.of([row[column] for row in own])) for column in columns]
            lines.append("| " + " | ".join([setting.what, f"{share:.0%}", *cells]) + " |")
    return "\n".join(lines)


def readout_table(results: Results) -> str:
    """Return what a readout chosen on one half has on the other, beside the mean probability.

    Args:
        results: What `bench_language` returned.
    """
    head = ["trained on", "chosen by", "readout", "that score", "of the mean probability", "NLL"]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for name, setting in SETTINGS.items():
        rows = [row for row in results["readouts"] if row["setting"] == name]
        for by in dict.fromkeys(row["by"] for row in rows):
            own = [row for row in rows if row["by"] == by]
            best = [row for row in own if row["chosen"]]
            names = dict.fromkeys(_readout(row["readout"]) for row in best)
            plain = [row for row in own if _readout(row["readout"]) == "mean probability at 1.0"]
            cells = [
                str(Estimate.of([row[by] for row in best])),
                str(Estimate.of([row[by] for row in plain])),
                str(Estimate.of([row["nll"] for row in best])),
            ]
            lines.append("| " + " | ".join([setting.what, by, ", ".join(names), *cells]) + " |")
    return "\n".join(lines)


def _readout(readout: Mapping[str, Any]) -> str:
    return f"{readout['name'].replace('_', ' ')} at {readout['temperature']}"


def ablation_table(results: Results) -> str:
    """Return what becomes of the neurons when one thing about them is changed, for one seed.

    Args:
        results: What `bench_language` returned.
    """
    head = ["trained on", "", *_COLUMNS.values(), "flip rate"]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for run in results["ablations"]:
        metrics = run["metrics"]
        cells = [f"{metrics[name]:.4f}" for name in (*_COLUMNS, "flip_rate")]
        names = [SETTINGS[run["setting"]].what, run["method"]]
        lines.append("| " + " | ".join([*names, *cells]) + " |")
    return "\n".join(lines)


def language_speed_table(results: Results) -> str:
    """Return the time of training steps beside that of the deterministic effect.

    Args:
        results: What `bench_language_speed` returned, under ``results``.
    """
    lines = ["| step | ms | beside the deterministic effect |", "| --- | --- | --- |"]
    for row in results["results"]:
        lines.append(f"| {row['name']} | {row['milliseconds']:.1f} | {row['ratio']:.2f} x |")
    return "\n".join(lines)
