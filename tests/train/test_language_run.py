"""Whole runs on text with small budgets: problems, folders, scores, writing and reading."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyro.poutine
import pytest
import torch
from pyro_vdn.guides import NeuronGuide

from pyro_vdn.datasets import CharTokenizer
from pyro_vdn.errors import InputError, RunFolderError
from pyro_vdn.infer import PACmELBO
from pyro_vdn.poutine import record
from pyro_vdn.train import Anneal
from pyro_vdn.train.freeze import Freeze
from pyro_vdn.train.language_problem import load_language
from pyro_vdn.train.language_recipe import LanguageRecipe
from pyro_vdn.train.language_task import TASK
from pyro_vdn.train.predict_file import predict_file
from pyro_vdn.train.prior_matching import MatchPriors
from pyro_vdn.train.problem import Source
from pyro_vdn.train.run import complete_run, rescore_run, resume_run, start_run
from pyro_vdn.train.run_folder import load_model, load_models, read_config
from pyro_vdn.train.text_from_run import generate_text, read_text

TEXT = "the cat sat on the mat, the dog sat on the log. " * 40
SIZES: dict[str, Any] = {"block_size": 8, "num_layers": 2, "num_heads": 2, "width": 8}
BUDGET: dict[str, Any] = {"max_steps": 8, "evaluate_every": 4, "warmup_steps": 1, "num_samples": 3}
STEADY: dict[str, Any] = {"scale": "unit", "initial_scale": 0.05, "learn_scales": True}
STEADY |= {"noise_end": None, "shared": False, "kl": 1e-5}
SMALL = replace(LanguageRecipe(neuron_layers=(1,), num_particles=4), **STEADY, **SIZES, **BUDGET)
RISING = replace(LanguageRecipe.few_data(0.5), **SIZES, **BUDGET)
ALL: dict[str, Any] = {"references": ("twin", "dropout", "ensemble"), "ensemble_size": 2}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "cats.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs") / "cats"
    complete_run(*start_run(Source(str(text)), replace(RISING, **ALL), 3, place), place)
    return place


def test_a_run_folder_holds_everything(folder: Path) -> None:
    assert {item.name for item in folder.iterdir()} == {
        *("config.json", "metrics.json", "model.safetensors", "twin.safetensors", "training"),
        *("dropout.safetensors", "ensemble-1.safetensors", "ensemble-2.safetensors"),
        *("reliability.png", "usage.png", "units.png"),
    }
    config = json.loads((folder / "config.json").read_text())
    assert config["tokenizer"] == CharTokenizer.of(TEXT).to_dict()
    models = json.loads((folder / "metrics.json").read_text())["models"]
    neurons, twin = models["neurons"], models["twin"]
    assert twin["parameters"] < neurons["parameters"] < 1.15 * twin["parameters"]
    assert neurons["active_share"] > 0.5
    assert neurons["layers"].keys() == {"blocks.0.neurons", "blocks.1.neurons"}
    usage = neurons["layers"]["blocks.0.neurons"]
    assert usage["information"] > 0
    assert 0 < usage["kl_per_unit"] < 3  # to a prior that is matched to the units
    assert twin["kl_per_unit"] is None
    assert twin["mutual_information"] == twin["flip_rate"] == 0
    assert models.keys() == {"neurons", "twin", "dropout", "ensemble"}
    for scores in models.values():
        assert scores["perplexity"] == pytest.approx(math.exp(scores["nll"]))
        assert scores["bits_per_character"] == pytest.approx(scores["nll"] / math.log(2))
        assert scores["tokens"] == len(TEXT) - math.floor(0.95 * len(TEXT)) - 1


def test_scoring_again_gives_the_same_figures(folder: Path) -> None:
    before = json.loads((folder / "metrics.json").read_text())["models"]
    report = rescore_run(folder)
    for name, scores in report.models.items():
        for key in set(scores) - {"seconds", "layers", "members"}:
            assert scores[key] == pytest.approx(before[name][key]), (name, key)
    assert report.task == "language"


def test_references_are_uncertain_in_their_own_ways(folder: Path) -> None:
    models = json.loads((folder / "metrics.json").read_text())["models"]
    for method in ("dropout", "ensemble"):
        assert models[method]["mutual_information"] > 1e-6
        assert models[method]["kl_per_unit"] is models[method]["active_share"] is None
    assert models["dropout"]["parameters"] == models["twin"]["parameters"]
    assert models["ensemble"]["parameters"] == 2 * models["twin"]["parameters"]
    assert [member["steps"] for member in models["ensemble"]["members"]] == [8, 8]


def test_errors_are_over_blocks(folder: Path) -> None:
    config = read_config(folder)
    problem = TASK.load_again(config, config.recipe)
    scored = TASK.score(load_models(folder, config)["ensemble"], problem)
    table, errors = scored.evaluation.table, scored.standard_errors
    blocks = torch.tensor([x.shape[1] for x, _ in problem.test_batches() for _ in x])
    assert table["sequence"].bincount().equal(blocks)
    residuals = table["nll"].double() - scored.metrics.summary.nll
    sums = torch.stack([part.sum() for part in residuals.split(blocks.tolist())])
    count, tokens = len(blocks), int(blocks.sum())
    expected = (sums.square().sum() * count / (count - 1)).sqrt() / tokens
    assert errors["nll"] == pytest.approx(float(expected))
    assert errors["bits_per_character"] == pytest.approx(errors["nll"] / math.log(2))
    assert errors.keys() == {"nll", "bits_per_character", "accuracy", "brier"}
    assert not any(math.isnan(error) for error in errors.values())


def test_a_loaded_dropout_has_the_probability_of_its_best_step(folder: Path) -> None:
    best = json.loads((folder / "metrics.json").read_text())["models"]["dropout"]["best_step"]
    ((model, guide),) = load_models(folder)["dropout"]
    trace = pyro.poutine.trace(guide).get_trace(torch.zeros(1, 8, dtype=torch.long))
    assert trace.nodes["blocks.0.neurons.z"]["fn"].p == RISING.dropping(best - 1)
    assert RISING.dropping(8) == pytest.approx(0.45)
    assert RISING.dropping(3) == 0.0
    assert SMALL.dropping(0) == SMALL.dropping(8) == 0.04
    assert model is not None


def test_a_loaded_model_has_the_noise_of_its_best_step(folder: Path) -> None:
    best = json.loads((folder / "metrics.json").read_text())["models"]["neurons"]["best_step"]
    config = read_config(folder)
    tokens = torch.zeros(1, 8, dtype=torch.long)

    def scale(step: int | None) -> float:
        model = TASK.build(config, "neurons", step)
        pyro.poutine.unwrap(model).load_state_dict(state)
        return scale_of(model)

    def scale_of(model: Any) -> float:
        with record() as seen, torch.no_grad():
            NeuronGuide(model)(tokens)
        return float(seen["blocks.0.neurons"].scale.mean.mean())

    model, _ = load_model(folder)
    state = pyro.poutine.unwrap(model).state_dict()
    assert scale_of(model) == pytest.approx(scale(best), rel=1e-3)
    assert scale(1) < 0.1 * scale(None)
    assert RISING.noise(best - 1) < RISING.noise(8) == 0.9


def test_scales_stay_and_all_else_is_trained(folder: Path) -> None:
    started, (model, _) = TASK.build(read_config(folder), "neurons", None), load_model(folder)
    before, after = (pyro.poutine.unwrap(one).state_dict() for one in (started, model))
    same = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert same == {f"blocks.{block}.neurons.posterior.raw_scale.value" for block in (0, 1)}


def test_noise_rises_after_a_share_of_the_run() -> None:
    recipe = LanguageRecipe(max_steps=100, noise_end=0.8, noise_begin=0.5)
    assert [recipe.noise(step) for step in (0, 50, 75, 100)] == pytest.approx(
        [1e-3, 1e-3, 0.4, 0.8]
    )
    assert LanguageRecipe(noise_end=None).build_model(5).noise is None


def test_recipes_are_noise_in_proportion_to_the_location_without_a_kl() -> None:
    full, few = LanguageRecipe(), LanguageRecipe.few_data(0.1)
    assert (full.noise_end, few.noise_end, few.share) == (0.2, 0.9, 0.1)
    assert replace(few, noise_end=0.2, share=1.0, dropout=0.04) == full
    program, noise, *_ = replace(few, **SIZES).build_model(5)
    assert noise is not None
    assert noise.amount == 0.9
    tokens = torch.zeros(2, 8, dtype=torch.long)
    trace = pyro.poutine.trace(NeuronGuide(program)).get_trace(tokens)
    z, posterior = (trace.nodes["blocks.0.neurons.z"][key] for key in ("value", "fn"))
    noise_of = ((z - posterior.mean) / posterior.stddev).abs()
    assert torch.allclose(noise_of, noise_of[:, :1].expand_as(noise_of), rtol=1e-2)
    expected = 0.9 * (1e-3 + (1 - 1e-3) * posterior.mean.abs())
    assert torch.allclose(posterior.stddev, expected, rtol=1e-3)
    loss: Any = PACmELBO(1).differentiable_loss(program, NeuronGuide(program), tokens, tokens)
    loss.backward()
    layer = pyro.poutine.unwrap(program).blocks[0].neurons
    assert layer.prior.loc.grad is None  # no KL
    assert layer.posterior.loc[0].weight.grad.any()


def test_plans_fit_models(text: Path) -> None:
    rising, twin = (
        TASK.plan(load_language(Source(str(text)), RISING), 0, t) for t in ("neurons", "points")
    )
    assert [type(callback) for callback in rising.callbacks] == [Anneal, Freeze, MatchPriors]
    assert twin.callbacks == ()
    dropped = TASK.plan(load_language(Source(str(text)), RISING), 0, "dropout")
    assert [type(callback) for callback in dropped.callbacks] == [Anneal]
    assert dropped.options.validation_samples == 8
    assert (rising.options.validation_samples, twin.options.validation_samples) == (8, 1)
    assert rising.options.decay == "matrices"
    steady = TASK.plan(load_language(Source(str(text)), SMALL), 0, "neurons")
    assert steady.callbacks == ()
    for changes, kinds in (
        ({"prior": "conditional"}, [Anneal, Freeze]),
        ({"learn_scales": True}, [Anneal, MatchPriors]),
        ({"neuron_layers": ()}, [Anneal]),
    ):
        changed = load_language(Source(str(text)), replace(RISING, **changes))
        other = TASK.plan(changed, 0, "neurons")
        assert [type(callback) for callback in other.callbacks] == kinds
    assert steady.loss.num_particles == 4
    states = [pyro.poutine.unwrap(plan.model).state_dict() for plan in (rising, twin, dropped)]
    for state in states[1:]:
        assert all(torch.equal(states[0][name], value) for name, value in state.items())


def test_parts_of_a_text_do_not_overlap(text: Path) -> None:
    problem = load_language(Source(str(text)), replace(SMALL, validation_blocks=3))
    tokens = CharTokenizer.of(TEXT).encode(TEXT)
    end, begin = math.floor(0.9 * len(TEXT)), math.floor(0.95 * len(TEXT))
    assert torch.equal(problem.train[0][0], tokens[:8])
    assert torch.equal(problem.train[1][-1], tokens[end - 8 : end])
    assert problem.validation[0].shape == (3, 8)
    assert torch.equal(problem.validation[0][0], tokens[end : end + 8])
    targets = torch.cat([y.reshape(-1) for _, y in problem.test_batches()])
    assert torch.equal(targets, tokens[begin + 1 :])
    half = load_language(Source(str(text)), replace(SMALL, share=0.5, test_every=3))
    assert torch.equal(half.train[1][-1], tokens[end // 2 - 8 : end // 2])
    assert torch.equal(half.test, problem.test)
    some = torch.cat([y for _, y in half.test_batches()])
    assert torch.equal(some[1], tokens[begin + 25 : begin + 33])
    assert half.tested_on == f"{some.numel()} characters: every 3th block of the last 5 % of cats"
    assert problem.tested_on == f"{len(targets)} characters: the last 5 % of cats"


def test_bits_are_per_character_whatever_the_tokens(text: Path) -> None:
    path = text.parent / "umlauts.txt"
    path.write_text("äöü " * 300, encoding="utf-8")
    problem = load_language(Source(str(path)), replace(SMALL, tokenizer="byte"))
    assert problem.characters_per_token == pytest.approx(4 / 7)
    assert problem.tested_on.endswith("bytes: the last 5 % of umlauts")


def test_text_is_written_and_read(folder: Path) -> None:
    written = generate_text(folder, "the cat", 9, seed=1, num_samples=2)
    assert written.text.startswith("the cat")
    assert len(written.pieces) == len(written.reading.tokens) == 16
    assert written.num_given == 7
    assert generate_text(folder, "the cat", 9, seed=1, num_samples=2).text == written.text
    read = read_text(folder, written.text, num_samples=2)
    assert read.num_given == 16
    assert read.text == written.text
    assert bool((read.reading.kl[1:] > 0).all())


def test_text_that_cannot_be_read_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="prompt: expected at least one character, got none"):
        generate_text(folder, "", 3)
    with pytest.raises(InputError, match="'é'"):
        generate_text(folder, "thé", 3)
    with pytest.raises(InputError, match="text: expected at most 20,000 tokens, got 20,001"):
        read_text(folder, "a" * 20_001)
    with pytest.raises(RunFolderError, match=r"without config\.json"):
        read_text(tmp_path, "a")
    with pytest.raises(InputError, match="a run of forecasting or regression, got one of language"):
        predict_file(folder, tmp_path / "a.csv", tmp_path / "b.csv")


def test_texts_that_do_not_fit_are_refused(text: Path, tmp_path: Path) -> None:
    short = text.parent / "short.txt"
    short.write_text("ab" * 40)
    with pytest.raises(InputError, match=r"validation part of short: expected at least 9 tokens"):
        start_run(Source(str(short)), SMALL, 0, tmp_path / "run")
    with pytest.raises(InputError, match="train_share"):
        start_run(Source(str(text)), replace(SMALL, share=0.0), 0, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_changed_text_is_noticed(folder: Path, text: Path) -> None:
    try:
        text.write_text(TEXT.replace("dog", "tac", 1))
        with pytest.raises(InputError, match="the text that the run was trained on, got another"):
            rescore_run(folder)
    finally:
        text.write_text(TEXT)
    with pytest.raises(RunFolderError, match="got one that is complete"):
        resume_run(folder)


def test_recipes_come_back_from_json() -> None:
    for recipe in (SMALL, RISING, LanguageRecipe().demo(), LanguageRecipe.few_data().demo()):
        back = LanguageRecipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
        assert back == recipe
    assert back.neuron_layers is None
    assert SMALL.neuron_layers == (1,)
