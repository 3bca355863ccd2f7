"""The results of the chain benchmarks that are kept: do they reach what they should?"""

from __future__ import annotations

import json
import math
from importlib.resources import files
from typing import Any

import pytest

from pyro_vdn.bench import evidence, nuts
from pyro_vdn.bench.chain_tables import covered, evidence_table, nuts_table, within
from pyro_vdn.bench.results import collect, methods
from pyro_vdn.bench.small_chains import COUNTS, STUDENT_T


def results_of(name: str) -> dict[str, Any]:
    text = files("pyro_vdn.bench").joinpath("reference", f"{name}.json").read_text(encoding="utf-8")
    results: dict[str, Any] = json.loads(text)
    return results


def runs_by(method: str) -> list[dict[str, Any]]:
    return [run for run in results_of("evidence")["runs"] if run["method"] == method]


def least(count: int, share: float) -> float:
    """Return how low a count of this chance may be: three standard deviations below its mean."""
    return count * share - 3 * math.sqrt(count * share * (1 - share))


def test_all_sets_are_there() -> None:
    runs = results_of("evidence")["runs"]
    names = [*(one.name for one in evidence.SETTINGS), *evidence.GUIDES, evidence.EXACT]
    assert methods(runs) == names
    for name in names:
        seeds = [run["seed"] for run in runs if run["method"] == name]
        assert seeds == list(range(20))


@pytest.mark.parametrize("setting", evidence.SETTINGS, ids=lambda setting: setting.name)
def test_bound_and_moments_reach_the_exact_ones(setting: evidence.Setting) -> None:
    runs = runs_by(setting.name)
    assert min(collect(runs, setting.name, "gap")) > 0
    assert max(collect(runs, setting.name, "gap")) < 1e-3
    for metric in ("mean_error", "variance_error"):
        assert max(collect(runs, setting.name, metric)) < 0.01


@pytest.mark.parametrize("setting", evidence.SETTINGS, ids=lambda setting: setting.name)
@pytest.mark.parametrize("name", ["phi", "scale", "noise"])
def test_parameters_are_within_two_standard_errors(setting: evidence.Setting, name: str) -> None:
    runs = runs_by(setting.name)
    if name == "noise" and not setting.learn_noise:
        assert all(name not in run["parameters"] for run in runs)
        return
    hits = within(runs, name, results_of("evidence")["truth"][name])
    assert sum(hits) >= least(len(hits), 0.954)


@pytest.mark.parametrize("method", evidence.GUIDES)
@pytest.mark.parametrize("name", ["phi", "scale"])
def test_intervals_cover_as_exact_ones_do(method: str, name: str) -> None:
    truth = results_of("evidence")["truth"][name]
    fitted = covered(runs_by(method), name, truth)
    exact = covered(runs_by(evidence.EXACT), name, truth)
    assert sum(fitted) >= sum(exact) - 0.1 * len(exact)


def test_fitted_hyperparameters_stay_below_the_evidence() -> None:
    normal, joint = (collect(runs_by(name), name, "gap") for name in evidence.GUIDES)
    assert min(*normal, *joint) > 0
    assert max(joint) < max(normal) < 2


@pytest.mark.parametrize("kind", [STUDENT_T, COUNTS])
def test_smoothing_agrees_with_nuts(kind: str) -> None:
    runs = {run["method"]: run for run in results_of("nuts")["runs"] if run["kind"] == kind}
    sampled = runs[nuts.METHOD]
    assert sampled["r_hat"] < 1.02
    assert sampled["effective_draws"] > 250
    assert sampled["from_exact"]["mean"] < 0.05
    for name in nuts.LOOKING_AHEAD:
        off = runs[f"{name}, {nuts.HERE}"]["from_nuts"]
        assert off["mean"] < 0.1
        assert off["wasserstein"] < 0.12
        assert 0.95 < off["ratio"] < 1.05
    order = [runs[f"{name}, {nuts.UNSEEN}"]["from_nuts"]["wasserstein"] for name in nuts.POSTERIORS]
    assert order == sorted(order, reverse=True)


def test_tables_hold_every_run() -> None:
    table = nuts_table(results_of("nuts")).splitlines()
    assert len(table) == 2 + len(results_of("nuts")["runs"])
    assert all(one.name in evidence_table(results_of("evidence")) for one in evidence.SETTINGS)
