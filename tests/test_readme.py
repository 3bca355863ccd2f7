"""The README's code runs, and its commands exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from pyro_vdn.cli.app import make_app

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> set[tuple[str, ...]]:
    """Return the words of every command of ours, up to its first argument or option."""
    inline = re.findall(r"`(pyro-vdn [^`]*)`", README)
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in (*inline, *lines)]
    return {tuple(names(line[1:])) for line in words if line[:1] == ["pyro-vdn"]}


def names(words: list[str]) -> Iterator[str]:
    for word in words:
        if not re.fullmatch(r"[a-z]+", word):
            return
        yield word


@pytest.fixture
def _single_precision() -> Iterator[None]:
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(dtype)


@pytest.mark.usefixtures("_single_precision")
def test_python_blocks_run_in_order_and_the_losses_fall() -> None:
    namespace: dict[str, Any] = {"__name__": "readme"}
    for number, block in enumerate(blocks("python")):
        exec(compile(block, f"README.md, Python block {number}", "exec"), namespace)
    losses = namespace["losses"]
    assert len(losses) > 100
    assert sum(losses[-50:]) < 0.5 * sum(losses[:50])
    target = namespace["split"].test.target
    error = (namespace["prediction"].mean - target).square().mean()
    assert error < 0.2 * target.square().mean()


def test_there_are_commands() -> None:
    assert {("fit", "forecasting"), ("fit", "regression"), ("bench", "speed")} <= commands()


@pytest.mark.parametrize("command", sorted(commands()), ids=" ".join)
def test_commands_exist(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(make_app(), [*command, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage" in result.output


def test_options_exist() -> None:
    """Every option that a shown command uses is in its help."""
    for block in blocks("bash"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] != ["pyro-vdn"]:
                continue
            result = CliRunner().invoke(make_app(), [*names(words[1:]), "--help"])
            for option in (word for word in words if word.startswith("--")):
                assert option in result.output, line


def test_make_targets_exist() -> None:
    makefile = (Path(__file__).parents[1] / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", "\n".join(blocks("bash")), flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_links_and_folders_exist() -> None:
    root = Path(__file__).parents[1]
    linked = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    folders = re.findall(r"^\| `([\w/]+)`", README, flags=re.MULTILINE)
    assert all((root / path).exists() for path in linked)
    known = [path for path in folders if "/" in path or path in ("guides", "models", "notebooks")]
    assert all((root / path).is_dir() for path in known)
