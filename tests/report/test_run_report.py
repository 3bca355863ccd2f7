"""Reports on runs: what they say, that nothing of a user's gets out of its quotes, in a browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyro_vdn.guides import NeuronGuide
from typer.testing import CliRunner

import pyro_vdn.report
from pyro_vdn.cli.app import make_app
from pyro_vdn.errors import RunFolderError
from pyro_vdn.report import blocks, write_report
from pyro_vdn.report.colours import DARK, LIGHT, contrast
from pyro_vdn.report.language_parts import language_parts
from pyro_vdn.report.markup import together
from pyro_vdn.report.number_parts import number_parts
from pyro_vdn.report.part import Part
from pyro_vdn.report.training_part import read_logs, training_part
from pyro_vdn.train.language_problem import load_language
from pyro_vdn.train.language_recipe import LanguageRecipe
from pyro_vdn.train.problem import Source, load_problem
from pyro_vdn.train.recipes import ForecastingRecipe, RegressionRecipe
from pyro_vdn.train.run import RunReport, start_run, write_metrics
from pyro_vdn.train.run_folder import read_config, save_model

NAME = '<img src=x onerror=alert(1)> & "quoted" $\\frac{ $'
COLUMN = "<script>alert('a')</script>"
TARGET = '</td><b onclick="alert(2)">price $\\frac{ $</b>'
HEADINGS = [
    "Scores",
    "Calibration",
    "Posterior predictive checks",
    "Predictions",
    "What the neurons do",
    "Training",
    "How it was made",
]


@pytest.fixture(scope="module", autouse=True)
def small_pictures() -> Iterator[None]:
    """Pictures of a third of the width: what is in them is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_DPI", 40)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a table whose names are hostile, with its twin, neither of them trained."""
    place = tmp_path_factory.mktemp("hostile")
    random = np.random.RandomState(0)
    frame = pd.DataFrame({COLUMN: random.randn(100), "b": random.randn(100)})
    frame[TARGET] = frame["b"] + 0.3 * random.randn(100)
    frame.to_csv(place / f"{NAME}.csv", index=False)
    recipe = RegressionRecipe(num_units=3, num_samples=40)
    source = Source(str(place / f"{NAME}.csv"), (TARGET,))
    problem, _ = start_run(source, recipe, 0, place / "run")
    trained = {"steps": 4, "best_step": 4, "validation_nll": 1.2, "training_seconds": 0.5}
    for method in recipe.methods:
        (member,) = recipe.members(method)
        save_model(place / "run", problem.build_model(0, units=member.units), member)
    models = {method: {**trained, "parameters": 19} for method in recipe.methods}
    write_metrics(RunReport(place / "run", recipe.task, source.name, problem.tested_on, models))
    log = place / "run" / "training" / "twin" / "logs" / "from_step_0" / "metrics.csv"
    log.parent.mkdir(parents=True)
    log.write_text("step,train_loss,validation_nll\n0,0.9,\n3,0.8,\n3,,1.5\n")
    return place / "run"


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    result = run("report", folder, "--draws", 100)
    assert result.exit_code == 0, result.output
    assert f"report written to {folder / 'report.html'}" in result.stdout
    assert "scoring the neurons on 10 test rows" in result.stderr
    return folder / "report.html"


def run(*arguments: object) -> Any:
    return CliRunner().invoke(make_app(), [str(argument) for argument in arguments])


def text_of(part: Part) -> str:
    without = re.sub(r"<[^>]*>", " ", together(*part.content).html)
    return re.sub(r"\s+", " ", unescape(without))


def test_what_the_page_says(page: Path) -> None:
    made = page.read_text(encoding="utf-8")
    assert [unescape(found) for found in re.findall(r'<h2><a href="#\w+">([^<]*)', made)][1:] == (
        HEADINGS
    )
    for said in ("10 test rows of split 0", "seed 0", "version 0.1.0", "climatology"):
        assert said in made
    assert "Few independent rows (n = 10)" in made
    assert "The last checkpoint was the best one" in made
    for picture in re.findall(r"<img[^>]*>", made):
        assert 'src="data:image/png;base64,' in picture
        assert re.search(r'alt="[^"]{20,}"', picture)
    assert made.count("<img") == 12
    assert "pyro-vdn evaluate" in made
    assert "recipe.num_units" in made


