"""Whole runs on small budgets: problems, folders, predictions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_vdn.diagnostics import load_netcdf
from pyro_vdn.errors import InputError, RunFolderError
from pyro_vdn.infer import log_density
from pyro_vdn.train.members import Member
from pyro_vdn.train.predict_file import predict_file
from pyro_vdn.train.problem import Source, load_problem
from pyro_vdn.train.recipes import ForecastingRecipe, RegressionRecipe
from pyro_vdn.train.run import complete_run, rescore_run, resume_run, start_run
from pyro_vdn.train.run_folder import load_model, load_models, read_config, write_config
from pyro_vdn.train.tasks import task_of

FORECAST = ForecastingRecipe(
    input_length=24, horizon=6, hidden=8, num_units=4, rank=2, kernel_size=5, num_samples=30
).with_steps(20)
REFERENCES = ("twin", "dropout", "ensemble")
REGRESS = RegressionRecipe(
    num_units=6, num_samples=30, references=REFERENCES, ensemble_size=2
).with_steps(20)


@pytest.fixture(scope="module", autouse=True)
def _double() -> Iterator[None]:
    """Train the runs that tests share in the numbers that tests train in."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(dtype)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "waves.csv"
    random, steps = np.random.RandomState(0), np.arange(400)
    frame = pd.DataFrame(
        {
            "date": pd.date_range("2024-01-01", periods=400, freq="h"),
            "a": 10 + 3 * np.sin(steps / 4) + random.randn(400),
            "b": 100 + random.randn(400).cumsum(),
        }
    )
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def forecast_run(series: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "forecast"
    complete_run(*start_run(Source(str(series)), FORECAST, 3, folder), folder)
    return folder


@pytest.fixture(scope="module")
def table_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "table"
    complete_run(*start_run(Source("energy"), REGRESS, 0, folder), folder)
    return folder


@pytest.mark.parametrize(
    ("run", "more"),
    [
        ("forecast_run", set()),
        ("table_run", {f"{name}.safetensors" for name in ("dropout", "ensemble-1", "ensemble-2")}),
    ],
)
def test_a_run_folder_holds_everything(
    run: str, more: set[str], request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(run)
    names = {item.name for item in folder.iterdir()}
    assert names == more | {
        "calibration.png",
        "config.json",
        "draws.nc",
        "forecast.png",
        "metrics.json",
        "model.safetensors",
        "training",
        "twin.safetensors",
        "units.png",
    }
    for picture in ("calibration", "forecast", "units"):
        assert (folder / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
    models = json.loads((folder / "metrics.json").read_text())["models"]
    assert models["neurons"]["parameters"] > models["twin"]["parameters"]
    assert models["twin"]["kl_per_unit"] is None
    assert models["neurons"]["active_share"] == 1.0
    assert models["neurons"]["steps"] == 20


def test_draws_have_named_coordinates(forecast_run: Path, series: Path) -> None:
    draws = load_netcdf(forecast_run / "draws.nc")
    assert draws["posterior"]["neurons.z"].dims == ("chain", "draw", "row", "unit")
    predictive = draws["posterior_predictive"]["y"]
    assert predictive.dims == ("chain", "draw", "row", "horizon")
    assert predictive.horizon.values.tolist() == [1, 2, 3, 4, 5, 6]
    assert draws["constant_data"]["x"].lag.values[-1] == 0
    assert draws["observed_data"]["y"].shape == predictive.shape[2:]
    assert str(predictive.row.values[0]) == "b, forecast from row 320"
    assert draws["log_likelihood"]["y_row"].dims == ("chain", "draw", "row")
    assert draws["log_likelihood"].attrs["meaning"].startswith("conditional")
    assert draws["predictive_density"].attrs["meaning"].startswith("marginal")
    assert draws["unit_stats"]["neurons.kl"].dims == ("unit",)
    first = draws["constant_data"]
    back = first["x"] * first["target_scale"] + first["target_mean"]
    window = pd.read_csv(series)["b"].to_numpy()[320 - 24 : 320]
    assert back.sel(row="b, forecast from row 320").values == pytest.approx(window, rel=1e-4)


@pytest.mark.parametrize("run", ["forecast_run", "table_run"])
def test_scoring_again_gives_the_same_figures(run: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(run)
    before = json.loads((folder / "metrics.json").read_text())["models"]
    files = {item: item.stat().st_mtime_ns for item in folder.iterdir()}
    report = rescore_run(folder)
    for name, scores in report.models.items():
        for key in set(scores) - {"seconds", "members"}:
            assert scores[key] == pytest.approx(before[name][key]), (name, key)
    assert {item: item.stat().st_mtime_ns for item in folder.iterdir()} == files


def test_references_are_scored_beside_the_neurons(table_run: Path) -> None:
    config = read_config(table_run)
    models = json.loads((table_run / "metrics.json").read_text())["models"]
    assert list(models) == ["neurons", *REFERENCES]
    assert config.recipe.references == REFERENCES
    assert models["ensemble"]["parameters"] == 2 * models["twin"]["parameters"]
    seconds = [models[name]["training_seconds"] for name in models]
    assert all(value > 0 for value in seconds)
    members = models["ensemble"]["members"]
    assert [member["steps"] for member in members] == [20, 20]
    assert [models[name]["networks"] for name in models] == [1, 1, 1, 2]
    assert members[0]["validation_nll"] != members[1]["validation_nll"]
    for scores in models.values():
        assert 0 < scores["nll_se"] < 1
        assert 0 < scores["crps_se"] < scores["crps"]
    for name in REFERENCES:
        assert models[name]["kl_per_unit"] is models[name]["active_share"] is None


def test_an_ensemble_is_scored_as_the_mixture_of_its_members(table_run: Path) -> None:
    loaded = load_models(table_run)
    assert {name: len(fitted) for name, fitted in loaded.items()} == {
        **dict.fromkeys(("neurons", "twin", "dropout"), 1),
        "ensemble": 2,
    }
    config = read_config(table_run)
    x, y = load_problem(config.source, config.recipe).test
    parts = [log_density(*one, x, y)[0] for one in loaded["ensemble"]]
    assert not torch.equal(*parts)
    mixture = -torch.stack(parts).exp().mean(0).log().mean()
    models = json.loads((table_run / "metrics.json").read_text())["models"]
    assert models["ensemble"]["nll"] == pytest.approx(float(mixture), rel=1e-5)


def test_what_was_trained_stays_when_a_run_is_resumed(
    table_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpictured = replace(task_of("regression"), write=lambda *args: None)
    monkeypatch.setattr("pyro_vdn.train.run.task_of", lambda name: unpictured)
    folder = tmp_path / "run"
    shutil.copytree(table_run, folder)
    (folder / "metrics.json").unlink()
    (folder / "ensemble-2.safetensors").unlink()
    for checkpoint in (folder / "training" / "ensemble-2").glob("*.safetensors"):
        checkpoint.unlink()  # as when killed before the first: its logs are there
    assert list((folder / "training" / "ensemble-2").iterdir())
    assert [len(fitted) for fitted in load_models(folder).values()] == [1, 1, 1, 1]
    networks = {name: scores["networks"] for name, scores in rescore_run(folder).models.items()}
    assert networks == dict.fromkeys(("neurons", *REFERENCES), 1)
    said: list[str] = []
    again = complete_run(*resume_run(folder), folder, progress=False, say=said.append).models
    before = json.loads((table_run / "metrics.json").read_text())["models"]
    assert "training the ensemble, 2" in said
    for name, scores in again.items():
        assert scores["nll"] == pytest.approx(before[name]["nll"]), name


def test_a_run_of_an_earlier_version_is_read(table_run: Path, tmp_path: Path) -> None:
    config = json.loads((table_run / "config.json").read_text())
    for name in ("references", "dropout", "ensemble_size"):
        del config["recipe"][name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in ("model.safetensors", "twin.safetensors"):
        (tmp_path / name).write_bytes((table_run / name).read_bytes())
    assert list(rescore_run(tmp_path).models) == ["neurons", "twin"]
    (tmp_path / "twin.safetensors").unlink()  # trained without
    assert list(load_models(tmp_path)) == ["neurons"]


def test_a_table_is_predicted_in_its_own_units(table_run: Path, tmp_path: Path) -> None:
    config = read_config(table_run)
    problem = load_problem(config.source, config.recipe)
    x = problem.test[0] * config.inputs.scale + config.inputs.mean
    frame = pd.DataFrame(x.numpy(), columns=list(config.inputs.names)).iloc[:, ::-1]
    frame.insert(0, "other", 1)
    frame.to_csv(tmp_path / "in.csv", index=False)
    assert predict_file(table_run, tmp_path / "in.csv", tmp_path / "out.csv") == 77
    out = pd.read_csv(tmp_path / "out.csv")
    quantiles = ["q0.05", "q0.25", "q0.50", "q0.75", "q0.95"]
    assert list(out.columns) == ["row", "mean", "sd", *quantiles]
    assert (out[quantiles].diff(axis=1).iloc[:, 1:] > 0).all(axis=None)
    truth = problem.test[1] * config.targets.scale + config.targets.mean
    assert np.corrcoef(out["mean"], truth[:, 0])[0, 1] > 0.5
    assert (out["sd"] > 0).all()


def test_a_series_is_forecast_from_its_last_window(
    forecast_run: Path, series: Path, tmp_path: Path
) -> None:
    predict_file(forecast_run, series, tmp_path / "both.csv")
    out = pd.read_csv(tmp_path / "both.csv")
    assert out["channel"].tolist() == ["a"] * 6 + ["b"] * 6
    assert out["step"].tolist() == [1, 2, 3, 4, 5, 6] * 2
    assert out.groupby("channel")["mean"].mean()["b"] > 50
    last = pd.read_csv(series).tail(24)[["b"]]
    last.to_csv(tmp_path / "b.csv", index=False)
    predict_file(forecast_run, tmp_path / "b.csv", tmp_path / "one.csv")
    one = pd.read_csv(tmp_path / "one.csv")
    assert one["mean"].to_numpy() == pytest.approx(out["mean"].to_numpy()[6:], rel=1e-4)


def test_predictions_refuse_what_they_cannot_do(
    forecast_run: Path, series: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    frame = pd.read_csv(series)
    frame.tail(23).to_csv(tmp_path / "short.csv", index=False)
    with pytest.raises(InputError, match="at least 24 rows"):
        predict_file(forecast_run, tmp_path / "short.csv", out)
    frame.rename(columns={"a": "c", "b": "d"}).to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(InputError, match="which need 'a'"):
        predict_file(forecast_run, tmp_path / "other.csv", out)
    frame.loc[399, "a"] = np.inf
    frame.to_csv(tmp_path / "inf.csv", index=False)
    with pytest.raises(InputError, match="inf at row 399"):
        predict_file(forecast_run, tmp_path / "inf.csv", out)
    assert not out.exists()
    out.write_text("mine")
    with pytest.raises(RunFolderError, match="exists, nothing was changed"):
        predict_file(forecast_run, series, out)
    assert out.read_text() == "mine"


def test_changed_data_are_noticed(forecast_run: Path, series: Path) -> None:
    text = series.read_text()
    try:
        series.write_text(text.replace("2024-01-01 00:00:00,1", "2024-01-01 00:00:00,9"))
        with pytest.raises(InputError, match="the data that the run was trained on"):
            rescore_run(forecast_run)
    finally:
        series.write_text(text)


def test_a_complete_run_is_not_resumed(table_run: Path) -> None:
    with pytest.raises(RunFolderError, match="got one that is complete"):
        resume_run(table_run)


def test_damaged_runs_are_refused(table_run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"without config\.json"):
        read_config(tmp_path)
    config = read_config(table_run)
    write_config(tmp_path, config)
    with pytest.raises(RunFolderError, match="no such file"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(
        (table_run / "model.safetensors").read_bytes()[:-50]
    )
    with pytest.raises(RunFolderError, match="damaged"):
        load_model(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["recipe"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(RunFolderError, match="damaged or changed by hand"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"format": "other"}')
    with pytest.raises(RunFolderError, match="got 'other'"):
        read_config(tmp_path)


def test_weights_of_another_model_are_refused(table_run: Path, tmp_path: Path) -> None:
    config = read_config(table_run)
    other = RegressionRecipe(num_units=7)
    write_config(tmp_path, type(config)(config.source, other, 0, config.inputs, config.targets))
    (tmp_path / "model.safetensors").write_bytes((table_run / "model.safetensors").read_bytes())
    with pytest.raises(RunFolderError, match="weights of another model"):
        load_model(tmp_path)


def test_loaded_models_are_the_ones_saved(table_run: Path) -> None:
    (model, _), (twin, _) = load_model(table_run), load_model(table_run, member=Member("twin"))
    assert model is not twin
    x = torch.zeros(3, 8, dtype=torch.float32)
    assert model(x).shape == twin(x).shape == (3, 1)


@pytest.mark.parametrize(
    ("source", "recipe", "text"),
    [
        (Source("energie"), RegressionRecipe(), "got 'energie'. Try: 'energy'"),
        (Source("etth1"), RegressionRecipe(), "pyro-vdn fit forecasting --data etth1"),
        (Source("energy"), ForecastingRecipe(), "pyro-vdn fit regression --data energy"),
        (Source("energy", ("height",)), RegressionRecipe(), "leave --target out"),
        (Source("houses.csv"), RegressionRecipe(), "--target COLUMN"),
        (Source("etth1", ("0T",)), ForecastingRecipe(), "Try: 'OT'"),
    ],
)
def test_sources_that_do_not_fit_are_refused(
    source: Source, recipe: ForecastingRecipe | RegressionRecipe, text: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=text):
        start_run(source, recipe, 0, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_channels_and_every_nth_window(series: Path) -> None:
    whole = load_problem(Source(str(series)), FORECAST)
    some = load_problem(Source(str(series), ("b",)), FORECAST)
    assert len(some.test[0]) * 2 == len(whole.test[0])
    assert some.targets.names == ("b",)
    seventh = load_problem(Source(str(series)), replace(FORECAST, test_every=7))
    assert torch.equal(seventh.test[0][2:4], whole.test[0][14:16])
    assert "every 7th" in seventh.tested_on
