from __future__ import annotations

import json
from typing import Any

import pytest

from pyro_vdn.errors import InputError
from pyro_vdn.train.language_recipe import LanguageRecipe
from pyro_vdn.train.members import NEURONS, REFERENCES, Member, method_label
from pyro_vdn.train.recipes import ForecastingRecipe, RegressionRecipe

RECIPES = [ForecastingRecipe, RegressionRecipe, LanguageRecipe]


@pytest.mark.parametrize("kind", RECIPES)
def test_a_run_has_the_members_that_its_recipe_names(kind: Any) -> None:
    recipe = kind(references=("ensemble", "twin"), ensemble_size=3)
    assert recipe.methods == (NEURONS, "twin", "ensemble")
    assert [member.file for member in recipe.members("ensemble")] == [
        *("ensemble-1.safetensors", "ensemble-2.safetensors", "ensemble-3.safetensors")
    ]
    assert kind(references=()).methods == (NEURONS,)
    assert kind.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize("kind", RECIPES)
def test_recipes_of_earlier_versions_have_a_twin(kind: Any) -> None:
    values = kind().to_dict()
    for name in ("references", "dropout", "ensemble_size"):
        del values[name]
    assert kind.from_dict(values).methods == (NEURONS, "twin")


def test_seeds_of_members_of_runs_differ() -> None:
    members = RegressionRecipe().members("ensemble")
    seeds = {member.seed(seed) for seed in range(20) for member in (Member("twin"), *members)}
    assert len(seeds) == 20 * (1 + len(members))
    assert Member("twin").seed(4) == Member(NEURONS).seed(4) == Member("dropout").seed(4) == 4
    assert 0 <= members[-1].seed(2**32 - 1) < 2**32


def test_names_do_not_collide() -> None:
    members = [member for method in REFERENCES for member in RegressionRecipe().members(method)]
    for names in ([m.name for m in members], [m.file for m in members], [m.label for m in members]):
        assert len(set(names)) == len(members) == 7
    assert method_label("dropout") == "MC dropout"
    assert Member("ensemble", 2).label == "ensemble, 2"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"references": ("twins",)}, "references: expected some of twin, dropout, ensemble, each"),
        ({"references": ("twin", "twin")}, "each once, got 'twin, twin'"),
        ({"references": ("neurons",)}, "got 'neurons'"),
        ({"dropout": 1.0}, r"dropout: expected a probability in \[0, 1\), got 1\.0"),
        ({"dropout": -0.1}, "dropout: expected a probability"),
        ({"ensemble_size": 1}, "ensemble_size: expected at least 2 networks, got 1"),
    ],
)
def test_recipes_refuse_what_cannot_be_compared(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        RegressionRecipe(**changes)