def test_nothing_of_a_user_is_taken_for_html(page: Path) -> None:
    made = page.read_text(encoding="utf-8")
    assert "<script" not in made
    assert "<img src=x" not in made
    assert "<b onclick" not in made
    assert not re.search(r"<[^>]*\son\w+=", made)
    for name in (NAME, COLUMN, TARGET):
        assert name in unescape(made)
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", made)
    assert not re.search(r"@import|url\(", made)


def test_the_run_is_made_again_by_what_the_page_says(
    folder: Path, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = list[Any]()
    monkeypatch.setattr("pyro_vdn.train.run.complete_run", lambda *given: again.extend(given))
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"<pre>([^<]*)</pre>", page.read_text(encoding="utf-8"))[1]
    exec(unescape(code), {})
    _, config, place = again
    assert config.to_dict() == read_config(folder).to_dict()
    assert read_config(place).to_dict() == config.to_dict()


def test_the_page_in_a_browser(
    page: Path, browser_page: Any, complaints: list[str], colour: Callable[..., Any]
) -> None:
    shown = browser_page
    shown.goto(page.as_uri())
    assert NAME in shown.title()
    assert shown.evaluate("document.scripts.length") == 0
    assert shown.evaluate("[...document.images].every(one => one.naturalWidth > 100)")
    assert shown.locator("h2").count() == 1 + len(HEADINGS)
    for scheme, width, theme in (("light", 1200, LIGHT), ("dark", 390, DARK)):
        shown.emulate_media(color_scheme=scheme)
        shown.set_viewport_size({"width": width, "height": 800})
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        paper = colour(shown.locator("body"), "backgroundColor")
        assert paper == theme.paper
        for element, least in (("body", 7.0), ("figcaption", 4.5), (".about", 4.5)):
            assert contrast(colour(shown.locator(element).first, "color"), paper) >= least
        turned = "invert" in shown.locator("img").first.evaluate("e => getComputedStyle(e).filter")
        assert turned == (scheme == "dark")
    picture = shown.locator(".picture").first
    before = picture.locator("img").bounding_box()["width"]
    picture.click()  # a tap enlarges it inside its box
    assert picture.locator("img").bounding_box()["width"] > 2 * before
    assert shown.evaluate("document.documentElement.scrollWidth") <= 390
    shown.locator("summary").click()  # long settings break into lines or scroll in their box
    assert shown.evaluate("document.documentElement.scrollWidth") <= 390
    assert complaints == []


def test_reports_that_cannot_be_made(folder: Path, tmp_path: Path) -> None:
    for place, text in ((tmp_path, "without config.json"), (folder / "no", "without config.json")):
        result = run("report", place)
        assert result.exit_code == 2
        assert text in result.stderr
    (tmp_path / "mine.txt").write_text("mine")
    for out in (tmp_path / "mine.txt", tmp_path):
        result = run("report", folder, "--out", out)
        assert result.exit_code == 2
        assert "exists and is no page, nothing was changed. Try: --out report.html" in result.stderr
    assert (tmp_path / "mine.txt").read_text() == "mine"
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(
        RunFolderError, match=r"expected a complete run, got one without metrics\.json"
    ):
        write_report(tmp_path)


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match=r"'pyro_vdn\.report' has no attribute 'nothing'"):
        getattr(pyro_vdn.report, "nothing")  # noqa: B009


def test_logs_of_a_resumed_run_are_read_in_order(tmp_path: Path) -> None:
    head = "step,train_loss,validation_nll\n"
    for start, lines in (("5", "5,0.3,\n"), ("0", "0,0.9,\n4,,1.5\nx,y,z\n"), ("10", "9,0.1,\n")):
        log = tmp_path / "training" / "twin" / "logs" / f"from_step_{start}" / "metrics.csv"
        log.parent.mkdir(parents=True)
        log.write_text(head + lines)
    other = tmp_path / "training" / "mine" / "logs" / "a" / "metrics.csv"
    other.parent.mkdir(parents=True)
    other.write_text(head + "1,2,3\n")
    assert read_logs(tmp_path) == {
        "train_loss": {"twin": ([1.0, 6.0, 10.0], [0.9, 0.3, 0.1])},
        "validation_nll": {"twin": ([5.0], [1.5])},
    }


