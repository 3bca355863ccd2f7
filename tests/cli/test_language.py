"""`pyro-vdn fit language`, `evaluate` and `generate` from outside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pyro_vdn.cli.app import make_app

TEXT = "the cat sat on the mat, the dog sat on the log. " * 40
SMALL = ["--layers", "1", "--width", "8", "--block", "8", "--steps", "4"]
Run = Callable[..., Any]


def run(*arguments: object) -> Any:
    return CliRunner().invoke(make_app(), [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cli")
    (place / "cats.txt").write_text(TEXT, encoding="utf-8")
    done = run("fit", "language", "--text", place / "cats.txt", *SMALL, "--out", place / "run")
    assert done.exit_code == 0, done.output
    (place / "said.txt").write_text(done.stdout, encoding="utf-8")
    return place


def refused(result: Any, text: str) -> None:
    """Check for one clear paragraph on standard error, code 2 and no traceback."""
    assert result.exit_code == 2, result.output
    said = result.stderr.strip()
    assert said.startswith("pyro-vdn: ")
    assert text in said
    assert "\n" not in said


def test_a_table_compares_neurons_and_twin(place: Path) -> None:
    said = (place / "said.txt").read_text(encoding="utf-8")
    for heading in (
        *("neurons", "deterministic twin", "NLL per token", "perplexity", "bits per character"),
        *("accuracy", "ECE", "CVaR", "mutual information", "flip rate", "active units"),
        *("parameters", "training (s)", "95 characters: the last 5 % of cats"),
    ):
        assert heading in said, heading


def test_a_run_is_scored_again(place: Path) -> None:
    again = run("evaluate", place / "run")
    assert again.exit_code == 0, again.output
    before = (place / "said.txt").read_text(encoding="utf-8")
    assert [line for line in before.splitlines() if "NLL per token" in line] == [
        line for line in again.stdout.splitlines() if "NLL per token" in line
    ]


def test_text_and_page_are_written(place: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write = ["generate", place / "run", "--prompt", "the ", "--tokens", 12, "--seed", 5]
    done = run(*write, "--html", page, "--by", "entropy", "--temperature", 0.5, "--top-k", 3)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("the ")
    assert len(done.stdout) == 4 + 12 + 1
    made = page.read_text(encoding="utf-8")
    assert made.count('tabindex="-1"') == 16
    assert "Written by a model of cats" in made
    assert "Colour: entropy" in made
    assert run(*write).stdout == run(*write).stdout
    refused(run(*write, "--html", page), "exists, nothing was changed")
    assert page.read_text(encoding="utf-8") == made


def test_a_text_is_read(place: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("the log sat on the cat", encoding="utf-8")
    read = ["generate", place / "run", "--text", tmp_path / "mine.txt"]
    assert "22 tokens; mean per token, in nats: NLL" in run(*read).stdout
    assert run(*read, "--html", tmp_path / "page.html", "--by", "kl").exit_code == 0
    made = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Read by a model of cats" in made
    assert "Underlined" not in made


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "--prompt: expected a text to continue, got none"),
        (["--prompt", ""], "prompt: expected at least one character, got none"),
        (["--prompt", "thé"], "'é' (U+00E9) at character 2"),
        (["--prompt", "a", "--temperature", "0"], "temperature: expected a number above 0, got 0"),
        (["--prompt", "a", "--by", "surprise"], "--by: expected one of ('mutual_information'"),
        (["--prompt", "a", "--text", "cats.txt"], "--prompt: expected none beside --text, got 'a'"),
        (["--text", "missing.txt"], "no file at that path"),
        (["--text", 300 * "a"], "no file at that path"),  # longer than a name may be
        (["--text", "latin1.txt"], "byte 0xe9 at offset 3"),
        (["--text", "empty.txt"], "expected some text, got an empty one"),
    ],
)
def test_bad_input_of_generate_is_refused(
    arguments: list[str], text: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    (place / "latin1.txt").write_bytes("café".encode("latin1"))
    (place / "empty.txt").write_text("")
    refused(run("generate", "run", *arguments, "--html", "page.html"), text)
    assert not (place / "page.html").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--text", "missing.txt"], "'pydoc', 'tinyshakespeare' or the path of a file"),
        (["--text", 300 * "a"], "no file at that path"),  # longer than a name may be
        (["--text", "latin1.txt"], "byte 0xe9 at offset 3"),
        (["--text", "cats.txt", "--tokenizer", "word"], "'word'"),
        (["--text", "cats.txt", "--references", "twins"], "each once, got 'twins'"),
        (["--text", "cats.txt", "--share", "0"], "train_share"),
        (["--text", "cats.txt", "--share", "1.5"], "train_share"),
        (["--text", "cats.txt", "--block", "96"], "a longer text, or a smaller --block"),
        (["--text", "cats.txt", "--width", "10"], "num_heads"),
        (["--resume"], "the folder of the run"),
    ],
)
def test_bad_input_of_fit_is_refused_before_anything_is_written(
    arguments: list[str], text: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    (place / "latin1.txt").write_bytes("café".encode("latin1"))
    out = [] if arguments == ["--resume"] else ["--out", "other"]
    refused(run("fit", "language", *arguments, *out), text)
    assert not (place / "other").exists()


def test_other_folders_are_refused(place: Path, tmp_path: Path) -> None:
    refused(run("generate", tmp_path, "--prompt", "a"), "without config.json")
    small = ["--out", place / "run", "--resume"]
    refused(run("fit", "language", *small), "got one that is complete")
    refused(run("fit", "language", *small, "--share", 0.1), "--share")
    refused(run("predict", place / "run", "--input", "a", "--output", tmp_path / "b"), "language")
    assert run("generate", place / "run", "--prompt", "a", "--top-k", 0).exit_code == 2
    for command in (["fit", "language"], ["generate"]):
        assert "Usage" in run(*command, "--help").output
