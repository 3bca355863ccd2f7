"""Training of the language benchmark's methods, on a text of a few tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_vdn.bench import language_training
from pyro_vdn.bench.language_methods import SETTINGS, LanguageMethod
from pyro_vdn.bench.language_training import make_optimizer, rate, train, trained

SMALL = {"block_size": 8, "num_layers": 1, "num_heads": 2, "width": 16}
NEURONS = SETTINGS["tenth"].methods["neurons"]
METHOD = replace(NEURONS, model=NEURONS.model | SMALL)
TEXT = torch.arange(200) * 7 % 11 % 5


def states(method: LanguageMethod = METHOD, seed: int = 0, steps: int = 3) -> dict[str, Any]:
    return train(method, TEXT, 5, seed, steps=steps).model.state_dict()


def same(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    return {name for name, value in one.items() if torch.equal(value, other[name])}


def test_rate_warms_up_and_falls_to_a_tenth() -> None:
    assert [rate(step, 300) for step in (0, 49, 99, 100, 200, 300)] == pytest.approx(
        [1e-5, 5e-4, 1e-3, 1e-3, 5.5e-4, 1e-4]
    )


def test_matrices_alone_decay() -> None:
    model = METHOD.build(5)
    decayed, others = make_optimizer(list(model.parameters())).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert {value.dim() for value in decayed["params"]} == {2}
    assert {value.dim() for value in others["params"]} == {1}


def test_a_seed_says_everything() -> None:
    first = states()
    assert same(first, states()) == set(first)
    assert "embed.weight" not in same(first, states(seed=1))


def test_priors_are_matched_and_scales_stay() -> None:
    path = "blocks.0.neurons"
    started, ended = METHOD.build(5).state_dict(), states()
    assert same(started, ended) == {f"{path}.posterior.raw_scale.value"} | {
        name for name in started if name.startswith("norm") and "bias" in name
    }
    assert (ended[f"{path}.prior.loc"] != 0).all()
    learned = states(replace(METHOD, learn_scales=True))
    assert f"{path}.posterior.raw_scale.value" not in same(started, learned)


def test_what_was_trained_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (METHOD, "full-neurons", TEXT, 5, 3, tmp_path / "models")
    first = trained(*arguments, steps=2)
    kept = {item.name for item in (tmp_path / "models").iterdir()}
    assert kept == {"full-neurons-3.safetensors", "full-neurons-3.json"}

    def refuse(*rest: Any, **more: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(language_training, "train", refuse)
    again = trained(*arguments, steps=2)
    assert same(first.model.state_dict(), again.model.state_dict()) == set(first.model.state_dict())
    assert again[1:] == first[1:]
    assert not again.model.training
    with pytest.raises(AssertionError, match="trained again"):
        trained(METHOD, "full-neurons", TEXT, 5, 4, tmp_path / "models")
