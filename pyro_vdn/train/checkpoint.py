"""Nested training states as one safetensors file: tensors as tensors, the rest as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vdn.errors import InputError, RunFolderError
from pyro_vdn.train.files import load_tensors, save_tensors

_STRUCTURE = "structure"


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a nested state, whole or not at all.

    Args:
        path: The file, usually ending in `.safetensors`.
        state: Mappings, lists and tuples of tensors, numbers, strings, booleans and None.

    Raises:
        InputError: If the state holds anything else.
        RunFolderError: If the file cannot be written.

    Example:
        >>> import tempfile
        >>> state = {"step": 3, "moments": {0: (torch.ones(2), None)}}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint(Path(folder, "a.safetensors"), state)
        ...     load_checkpoint(Path(folder, "a.safetensors"))
        {'step': 3, 'moments': {0: (tensor([1., 1.]), None)}}
    """
    tensors: dict[str, Tensor] = {}
    structure = _flatten(state, "", tensors)
    save_tensors(path, tensors, {_STRUCTURE: json.dumps(structure)})


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a state that `save_checkpoint` wrote, on the CPU.

    Args:
        path: The file.

    Returns:
        The state, with the same types and the same bits.

    Raises:
        RunFolderError: If the file is missing, damaged, or no checkpoint of this library.
    """
    tensors, metadata = load_tensors(path)
    try:
        state = _unflatten(json.loads(metadata[_STRUCTURE]), tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"{path}: holds weights but no training state. "
            "Try: the file last.safetensors that a training run wrote."
        ) from error
    if not isinstance(state, dict):
        raise RunFolderError(f"{path}: expected a mapping, got {type(state).__name__}.")
    return state


def _flatten(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """Replace tensors by their names; mark what JSON does not know."""
    if isinstance(value, Tensor):
        name = place or "value"
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        items = [[key, _flatten(v, f"{place}/{key}", tensors)] for key, v in value.items()]
        if not all(isinstance(key, (str, int)) for key, _ in items):
            raise _cannot_store(
                place, next(key for key in value if not isinstance(key, (str, int)))
            )
        return {"items": items}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_flatten(v, f"{place}/{i}", tensors) for i, v in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise _cannot_store(place, value)


def _unflatten(structure: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(structure, dict):
        return structure
    ((kind, content),) = structure.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "items":
        return {key: _unflatten(value, tensors) for key, value in content}
    parts = [_unflatten(value, tensors) for value in content]
    return tuple(parts) if kind == "tuple" else parts


def _cannot_store(place: str, value: object) -> InputError:
    return InputError(
        f"training state at {place or '/'}",
        expected="tensors, numbers, strings, booleans, None, and mappings or lists of them",
        got=type(value).__name__,
        hint="keep plain values in a callback's state_dict",
    )


def random_state() -> dict[str, Tensor]:
    """Return the state of torch's random generators, of the CPU and of the current GPU."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Tensor]) -> None:
    """Set torch's random generators to a state that `random_state` returned."""
    # Copies: torch takes the memory of a view, such as a row of the states of all processes, from
    # its beginning.
    torch.set_rng_state(state["cpu"].cpu().clone())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu().clone())
