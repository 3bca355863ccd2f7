"""The memory benchmark: what goes missing, what its network reads, what is scored."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from importlib.resources import files
from itertools import product
from pathlib import Path

import pytest
import torch
from torch.distributions import MultivariateNormal
from typer.testing import CliRunner

from pyro_vdn.bench import memory_training
from pyro_vdn.bench.app import app
from pyro_vdn.bench.memory import REGIMES, bench_memory
from pyro_vdn.bench.memory_data import (
    COMPLETE,
    DROPPED,
    EITHER,
    GAP,
    SETTINGS,
    Setting,
    missing_windows,
    with_missing,
)
from pyro_vdn.bench.memory_methods import METHODS, ON, RECIPES, MemoryRecipe, build
from pyro_vdn.bench.memory_model import step_features
from pyro_vdn.bench.memory_tables import memory_table
from pyro_vdn.bench.memory_training import score, train_method
from pyro_vdn.datasets import Sequences
from pyro_vdn.errors import InputError

SMALL = Setting("co2", "co2", window=3, horizon=4, steps=12, context=4, strides=(1, 1))
RECIPE = MemoryRecipe(hidden=8, recurrent_hidden=5, num_units=5)
BY_NAME = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


def generator():
    return torch.Generator().manual_seed(1)


def sequences(rows=6):
    return Sequences(torch.randn(rows, 12, 3), torch.randn(rows, 12, 4))


def predicted(program, x):
    return memory_training._predicted(program, x.float())


@pytest.mark.parametrize(("kind", "low", "high"), [(DROPPED, 0.27, 0.33), (GAP, 0.25, 0.35)])
def test_about_as_many_are_missing_either_way(kind, low, high):
    dropped = missing_windows(kind, 500, 28, 7, generator())
    assert not dropped[:, :7].any()
    assert low < dropped[:, 7:].double().mean() < high


def test_a_gap_is_in_one_piece_and_anywhere():
    dropped = missing_windows(GAP, 300, 28, 7, generator())
    begins = dropped & ~dropped.roll(1, 1)
    assert (begins.sum(1) == 1).all()
    lengths, starts = dropped.sum(1), begins.double().argmax(1)
    assert (int(lengths.min()), int(lengths.max())) == (4, 8)
    assert (int(starts.min()), int((starts + lengths).max())) == (7, 28)


def test_either_is_some_of_both():
    pieces = missing_windows(EITHER, 300, 28, 7, generator()).double().diff(dim=1).gt(0).sum(1)
    assert 0.4 < (pieces == 1).double().mean() < 0.65


def test_missing_windows_and_what_is_not_scored_are_nan():
    whole = sequences()
    some = with_missing(whole, DROPPED, 4, generator())
    dropped = missing_windows(DROPPED, 6, 12, 4, generator())
    assert torch.equal(some.x.isnan(), dropped[..., None].expand(6, 12, 3))
    assert torch.equal(some.x[~dropped], whole.x[~dropped])
    assert some.y[:, :4].isnan().all()
    assert torch.equal(some.y[:, 4:], whole.y[:, 4:])


def test_features_of_a_step():
    windows = torch.arange(1.0, 7.0).view(1, 6, 1)
    mask = torch.tensor([[False, True, False, False, True, True]])
    carried, missing, age = step_features(windows, mask)[0].unbind(-1)
    assert carried.tolist() == [0, 2, 2, 2, 5, 6]
    assert missing.tolist() == [1, 0, 1, 1, 0, 0]
    torch.testing.assert_close(age.exp(), torch.tensor([2.0, 1, 2, 3, 1, 1]))


@BY_NAME
def test_no_forecast_reads_what_comes_later(method):
    _, program = build(method, SMALL, RECIPE, 0)
    x = sequences().x
    x[:, 5] = torch.nan
    changed = x.clone()
    changed[:, 8:] += 1.0
    one, other = predicted(program, x), predicted(program, changed)
    assert torch.equal(one.mean[:, :8], other.mean[:, :8])
    assert torch.equal(one.variance[:, :8], other.variance[:, :8])
    assert not torch.allclose(one.mean[:, 8], other.mean[:, 8])


@BY_NAME
def test_who_reads_the_past(method):
    _, program = build(method, SMALL, RECIPE, 0)
    x = sequences().x
    changed = x.clone()
    changed[:, 4] += 1.0
    same = torch.equal(predicted(program, x).mean[:, 6], predicted(program, changed).mean[:, 6])
    assert same is not (method.remembers or method.recurrent)


@BY_NAME
def test_who_reads_the_window_carried_forward(method):
    _, program = build(method, SMALL, RECIPE, 0)
    x = sequences().x
    x[:, 5] = torch.nan
    changed = x.clone()
    changed[:, 4] += 1.0
    same = torch.equal(predicted(program, x).mean[:, 5], predicted(program, changed).mean[:, 5])
    assert same is (method.masked and not method.remembers)


def test_memory_grows_unsure_in_a_gap():
    _, program = build(METHODS[0], SMALL, RECIPE, 0)
    x = sequences().x
    x[:, 6:] = torch.nan
    form = predicted(program, x)
    spread = form.moments.output_variance[:, 5:].mean((0, 2))
    assert (spread.diff() > 0).all()


@BY_NAME
def test_methods_have_about_as_many_parameters(method):
    for setting in SETTINGS:
        recipe = RECIPES[setting.name]
        sizes = [
            sum(value.numel() for value in build(one, setting, recipe, 0)[0].parameters())
            for one in (METHODS[0], method)
        ]
        assert 0.93 < sizes[1] / sizes[0] < 1.07


@BY_NAME
def test_scores_are_those_of_the_normal_prediction(method):
    _, program = build(method, SMALL, RECIPE, 0)
    rows = Sequences(*(values.float() for values in sequences()))
    rows.y[0, 7, 2] = torch.nan
    result = score(program, rows, DROPPED, 4)
    x, y = with_missing(rows, DROPPED, 4, torch.Generator().manual_seed(0))
    form, scored = predicted(program, x), ~y.isnan().any(-1)
    factor = torch.cat([form.moments.factor, form.own_factor.expand(6, 12, 4, -1)], -1)
    covariance = factor @ factor.mT + torch.diag_embed(form.scale.square())
    exact = MultivariateNormal(form.mean[scored], covariance[scored]).log_prob(y[scored])
    assert result["joint_nll"] == pytest.approx(-float(exact.detach().mean()) / 4, rel=1e-5)
    assert (result["neuron_share"] > 0.01) is not method.deterministic
    gone = (x.isnan().any(-1) & scored).sum() / scored.sum()
    for name in ("joint_nll", "crps"):
        parts = gone * result[f"{name}_missing"] + (1 - gone) * result[f"{name}_present"]
        assert result[name] == pytest.approx(float(parts), rel=1e-5)


@pytest.mark.parametrize("method", [METHODS[0], METHODS[-1]], ids=lambda method: method.name)
def test_training_keeps_the_weights_that_validated_best(method):
    parts, recipe = SMALL.load(), replace(RECIPE, max_steps=30, evaluations=3)
    program, facts = train_method(method, SMALL, parts, recipe, EITHER, 0)
    before = score(build(method, SMALL, recipe, 0)[1], parts.validation, EITHER, 4)["joint_nll"]
    after = score(program, parts.validation, EITHER, 4)["joint_nll"]
    assert after == facts["validation_nll"] < before


def test_seasons_of_the_prior():
    recipe = MemoryRecipe(decays=(0.9, 0.9), periods=(8.0, 8.0), num_units=3)
    z = [1.0, 0.0]
    first, second = recipe.prior().coefficients()[0].tolist()
    for _ in range(16):
        z.append(first * z[-1] + second * z[-2])
    assert z[16] == pytest.approx(0.9**16)


@pytest.mark.slow
def test_command(tmp_path: Path) -> None:
    out = tmp_path / "memory.json"
    arguments = ["memory", "--data=co2", "--seeds=2", "--steps=2", f"--out={out}"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    results = json.loads(out.read_text())
    assert len(results["runs"]) == 2 * len(METHODS) * len(REGIMES)
    assert results["recipes"]["co2"]["max_steps"] == 2


def test_table():
    runs = [
        {
            "method": method,
            "data": "co2",
            "regime": COMPLETE,
            "seed": seed,
            "metrics": {"joint_nll": nll + seed, "crps": nll, "parameters": 1234.0},
        }
        for seed in (0, 1)
        for method, nll in ((ON, 1.0), (METHODS[2].name, 1.5 + 0.2 * seed))
    ]
    lines = memory_table({"runs": runs}).splitlines()
    assert lines[2].startswith("| co2 | memory on | 1,234 | **1.500** ± 0.500 |")
    assert lines[3].startswith("| co2 | memory off | 1,234 | 2.100 (+0.600 ± 0.100) |")


def test_unknown_data():
    with pytest.raises(InputError, match=r"data: expected one of .*got 'etth1'. Try: 'etth1-day'"):
        bench_memory(data=["etth1"])


def test_the_published_results_are_those_of_the_recipes():
    folder = files("pyro_vdn.bench").joinpath("reference")
    results = json.loads(folder.joinpath("memory.json").read_text(encoding="utf-8"))
    recipes = {name: asdict(recipe) for name, recipe in RECIPES.items()}
    assert results["recipes"] == json.loads(json.dumps(recipes))
    assert results["settings"] == json.loads(json.dumps([asdict(one) for one in SETTINGS]))
    keys = [
        tuple(run[key] for key in ("seed", "data", "method", "regime")) for run in results["runs"]
    ]
    names = [[one.name for one in part] for part in (SETTINGS, METHODS, REGIMES)]
    assert keys == list(product(range(5), *names))
