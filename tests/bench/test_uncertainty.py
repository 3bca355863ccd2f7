"""The benchmarks of uncertainty, on the smallest budget."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pyro_vdn.bench.app import app
from pyro_vdn.bench.simulated_uncertainty import GUIDES, _for_json
from pyro_vdn.bench.uncertainty_tables import _k_hat, simulated_table, uncertainty_table


def test_simulated(tmp_path: Path) -> None:
    out = tmp_path / "simulated.json"
    arguments = ["simulated", "--simulations=200", "--repeats=1", "--conformal-sets=200"]
    result = CliRunner().invoke(app, [*arguments, f"--out={out}"])
    assert result.exit_code == 0, result.output
    results = json.loads(out.read_text())
    for part in results["coverage"]:
        assert abs(part["share"] - part["nominal"]) < 4 * part["standard_error"]
    assert results["verdicts"] == {name: int(name == "exact") for name in GUIDES}
    evidence = results["evidence"]
    assert evidence["exact"]["worst_k_hat"] is None
    assert evidence["half its scale"]["worst_k_hat"] > 0.5
    split = results["split_conformal"]
    assert abs(split["share"] - 0.9) < 4 * split["standard_error"]
    assert split["raw"] < 0.7
    adaptive = results["adaptive_conformal"]
    assert adaptive["split_after_shift"] < 0.8 < 0.88 < adaptive["adaptive_after_shift"]
    assert adaptive["largest_gap"] <= adaptive["bound"]
    assert "1 of 1" in simulated_table(results)


@pytest.mark.parametrize(
    ("k_hat", "said"),
    [(-math.inf, "-∞: all weights are equal"), (0.314, "0.31"), (math.inf, "inf")],
)
def test_the_worst_k_hat_is_not_taken_for_the_best(k_hat: float, said: str) -> None:
    kept = json.loads(json.dumps(_for_json(k_hat), allow_nan=False))
    assert _k_hat(kept) == said


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:lightning")
def test_tables(tmp_path: Path) -> None:
    out = tmp_path / "tables.json"
    arguments = ["uncertainty", "--data=energy", "--splits=1", "--steps=5", "--ensemble-size=2"]
    result = CliRunner().invoke(app, [*arguments, f"--out={out}"])
    assert result.exit_code == 0, result.output
    results = json.loads(out.read_text())
    names = [run["method"] for run in results["runs"]]
    assert names == ["neurons", "deterministic twin", "MC dropout", "ensemble of 2"]
    for run in results["runs"]:
        metrics = run["metrics"]
        assert metrics["coverage_conformal"] > 0.7
        assert metrics["width_conformal"] != metrics["width"]
    assert uncertainty_table(results).count("\n") == 1 + len(names)
