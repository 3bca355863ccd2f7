"""The folder of a run: what is written, and reading it back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro.poutine

from pyro_vdn import __version__
from pyro_vdn.errors import InputError, RunFolderError
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.infer.own_store import give_own_store
from pyro_vdn.train.files import load_tensors, read_json, save_tensors, write_json
from pyro_vdn.train.tasks import FORMAT, Config, task_of

Program = Callable[..., Any]

CONFIG = "config.json"
METRICS = "metrics.json"
DRAWS = "draws.nc"
MODEL = "model.safetensors"
TWIN = "twin.safetensors"
TRAINING = "training"


def write_config(folder: Path, config: Config) -> None:
    """Write a run's configuration, and nothing else, into its folder.

    Args:
        folder: The folder, made where it is missing.
        config: The configuration.

    Raises:
        RunFolderError: If it cannot be written.
    """
    write_json(folder / CONFIG, config.to_dict())


def read_config(folder: Path) -> Config:
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
    if values.get("format") != FORMAT:
        raise RunFolderError(
            f"{folder / CONFIG}: expected the format {FORMAT!r}, got {values.get('format')!r}. "
            "Try: the version of pyro-vdn that wrote the run."
        )
    try:
        return task_of(values["task"]).read(values)
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise RunFolderError(
            f"{folder / CONFIG}: damaged or changed by hand ({error}). Try: a fresh copy of it."
        ) from error


def save_model(
    folder: Path, model: Program, *, twin: bool = False, step: int | None = None
) -> None:
    """Write the weights of a model or of its twin.

    Args:
        folder: The run's folder.
        model: The program, bare or with effects.
        twin: Whether it is the twin.
        step: Steps that were taken to these weights.

    Raises:
        RunFolderError: If it cannot be written.
    """
    state = pyro.poutine.unwrap(model).state_dict()
    taken = {} if step is None else {"step": str(step)}
    save_tensors(folder / (TWIN if twin else MODEL), state, {"version": __version__, **taken})


def load_model(
    folder: Path, config: Config | None = None, *, twin: bool = False
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
    path = folder / (TWIN if twin else MODEL)
    tensors, about = load_tensors(path)
    step = int(about["step"]) if about.get("step", "").isdecimal() else None
    model = task_of(config.recipe.task).build(config, twin, step)
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
