"""The benchmark commands, on the smallest budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pyro_vdn.bench import forecasting, regression
from pyro_vdn.bench.app import app
from pyro_vdn.train.recipes import ForecastingRecipe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
]


def test_speed(tmp_path: Path) -> None:
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
