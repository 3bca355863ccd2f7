"""The benchmark commands, on the smallest budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pyro_vdn.bench import (
    collapse,
    control,
    control_cost,
    forecasting,
    regression,
    regulation,
    speed,
)
from pyro_vdn.bench.app import app
from pyro_vdn.control import FreeBits
from pyro_vdn.train.recipes import ForecastingRecipe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
]


def test_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SIZES", (6, 16, 32, 3))
    out = tmp_path / "speed.json"
    result = CliRunner().invoke(app, ["speed", "--repeats", "1", "--out", str(out)])
    assert result.exit_code == 0, result.output
    results = json.loads(out.read_text())["results"]
    assert [entry["num_particles"] for entry in results] == [1, 1, 1, 4, 4, 4]


def test_regression(tmp_path: Path) -> None:
    out = tmp_path / "regression.json"
    arguments = ["regression", "--splits=1", "--restarts=2", "--steps=20", f"--out={out}"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    runs = json.loads(out.read_text())["runs"]
    assert [run["method"] for run in runs] == [regression.NEURONS, regression.TWIN]
    assert all(run["metrics"]["nll_original"] > run["metrics"]["nll"] for run in runs)


def test_forecasting_methods() -> None:
    recipe = ForecastingRecipe(
        max_steps=4, evaluate_every=4, validation_every=400, test_every=400, num_samples=20
    )
    seen: list[int] = []
    results = forecasting.bench_forecasting(
        seeds=(0,), recipe=recipe, on_run=lambda partial: seen.append(len(partial["runs"]))
    )
    assert [run["method"] for run in results["runs"]] == [
        forecasting.RIDGE,
        forecasting.NEURONS,
        forecasting.MEAN_ONLY,
        forecasting.TWIN,
    ]
    assert seen == [1, 2, 3, 4]
    assert set(forecasting.COLUMNS) - {"kl_per_unit", "active_share"} <= set(
        results["runs"][1]["metrics"]
    )


def test_control(tmp_path: Path) -> None:
    out = tmp_path / "control.json"
    arguments = ["control", "--data=energy", "--seeds=1", "--steps=4", f"--out={out}"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    runs = json.loads(out.read_text())["runs"]
    assert [run["method"] for run in runs] == [regime.name for regime in control.REGIMES]
    off, *others = (run["metrics"]["nll"] for run in runs)
    assert off not in others


def test_collapse(tmp_path: Path) -> None:
    out = tmp_path / "collapse.json"
    result = CliRunner().invoke(app, ["collapse", "--seeds=1", "--steps=2", f"--out={out}"])
    assert result.exit_code == 0, result.output
    runs = json.loads(out.read_text())["runs"]
    assert [run["illness"] for run in runs[2:]] == [
        illness.mode.value for illness in collapse.ILLNESSES
    ]
    assert [len(run["calls"]) for run in runs[:2]] == [collapse.UNITS, collapse.FEW_UNITS]
    assert all(len(run["victims"]) == collapse.UNITS // 2 for run in runs[2:])


def test_regulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regulation, "KILLING_STEPS", 80)
    monkeypatch.setattr(regulation, "TABLE_STEPS", 150)
    out = tmp_path / "regulation.json"
    result = CliRunner().invoke(app, ["regulation", "--seeds=1", "--steps=20", f"--out={out}"])
    assert result.exit_code == 0, result.output
    thermostat, jumping, compensated = json.loads(out.read_text())["runs"]
    assert thermostat["metrics"]["dead_before"] > 0.9
    assert jumping["metrics"]["in_range"] > jumping["metrics"]["in_range_before"]
    assert compensated["metrics"]["jump"] < 1e-3 < jumping["metrics"]["jump"]


def test_control_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_cost, "BLOCK", 2)
    monkeypatch.setattr(control_cost, "ALONE", {"FreeBits": FreeBits})
    out = tmp_path / "cost.json"
    result = CliRunner().invoke(app, ["control-cost", "--repeats=1", f"--out={out}"])
    assert result.exit_code == 0, result.output
    results = json.loads(out.read_text())["results"]
    assert all(one["milliseconds"] > 0 for one in results)
