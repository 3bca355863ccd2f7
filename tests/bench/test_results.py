"""Means, errors and tables of benchmark runs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from pyro_vdn.bench.readme import FILES, fill, load_results, table
from pyro_vdn.bench.results import (
    Estimate,
    collect,
    environment,
    markdown_table,
    methods,
    paired_difference,
)

RUNS = [
    {"method": "a", "metrics": {"nll": 1.0, "parameters": 1200}},
    {"method": "b", "metrics": {"nll": 4.0, "kl": None}},
    {"method": "a", "metrics": {"nll": 2.0, "parameters": 1200}},
    {"method": "b", "metrics": {"nll": 6.0, "kl": None}},
]
README = Path(__file__).parents[2] / "README.md"


def test_estimate() -> None:
    estimate = Estimate.of([1.0, 2.0, 6.0])
    assert estimate.mean == 3.0
    assert estimate.standard_error == pytest.approx(math.sqrt(7.0 / 3.0))


def test_estimate_of_one_run_has_no_error() -> None:
    assert str(Estimate.of([0.5])) == "0.5000"


def test_methods_and_collect() -> None:
    assert methods(RUNS) == ["a", "b"]
    assert collect(RUNS, "b", "nll") == [4.0, 6.0]
    assert collect(RUNS, "b", "kl") == []


def test_paired_difference() -> None:
    difference = paired_difference(RUNS, "a", "b", "nll")
    assert (difference.mean, difference.standard_error) == (-3.5, 0.5)


def test_markdown_table() -> None:
    lines = markdown_table(RUNS, {"nll": "NLL", "parameters": "parameters"}).splitlines()
    assert lines[2:] == ["| a | 1.5000 ± 0.5000 | 1,200 |", "| b | 5.0000 ± 1.0000 | - |"]


def test_environment_says_what_ran() -> None:
    assert {"pyro_vdn", "torch", "python", "threads"} <= set(environment())


@pytest.mark.parametrize("name", FILES)
def test_readme_quotes_the_results(name: str) -> None:
    assert load_results(name)
    assert table(name) in README.read_text(encoding="utf-8")


def test_filling_the_readme_again_changes_nothing() -> None:
    text = README.read_text(encoding="utf-8")
    assert fill(text) == text
