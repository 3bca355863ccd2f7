"""The command line from outside: what it writes, says and returns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pyro_vdn.cli.app import make_app
from pyro_vdn.cli.table import show_report
from pyro_vdn.train.run import RunReport

SMALL = ["--input-length", "24", "--horizon", "6", "--units", "4", "--steps", "8"]
Run = Callable[..., Any]


@pytest.fixture
def run() -> Run:
    def call(*arguments: object) -> Any:
        return CliRunner().invoke(make_app(), [str(argument) for argument in arguments])

    return call


@pytest.fixture
def frame() -> pd.DataFrame:
    random, steps = np.random.RandomState(0), np.arange(300)
    a = 10 + 3 * np.sin(steps / 4) + random.randn(300)
    return pd.DataFrame({"a": a, "b": random.randn(300), "target": 2 * a + random.randn(300)})


def refused(result: Any, text: str) -> None:
    """Check for one clear paragraph on standard error, code 2 and no traceback."""
    assert result.exit_code == 2, result.output
    said = result.stderr.strip()
    assert said.startswith("pyro-vdn: ")
    assert text in said
    assert "\n" not in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["fit", "--help"],
        ["fit", "forecasting", "--help"],
        ["fit", "regression", "--help"],
        ["evaluate", "--help"],
        ["predict", "--help"],
        ["report", "--help"],
        ["data", "--help"],
    ],
)
def test_help_reads_well(arguments: list[str], run: Run) -> None:
    result = run(*arguments)
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_version(run: Run) -> None:
    assert run("--version").output == "pyro-vdn 0.1.0\n"


def test_data_are_listed_and_found(run: Run) -> None:
    assert "etth1" in run("data", "list").output
    assert Path(run("data", "get", "energy").output.strip()).is_file()
    refused(run("data", "get", "energie"), "Try: 'energy'")
    refused(run("data", "get", "boston"), "accept='race-derived-feature'")


def test_from_fit_to_predictions(
    run: Run, frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame.to_csv(tmp_path / "table.csv", index=False)
    fit = ["fit", "regression", "--data", tmp_path / "table.csv", "--target", "target"]
    out = tmp_path / "run"
    result = run(*fit, "--steps", 10, "--out", out, "--references", "dropout, twin")
    assert result.exit_code == 0, result.output
    for heading in ("MSE", "NLL", "joint NLL", "CRPS", "coverage", "energy score", "KL per unit"):
        assert heading in result.stdout
    assert (out / "metrics.json").exists()
    before = {item: item.stat().st_mtime_ns for item in out.rglob("*")}
    again = run("evaluate", out)
    assert again.exit_code == 0
    for method in ("neurons", "deterministic twin", "MC dropout"):
        assert " ".join(method.split()) in " ".join(again.stdout.split())
    assert _row(again.stdout, "NLL per output") == _row(result.stdout, "NLL per output")
    assert len(_row(result.stdout, "± std. error")) == 3
    monkeypatch.setattr("pyro_vdn.report.blocks._png", lambda figure: b"")  # drawn elsewhere
    page = tmp_path / "page.html"
    assert run("report", out, "--out", page, "--draws", 100).exit_code == 0
    assert page.read_text().count("MC dropout") > 2
    made = tmp_path / "made.csv"
    result = run("predict", out, "--input", tmp_path / "table.csv", "--output", made)
    assert result.exit_code == 0
    assert len(pd.read_csv(made)) == 300
    refused(run(*fit, "--out", out), "expected an empty or new folder")
    refused(run(*fit, "--out", out, "--resume"), "no settings beside --resume and --out")
    resumed = [*fit[:2], "--out", out, "--resume"]
    refused(run(*resumed, "--references", "ensemble"), "got --references ensemble")
    refused(run(*resumed), "one that is complete")
    refused(run("predict", out, "--input", made, "--output", tmp_path / "x.csv"), "need 'a'")
    assert {item: item.stat().st_mtime_ns for item in out.rglob("*")} == before
    assert not (tmp_path / "x.csv").exists()


def _row(said: str, label: str) -> list[float]:
    """Return the numbers of the first row of a table that has a label."""
    line = next(line for line in said.splitlines() if label in line)
    return [float(number) for number in line.split(label)[1].split()]


def test_a_series_is_forecast(run: Run, frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_csv(tmp_path / "series.csv", index=False)
    out = tmp_path / "run"
    result = run(
        *["fit", "forecasting", "--data", tmp_path / "series.csv", "--target", "a"],
        *["--target", "b", *SMALL, "--out", out, "--references", "none"],
    )
    assert result.exit_code == 0, result.output
    assert not (out / "twin.safetensors").exists()
    made = tmp_path / "made.csv"
    result = run("predict", out, "--input", tmp_path / "series.csv", "--output", made)
    assert "12 rows written" in result.stdout
    assert "x 2 channels" in run("evaluate", out, "--all").stdout


def _bad(kind: str, frame: pd.DataFrame, path: Path) -> None:
    if kind == "truncated":
        frame.to_csv(path, index=False)
        path.write_bytes(path.read_bytes()[:-20] + b"\n1.0")
        return
    if kind == "nan":
        frame.loc[7, "b"] = np.nan
    elif kind == "inf":
        frame.loc[7, "b"] = np.inf
    elif kind == "constant":
        frame["target"] = 1.0
    elif kind == "text":
        frame = frame.astype({"b": object})
        frame.loc[7, "b"] = "n/a?"
    elif kind == "short":
        frame = frame.head(20)
    frame.to_csv(path, index=False)


@pytest.mark.parametrize(
    ("task", "kind", "target", "text"),
    [
        ("regression", "nan", "target", "nan at row 7, column 'b'"),
        ("regression", "inf", "target", "inf at row 7, column 'b'"),
        ("regression", "text", "target", "'n/a?' at row 7"),
        ("regression", "constant", "target", "values that vary"),
        ("regression", "unknown", "targe", "Try: 'target'"),
        ("regression", "truncated", "target", "row"),
        ("forecasting", "nan", "b", "nan at row 7, column 'b'"),
        ("forecasting", "constant", "target", "values that vary"),
        ("forecasting", "unknown", "c", "expected one of 'a', 'b', 'target'"),
        ("forecasting", "short", "a", "for one window"),
    ],
)
def test_bad_files_are_refused_before_anything_is_written(
    task: str, kind: str, target: str, text: str, run: Run, frame: pd.DataFrame, tmp_path: Path
) -> None:
    path, out = tmp_path / "bad.csv", tmp_path / "run"
    _bad(kind, frame, path)
    small = SMALL if task == "forecasting" else ["--steps", "8"]
    refused(run("fit", task, "--data", path, "--target", target, *small, "--out", out), text)
    assert not out.exists()


def test_other_bad_input(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    refused(run("fit", "regression", "--data", "energie", "--out", out), "Try: 'energy'")
    refused(run("fit", "forecasting", "--data", "etth1.csv", "--out", out), "etth1.csv")
    refused(run("fit", "regression", "--resume"), "the folder of the run")
    refused(run("fit", "regression", "--resume", "--out", out), "without config.json")
    refused(run("evaluate", tmp_path), "without config.json")
    (tmp_path / "zip.csv").write_bytes(b"PK\x03\x04\x00\x00")
    zipped = ["--data", tmp_path / "zip.csv", "--target", "a"]
    refused(run("fit", "regression", *zipped, "--out", out), "zip.csv")
    for names in ("twins", "twin,", "twin,twin", "none,twin"):
        said = "--references: expected some of twin, dropout, ensemble, each once, got '"
        refused(run("fit", "regression", "--references", names, "--out", out), said)
    assert not out.exists()
    assert run("fit", "regression", "--units", 0).exit_code == 2


def test_names_are_no_markup(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    name = "[red]x[/] :smile: [/b]"
    models = {"neurons": {"networks": 1, "nll": 0.5}, "twin": {"networks": 1, "nll": 0.7}}
    show_report(RunReport(tmp_path / name, "regression", name, f"77 rows of {name}", models))
    said = capsys.readouterr().out
    for line in (f"{name}: regression", f"Tested on 77 rows of {name},"):
        assert line in said
    assert str(tmp_path / name) in said


def test_a_full_folder_is_refused_before_data_are_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    refused(run("fit", "forecasting", "--data", "no.csv", "--out", tmp_path), "mine.txt")
    assert [item.name for item in tmp_path.iterdir()] == ["mine.txt"]


def test_missing_packages_are_named() -> None:
    code = "import sys; sys.modules['typer'] = None\nfrom pyro_vdn.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'pip install "pyro-vdn[train]"' in done.stderr
    assert "Traceback" not in done.stderr


def heed_interrupts() -> None:
    """Undo what a shell does to its background jobs, whose children ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_ctrl_c_keeps_the_best_checkpoint_and_the_run_resumes(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-c", "from pyro_vdn.cli import main; main()"]
    fit = [*command, "fit", "regression", "--out", str(out)]
    with subprocess.Popen(
        [*fit, "--steps", "4000"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
        preexec_fn=heed_interrupts,
    ) as process:
        last = out / "training" / "neurons" / "last.safetensors"
        deadline = time.monotonic() + 60
        while not last.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "The best weights so far are in" in said
    assert f"pyro-vdn fit regression --out {out} --resume" in said
    assert "Traceback" not in said
    assert (out / "model.safetensors").exists()
    assert (out / "training/neurons/best.safetensors").exists()
    assert not (out / "metrics.json").exists()
    scored = subprocess.run([*command, "evaluate", str(out)], capture_output=True, text=True)
    assert scored.returncode == 0, scored.stderr
