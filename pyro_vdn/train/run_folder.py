"""The folder of a run: what is written, and reading it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro.poutine

from pyro_vdn import __version__
from pyro_vdn.errors import InputError, RunFolderError
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.infer.own_store import give_own_store
from pyro_vdn.train.files import load_tensors, read_json, save_tensors, write_json
from pyro_vdn.train.problem import Problem, Recipe, Scaling, Source, build_model
from pyro_vdn.train.recipes import ForecastingRecipe, RegressionRecipe

Program = Callable[..., Any]

CONFIG = "config.json"
METRICS = "metrics.json"
DRAWS = "draws.nc"
MODEL = "model.safetensors"
TWIN = "twin.safetensors"
TRAINING = "training"
_FORMAT = "pyro-vdn run 1"
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
            "format": _FORMAT,
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


def write_config(folder: Path, config: RunConfig) -> None:
    """Write a run's configuration, and nothing else, into its folder.

    Args:
        folder: The folder, made where it is missing.
        config: The configuration.

    Raises:
        RunFolderError: If it cannot be written.
    """
    write_json(folder / CONFIG, config.to_dict())


def read_config(folder: Path) -> RunConfig:
    """Read a run's configuration.

    Args:
        folder: The run's folder.

    Returns:
        The configuration.

    Raises:
        RunFolderError: If the folder holds no run, or its configuration is damaged.
    """
    if not (folder / CONFIG).is_file():
        raise RunFolderError(
            f"{folder}: expected the folder of a run, got one without {CONFIG}. "
            "Try: the folder given as --out to pyro-vdn fit."
        )
    values = read_json(folder / CONFIG)
    if values.get("format") != _FORMAT:
        raise RunFolderError(
            f"{folder / CONFIG}: expected the format {_FORMAT!r}, got {values.get('format')!r}. "
            "Try: the version of pyro-vdn that wrote the run."
        )
    try:
        return RunConfig.from_dict(values)
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise RunFolderError(
            f"{folder / CONFIG}: damaged or changed by hand ({error}). Try: a fresh copy of it."
        ) from error


def save_model(folder: Path, model: Program, *, twin: bool = False) -> None:
    """Write the weights of a model or of its twin.

    Args:
        folder: The run's folder.
        model: The program, bare or with effects.
        twin: Whether it is the twin.

    Raises:
        RunFolderError: If it cannot be written.
    """
    state = pyro.poutine.unwrap(model).state_dict()
    save_tensors(folder / (TWIN if twin else MODEL), state, {"version": __version__})


def load_model(
    folder: Path, config: RunConfig | None = None, *, twin: bool = False
) -> tuple[Program, NeuronGuide]:
    """Make a run's model and give it the weights that were saved.

    Args:
        folder: The run's folder.
        config: Its configuration, read where it is not given.
        twin: Whether to load the twin.

    Returns:
        The program with its effects, in evaluation mode, and its guide.

    Raises:
        RunFolderError: If the folder holds no run, or the weights are missing, damaged or of
            another model.
    """
    config = read_config(folder) if config is None else config
    model = build_model(config.recipe, len(config.inputs.names), config.seed, twin=twin)
    path = folder / (TWIN if twin else MODEL)
    tensors, _ = load_tensors(path)
    bare = pyro.poutine.unwrap(model)
    try:
        bare.load_state_dict(tensors)
    except RuntimeError as error:
        raise RunFolderError(
            f"{path}: weights of another model than {CONFIG} describes ({error}). "
            "Try: a fresh copy of the whole folder."
        ) from error
    bare.eval()
    guide = NeuronGuide(model)
    give_own_store(model, guide)
    return model, guide
