"""The configuration of a run on numbers: tables and series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyro_vdn import __version__
from pyro_vdn.train.problem import Problem, Recipe, Scaling, Source
from pyro_vdn.train.recipes import ForecastingRecipe, RegressionRecipe
from pyro_vdn.train.tasks import FORMAT

_RECIPES: dict[str, type[ForecastingRecipe] | type[RegressionRecipe]] = {
    "forecasting": ForecastingRecipe,
    "regression": RegressionRecipe,
}


@dataclass(frozen=True, eq=False)
class RunConfig:
    """What reproduces a run, and what predicting with it needs.

    Args:
        source: Where the data come from.
        recipe: Every hyper-parameter.
        seed: Seed of weights, batches and noise.
        inputs: How inputs were standardised.
        targets: How targets were standardised.
        version: Version of the library that wrote it.

    Example:
        >>> import torch
        >>> scaling = Scaling(("a",), torch.zeros(1), torch.ones(1))
        >>> config = RunConfig(Source("energy"), RegressionRecipe(), 0, scaling, scaling)
        >>> RunConfig.from_dict(config.to_dict()).recipe == config.recipe
        True
    """

    source: Source
    recipe: Recipe
    seed: int
    inputs: Scaling
    targets: Scaling
    version: str = __version__

    @classmethod
    def of(cls, problem: Problem, seed: int) -> RunConfig:
        """Return the configuration of a problem."""
        return cls(problem.source, problem.recipe, seed, problem.inputs, problem.targets)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration, ready for JSON."""
        return {
            "format": FORMAT,
            "version": self.version,
            "task": self.recipe.task,
            "data": self.source.to_dict(),
            "seed": self.seed,
            "recipe": self.recipe.to_dict(),
            "standardisation": {
                "inputs": self.inputs.to_dict(),
                "targets": self.targets.to_dict(),
            },
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunConfig:
        """Return the configuration that `to_dict` described."""
        return cls(
            source=Source.from_dict(values["data"]),
            recipe=_RECIPES[values["task"]].from_dict(values["recipe"]),
            seed=values["seed"],
            inputs=Scaling.from_dict(values["standardisation"]["inputs"]),
            targets=Scaling.from_dict(values["standardisation"]["targets"]),
            version=values["version"],
        )
