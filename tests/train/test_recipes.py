from __future__ import annotations

import json

import pyro
import pytest
import torch

from pyro_vdn.errors import InputError
from pyro_vdn.train.recipes import ForecastingRecipe, RegressionRecipe

RECIPES = [ForecastingRecipe(), ForecastingRecipe.demo(), RegressionRecipe(patience=3)]


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_survive_json(recipe: ForecastingRecipe | RegressionRecipe) -> None:
    values = json.loads(json.dumps(recipe.to_dict()))
    assert type(recipe).from_dict(values) == recipe
    with pytest.raises(InputError, match="got 'tempo'"):
        type(recipe).from_dict({**values, "tempo": 1})


@pytest.mark.parametrize("recipe", RECIPES)
def test_options_and_loss_carry_the_recipe(recipe: ForecastingRecipe | RegressionRecipe) -> None:
    options, loss = recipe.options(seed=4), recipe.loss()
    assert options.seed == 4
    assert options.max_steps == recipe.max_steps
    assert options.betas == recipe.betas
    assert options.patience == recipe.patience
    assert loss.closed_form
    assert loss.variance_weight == recipe.variance_weight
    assert loss.joint_weight == recipe.joint_weight


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (8, 2), (100_000, 250)])
def test_other_budgets_are_evaluated_in_proportion(steps: int, every: int) -> None:
    recipe = ForecastingRecipe().with_steps(steps)
    assert recipe.max_steps == steps
    assert recipe.evaluate_every == every
    assert recipe.warmup_steps <= max(1, steps // 10)


def test_the_twin_starts_from_the_same_weights() -> None:
    recipe = RegressionRecipe(num_units=4)
    model, twin = recipe.build_model(3, seed=5), recipe.build_model(3, seed=5, units="points")
    other = recipe.build_model(3, seed=6)
    states = [pyro.poutine.unwrap(program).state_dict() for program in (model, twin, other)]
    name = "neurons.posterior.loc.weight"
    assert states[0][name].dtype == torch.float32
    assert torch.equal(states[0][name], states[1][name])
    assert not torch.equal(states[0][name], states[2][name])
    x = torch.zeros(4, 3, dtype=torch.float32)
    with torch.no_grad():
        z = pyro.poutine.trace(twin).get_trace(x).nodes["neurons.z"]["value"]
    assert torch.equal(z[0], z[1])
