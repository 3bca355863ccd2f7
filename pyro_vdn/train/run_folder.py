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
from pyro_vdn.train.members import NEURONS, Member
from pyro_vdn.train.tasks import FORMAT, Config, task_of

Program = Callable[..., Any]

CONFIG = "config.json"
METRICS = "metrics.json"
DRAWS = "draws.nc"
TRAINING = "training"
_NEURONS = Member(NEURONS)


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


def save_model(folder: Path, model: Program, member: Member, *, step: int | None = None) -> None:
    """Write the weights of a member of a run.

    Args:
        folder: The run's folder.
        model: The program, bare or with effects.
        member: Which one it is.
        step: Steps that were taken to these weights.

    Raises:
        RunFolderError: If it cannot be written.
    """
    state = pyro.poutine.unwrap(model).state_dict()
    taken = {} if step is None else {"step": str(step)}
    save_tensors(folder / member.file, state, {"version": __version__, **taken})


def load_model(
    folder: Path, config: Config | None = None, member: Member = _NEURONS
) -> tuple[Program, NeuronGuide]:
    """Make a model of a run and give it the weights that were saved.

    Args:
        folder: The run's folder.
        config: Its configuration, read where it is not given.
        member: Which one to load; by default the neurons.

    Returns:
        The program with its effects, in evaluation mode, and its guide.

    Raises:
        RunFolderError: If the folder holds no run, or the weights are missing, damaged or of
            another model.
    """
    config = read_config(folder) if config is None else config
    path = folder / member.file
    tensors, about = load_tensors(path)
    step = int(about["step"]) if about.get("step", "").isdecimal() else None
    model = task_of(config.recipe.task).build(config, member.units, step)
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


def load_models(
    folder: Path, config: Config | None = None
) -> dict[str, list[tuple[Program, NeuronGuide]]]:
    """Load the neurons of a run and all of its references.

    Args:
        folder: The run's folder.
        config: Its configuration, read where it is not given.

    Returns:
        By method, ``"neurons"`` first, the programs with their guides: the members of an
        ``"ensemble"``, whose predictions are to be pooled, and else one. References that are not
        there, as in a run that was interrupted, are left out.

    Raises:
        RunFolderError: As for `load_model`.
    """
    config = read_config(folder) if config is None else config
    found = {NEURONS: [load_model(folder, config)]}
    for method in config.recipe.methods[1:]:
        members = config.recipe.members(method)
        there = [member for member in members if (folder / member.file).exists()]
        if there:
            found[method] = [load_model(folder, config, member) for member in there]
    return found
