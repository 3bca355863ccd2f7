"""The study of what the scores of neurons are worth, on a text of two hundred tokens."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from pyro_vdn.bench import language_reading, language_signal, language_training
from pyro_vdn.bench.language_methods import SETTINGS, TWIN
from pyro_vdn.bench.language_reading import Draw, drawing, ensemble, read, scaled_nll
from pyro_vdn.bench.language_signal import CORRUPTIONS, corrupted, signal
from pyro_vdn.bench.language_training import train
from pyro_vdn.datasets import TextSplits, text_splits
from pyro_vdn.datasets.text import Text

WORDS = "the cat sat on the mat, a dog sat on the log; "
INTERNAL = {"KL", "mutual information", "flip rate", "scale"}


@pytest.fixture(scope="module")
def parts() -> TextSplits:
    return text_splits(Text("words", WORDS * 40))


@pytest.fixture(scope="module")
def study(parts: TextSplits) -> Any:
    """The study of neurons that were trained a little, and of dropout and twins that were not."""
    sizes = {"block_size": 8, "num_layers": 2, "num_heads": 2, "width": 8}
    torch.manual_seed(0)

    def draw(method: Any, num_samples: int) -> Draw:
        model = replace(method, model=method.model | sizes).build(parts.tokenizer.vocab_size)
        with torch.no_grad():
            for value in model.parameters():
                value.add_(0.1 * torch.randn_like(value))
        return drawing(method, model, num_samples)

    neurons, dropout = (SETTINGS["tenth"].methods[name] for name in ("neurons", "dropout"))
    neurons = replace(neurons, model=neurons.model | sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(language_training, "_WARMUP", 1)
        patch.setattr(language_training, "_RATE", 2e-2)
        trained = train(neurons, parts.train, parts.tokenizer.vocab_size, 0, steps=40).model
    draws = {"neurons": drawing(neurons, trained, 4), "dropout": draw(dropout, 4)}
    draws["ensemble"] = ensemble([draw(TWIN, 1) for _ in range(2)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(language_reading, "BLOCK", 8)
        patch.setattr(language_signal, "_RESAMPLES", 5)
        halves = [
            {name: read(one, part) for name, one in draws.items()}
            for part in (parts.validation, parts.test)
        ]
        return signal(draws, parts, *halves), halves


def test_results_are_complete_and_ready_for_json(study: Any) -> None:
    found, _ = study
    assert set(found) == {"aurc", "added", "shift", "dose", "groups", "recalibration"}
    json.dumps(found)
    scores = {row["score"] for row in found["aurc"]}
    assert INTERNAL | {"KL of layer 0", "KL of layer 1", "ensemble disagreement"} <= scores
    assert len(found["aurc"]) == len(CORRUPTIONS) * 2 * len(scores)
    assert len(found["added"]) == len(CORRUPTIONS) * 2 * 3
    assert {row["method"] for row in found["shift"]} == {"neurons", "dropout", "ensemble"}
    assert set(found["groups"]) == {"target", "context", "stretch"}
    assert set(found["groups"]["stretch"]) == set("01234")


def test_areas_are_beside_that_of_entropy(study: Any) -> None:
    rows = study[0]["aurc"]
    for row in rows:
        (base,) = (
            one
            for one in rows
            if one["score"] == "entropy"
            and (one["corruption"], one["risk"]) == (row["corruption"], row["risk"])
        )
        away = row["aurc"][0] - base["aurc"][0]
        assert row["difference"][0] == pytest.approx(away, abs=1e-9)
        if row is base:
            assert row["difference"] == [0.0, 0.0, 0.0]
    assert any(row["difference"][0] != 0 for row in rows)


def test_corruption_changes_what_is_said_and_not_what_came(study: Any, parts: TextSplits) -> None:
    found, (_, reported_on) = study
    by_dose = {r["corruption"]: r["nll"] for r in found["shift"] if r["method"] == "neurons"}
    assert by_dose[0.0] == pytest.approx(float(reported_on["neurons"].table["nll"].mean()))
    assert list(by_dose.values()) == sorted(set(by_dose.values()))  # it rises with the dose
    assert by_dose[0.30] > by_dose[0.0] + 0.1
    assert {row["tokens"] for row in found["shift"]} == {len(parts.test) - 1}
    assert corrupted(parts, parts.test, 0.0) is None
    noisy = corrupted(parts, parts.test, 0.15)
    assert noisy is not None
    assert int((noisy != parts.test).sum()) == round(0.15 * len(parts.test))


def test_recalibration_is_of_the_shifted_half(study: Any) -> None:
    found, (chosen_on, _) = study
    row = found["recalibration"]
    by_dose = {r["corruption"]: r["nll"] for r in found["shift"] if r["method"] == "neurons"}
    assert row["nll"] == pytest.approx(by_dose[row["corruption"]])
    assert row["clean_temperature"] != row["shifted_temperature"]
    clean = chosen_on["neurons"]
    assert scaled_nll(clean, row["clean_temperature"]) <= scaled_nll(clean, 1.0)
    assert row["nll_at_clean_temperature"] != row["nll"]


def test_features_are_larger_where_less_is_known(study: Any) -> None:
    reported_on = study[1][1]
    features = language_signal._features(reported_on)
    table = reported_on["neurons"].table
    assert torch.equal(features["1 - maximum probability"], 1 - table["max_probability"])
    assert torch.equal(features["KL of layer 1"], table["kl.blocks.1.neurons"])
    both = torch.stack([features["entropy"], features["1 - maximum probability"]])
    assert torch.corrcoef(both)[0, 1] > 0.5
    of = {"dropout disagreement": "dropout", "ensemble disagreement": "ensemble"}
    for name, method in of.items():
        assert torch.equal(features[name], reported_on[method].table["mutual_information"])
    sums = features["KL of layer 0"] + features["KL of layer 1"]
    torch.testing.assert_close(features["KL"], sums)
