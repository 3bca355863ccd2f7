"""Tables of the language benchmarks, of results with known means and errors."""

from __future__ import annotations

from typing import Any

from pyro_vdn.bench.language_tables import language_speed_table, language_table, signal_table


def run(method: str, seed: int, nll: float, **facts: float) -> dict[str, Any]:
    metrics = {"nll_whole": 2 * nll, "nll": nll, "scaled_nll": nll - 0.1}
    metrics |= {"ece": 0.5 * nll, "cvar_nll": 3 * nll}
    metrics |= {"mutual_information": 0.25, **facts}
    return {"setting": "full", "method": method, "seed": seed, "metrics": metrics}


def test_methods_are_paired_with_the_twin_by_seed() -> None:
    facts = {"parameters": 1200, "train_seconds": 30.4}
    runs = [
        *(run("twin", 1, 1.75, **facts), run("twin", 0, 1.5, **facts)),
        *(run("neurons", 0, 1.25, **facts), run("neurons", 1, 1.75, **facts)),
        *(run("few draws", 0, 1.5), run("few draws", 1, 2.0)),
        *(run("ensemble", 0, 1.25), run("ensemble", 1, 1.25)),
    ]
    lines = language_table({"runs": runs}).splitlines()
    assert lines[0] == "Trained on all the text:"
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines[4:]}
    assert list(rows) == ["twin", "neurons", "few draws", "ensemble"]
    assert (
        rows["twin"]
        == "| twin | 3.2500 | 1.6250 | 1.5250 | 0.8125 | 4.8750 | 0.2500 | 1,200 | 30 |"
    )
    # differences -0.25 and 0: mean -0.125, standard error 0.125
    assert rows["neurons"] == (
        "| neurons | 3.0000 (-0.2500 ± 0.2500) | 1.5000 (-0.1250 ± 0.1250) | "
        "1.4000 (-0.1250 ± 0.1250) | "
        "0.7500 (-0.0625 ± 0.0625) | 4.5000 (-0.3750 ± 0.3750) | 0.2500 | 1,200 | 30 |"
    )
    assert rows["few draws"].endswith("| 0.2500 |  |  |")
    assert "| 1.2500 (-0.3750) |" in rows["ensemble"]


def test_settings_without_runs_are_left_out() -> None:
    one = language_table({"runs": [run("twin", 0, 1.5)]})
    both = language_table(
        {"runs": [run("twin", 0, 1.5), run("twin", 0, 2.0) | {"setting": "tenth"}]}
    )
    assert both.startswith(one)
    assert "Trained on 10 % of the text:" in both
    assert "10 %" not in one


def signal(setting: str, shift: float) -> dict[str, Any]:
    areas, added = [], []
    for risk, level in (("wrong", 0.5), ("nll", 1.5)):
        for share in (0.0, 0.15):
            about = {"corruption": share, "risk": risk}
            for score, away in (("entropy", 0.0), ("KL", shift)):
                area = [level + share + away, 0.0, 0.0]
                areas.append(
                    about | {"score": score, "aurc": area, "difference": [away, -1.0, 1.0]}
                )
            saved = [shift, shift - 0.02, shift + 0.02]
            added.append(about | {"to": "entropy", "saved": saved})
    return {"setting": setting, "aurc": areas, "added": added}


def test_signals_are_compared_with_entropy() -> None:
    signals = [signal("tenth", 0.01), signal("tenth", 0.03)]
    wrong = signal_table({"signals": signals}).splitlines()
    assert wrong[0] == "| trained on | score | 0% corrupted | 15% corrupted |"
    assert wrong[2:] == [
        "| 10 % of the text | entropy | **0.5000** | **0.6500** |",
        "| 10 % of the text | KL | +0.0200 ± 0.0100 | +0.0200 ± 0.0100 |",
        "| 10 % of the text | saved by internal scores beyond entropy | "
        "+0.0200 ± 0.0100 (clear in 1 of 2) | +0.0200 ± 0.0100 (clear in 1 of 2) |",
    ]
    nll = signal_table({"signals": signals}, "nll").splitlines()
    assert nll[2] == "| 10 % of the text | entropy | **1.5000** | **1.6500** |"


def test_steps_stand_beside_the_twins() -> None:
    rows = [{"name": "neurons", "milliseconds": 12.34, "twin_milliseconds": 10.0, "ratio": 1.234}]
    assert language_speed_table({"results": rows}).splitlines()[2:] == [
        "| neurons | 12.3 | 1.23 x |"
    ]
