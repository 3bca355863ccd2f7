"""Tensors and settings on disk: safetensors and JSON, written whole or not at all, never pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from pyro_vdn import files
from pyro_vdn.errors import RunFolderError

_MARK = "pyro-vdn"
_DAMAGED = "Try: another checkpoint of the run, a fresh copy of the file, or train again."


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` on success; its folder is made where missing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise RunFolderError(
            f"{path}: cannot be written ({error.strerror or error}). "
            "Try: a folder that you may write to, with space left."
        ) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all.

    Args:
        path: The file; its folder is made where it is missing.
        content: What JSON can hold.

    Raises:
        RunFolderError: If it cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(Path(folder, "a.json"), {"seed": 0})
        ...     read_json(Path(folder, "a.json"))
        {'seed': 0}
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Args:
        path: The file.

    Returns:
        The object.

    Raises:
        RunFolderError: If the file is missing, unreadable or not JSON.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except ValueError as error:
        raise RunFolderError(f"{path}: not JSON, or damaged ({error}). {_DAMAGED}") from error
    if not isinstance(content, dict):
        raise RunFolderError(f"{path}: expected a JSON object, got {type(content).__name__}.")
    return content


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to a safetensors file with a checksum, whole or not at all.

    Args:
        path: The file; its folder is made where it is missing.
        tensors: Tensors by name.
        metadata: Strings to keep beside them.

    Raises:
        RunFolderError: If it cannot be written.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_tensors(Path(folder, "w.safetensors"), {"w": torch.ones(2)}, {"seed": "0"})
        ...     load_tensors(Path(folder, "w.safetensors"))
        ({'w': tensor([1., 1.])}, {'seed': '0'})
    """
    from safetensors.torch import save

    # Clones, since safetensors refuses tensors that share memory.
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    extra = dict(metadata or {})
    header = {**extra, "format": _MARK, "sha256": _checksum(plain, extra)}
    with replacing(path) as temporary:
        temporary.write_bytes(save(plain, header))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file that `save_tensors` wrote, on the CPU.

    Args:
        path: The file.

    Returns:
        Tensors by name, and the strings kept beside them.

    Raises:
        RunFolderError: If the file is missing, damaged, or was not written by this library.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise RunFolderError(f"{path}: no such file. Try: the path of a run that was trained.")
    try:
        with safe_open(path, framework="pt") as handle:
            metadata = dict(handle.metadata() or {})
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        raise RunFolderError(
            f"{path}: not a safetensors file, or damaged ({error}). {_DAMAGED}"
        ) from error
    if metadata.pop("format", None) != _MARK:
        raise RunFolderError(f"{path}: a safetensors file, but not one of this library. {_DAMAGED}")
    checksum = metadata.pop("sha256", None)
    if checksum != _checksum(tensors, metadata):
        raise RunFolderError(f"{path}: damaged, its checksum does not match. {_DAMAGED}")
    return tensors, metadata


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    import torch

    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