def test_training_of_an_ensemble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = list[Any]()
    monkeypatch.setattr(blocks, "_png", lambda figure: drawn.append(figure) or b"")
    for member in ("twin", "ensemble-2", "ensemble-1", "neurons"):
        log = tmp_path / "training" / member / "logs" / "from_step_0" / "metrics.csv"
        log.parent.mkdir(parents=True)
        log.write_text("step,train_loss,validation_nll\n0,0.9,1.0\n1,0.8,0.9\n")
    one = {"steps": 2, "best_step": 1, "validation_nll": 0.9}
    whole = {"parameters": 1234, "training_seconds": 3.0}
    models = {
        "neurons": {**one, **whole, "best_step": None},
        "ensemble": {"members": [one, {**one, "best_step": 2}], **whole},
    }
    part = training_part(tmp_path, models)
    said = text_of(part)
    assert "neurons 2 - 0.900 1,234 3" in said
    assert "ensemble 1 2 1 0.900 1,234 3 ensemble 2 2 2 0.900" in said
    assert "(ensemble 2)" in part.checks[0].findings[0]
    names = [text.get_text() for text in drawn[0].axes[0].get_legend().get_texts()]
    assert names == ["neurons", "deterministic twin", "ensemble"]


def test_parts_of_a_forecasting_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_png", lambda figure: b"")
    random, steps = np.random.RandomState(0), np.arange(400)
    frame = pd.DataFrame({"a": np.sin(steps / 5) + random.randn(400), "b": random.randn(400)})
    frame.to_csv(tmp_path / "series.csv", index=False)
    recipe = ForecastingRecipe(
        input_length=12, horizon=6, kernel_size=3, num_units=3, num_samples=30
    )
    problem = load_problem(Source(str(tmp_path / "series.csv")), recipe)
    models = {}
    for name, units in (("neurons", "neurons"), ("twin", "points")):
        model = problem.build_model(0, units=units)  # type: ignore[arg-type]
        models[name] = [(model, NeuronGuide(model))]
    models["ensemble"] = 2 * models["twin"]
    parts = number_parts(models, problem, num_draws=60, say=lambda message: None)
    assert [part.heading for part in parts] == HEADINGS[:5]
    scores, calibration, checks = (text_of(part) for part in parts[:3])
    for name in ("deterministic twin", "ensemble of 2", "climatology", "persistence"):
        assert name in scores
    assert "independent stretches of time" in scores
    assert re.search(r"steps ahead in 50 % in 90 % CRPS 1 ", calibration)
    assert "autocorrelation" in checks
    assert "Channels move together" in checks
    worse = [said for check in parts[0].checks for said in check.findings]
    assert any(said.startswith("climatology: better in NLL") for said in worse)  # untrained


def test_parts_of_a_language_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_png", lambda figure: b"")
    (tmp_path / "text.txt").write_text("<script>alert(1)</script> and some more & so on\n" * 60)
    recipe = LanguageRecipe(block_size=8, num_layers=1, num_heads=2, width=8, num_samples=4)
    problem = load_language(Source(str(tmp_path / "text.txt")), recipe)
    model = recipe.build_model(problem.tokenizer.vocab_size).program
    models = {"neurons": [(model, NeuronGuide(model))]}
    parts = language_parts(models, problem, num_draws=60, say=lambda message: None)
    assert [part.anchor for part in parts] == [
        *("scores", "calibration", "checks", "tokens", "neurons")
    ]
    shown = together(*parts[3].content).html
    assert "<script" not in shown
    assert shown.count('class="t ') == 2 * len(problem.test)
    assert "surprise" in shown
    scores = text_of(parts[0])
    assert "pairs of tokens" in scores
    assert "rare (" in scores
    assert any("pairs of tokens: better" in said for said in parts[0].checks[0].findings)
    assert "Predictive variance" in text_of(parts[4])
