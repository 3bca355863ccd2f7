"""The methods of the language benchmark: effects over a run, and what is trained."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pyro_vdn.bench.language_methods import SETTINGS, TWIN, LanguageMethod, ramp
from pyro_vdn.poutine import deterministic, dropout, kl_weight, scale_noise, share_noise
from pyro_vdn.train.language_recipe import LanguageRecipe

FULL, TEN = SETTINGS["full"].methods, SETTINGS["tenth"].methods
ABLATIONS = SETTINGS["tenth"].ablations
KL, SHARED, NOISE = type(kl_weight(weight=0.0)), type(share_noise()), type(scale_noise(factor=1.0))
DROPPED, POINTS = type(dropout(p=0.1)), type(deterministic())


def test_ramp_rises_after_its_start() -> None:
    found = [ramp(progress, 0.8, start=0.5) for progress in (0.0, 0.5, 0.75, 1.0)]
    assert found == pytest.approx([0.0, 0.0, 0.4, 0.8])
    assert ramp(0.25, 2.0) == 0.5


@pytest.mark.parametrize(("method", "end"), [(TEN["neurons"], 0.9), (FULL["neurons"], 0.2)])
def test_noise_is_shared_and_rises(method: LanguageMethod, end: float) -> None:
    for progress, expected in ((0.0, 1e-3), (0.4, 1e-3), (0.7, end / 2), (1.0, end)):
        effects = method.effects(progress)
        assert [type(effect) for effect in effects] == [KL, SHARED, NOISE]
        assert effects[-1].amount == pytest.approx(expected)
        assert effects[0].weight == 0
    of_tokens = replace(method, shared=False)
    assert [type(effect) for effect in of_tokens.effects(1.0)] == [KL, NOISE]
    paid = ABLATIONS["neurons, learned scale and KL"]
    assert [paid.effects(progress)[0].weight for progress in (0.0, 0.5, 1.0)] == [0, 5e-7, 1e-6]
    assert paid.learn_scales


@pytest.mark.parametrize(("method", "end"), [(TEN["dropout"], 0.45), (FULL["dropout"], 0.04)])
def test_dropout_is_annealed_likewise(method: LanguageMethod, end: float) -> None:
    for progress, expected in ((0.0, 0.0), (0.4, 0.0), (0.7, end / 2), (1.0, end)):
        effects = method.effects(progress)
        assert [type(effect) for effect in effects] == [SHARED, DROPPED]
        assert effects[-1].p == pytest.approx(expected)


def test_the_twin_is_points_all_along() -> None:
    for progress in (0.0, 0.4, 1.0):
        assert [type(effect) for effect in TWIN.effects(progress)] == [POINTS]


@pytest.mark.parametrize("learned", [False, True])
def test_scales_are_learned_where_that_is_asked(learned: bool) -> None:
    small = {"block_size": 8, "num_layers": 2, "num_heads": 2, "width": 8}
    method = LanguageMethod(units="points", model=small, learn_scales=learned)
    model = method.build(5)
    trained = {id(value) for value in method.learned(model)}
    left = {name for name, value in model.named_parameters() if id(value) not in trained}
    scales = {f"blocks.{layer}.neurons.posterior.raw_scale.value" for layer in (0, 1)}
    assert left == (set() if learned else scales)


def test_neurons_do_not_learn_their_scales_and_layers_are_chosen() -> None:
    assert not TEN["neurons"].learn_scales
    one_layer = replace(TEN["neurons"], model={"neuron_layers": (2,)})
    assert one_layer.build(5).neuron_layers == (2,)
    assert all({"twin", "dropout", "neurons"} <= set(one.methods) for one in SETTINGS.values())


def test_the_recipes_of_runs_are_those_of_the_benchmark() -> None:
    for recipe, method in (
        (LanguageRecipe(), FULL["neurons"]),
        (LanguageRecipe.few_data(), TEN["neurons"]),
    ):
        for progress in (0.0, 0.4, 0.7, 1.0):
            amount = method.effects(progress)[-1].amount
            assert recipe.noise(round(progress * recipe.max_steps)) == pytest.approx(amount)
        assert method.model == {"scale": recipe.scale, "initial_scale": recipe.initial_scale}
        assert recipe.learn_scales is method.learn_scales
        assert recipe.shared
        assert recipe.kl == 0
    assert [one.train_share for one in SETTINGS.values()] == [
        *(LanguageRecipe().share, LanguageRecipe.few_data().share),
    ]
