"""Whether a run may start in a folder, or continue from a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

from pyro_vdn.errors import InputError, RunFolderError
from pyro_vdn.train.checkpoint import load_checkpoint
from pyro_vdn.train.options import FitOptions


def check_folder(folder: str | Path | None, *, resuming: bool = False) -> None:
    """Refuse a folder that holds anything, before anything is trained.

    Args:
        folder: The folder of a new run.
        resuming: Whether the run is to be continued, so that the folder may hold it.

    Raises:
        RunFolderError: If the folder is a file, or is not empty and not to be resumed.

    Example:
        >>> check_folder("no/such/folder")
    """
    follows_another = int(os.environ.get("LOCAL_RANK", "0")) > 0  # the first process has checked it
    if folder is None or follows_another:
        return
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"{path}: expected a folder, got a file. Try: another path.")
    if path.is_dir() and any(path.iterdir()) and not resuming:
        raise RunFolderError(
            f"{path}: expected an empty or new folder, got one that holds "
            f"{sorted(item.name for item in path.iterdir())[0]!r}; nothing was changed. "
            "Try: another folder (--out on the command line), or resume the run it holds."
        )


def resume_point(resume: str | Path | None) -> Path | None:
    """Return the checkpoint to continue from: the file itself, or the last one of a folder."""
    if resume is None:
        return None
    path = Path(resume)
    return path / "last.safetensors" if path.is_dir() else path


def check_resumed(start: Path | None, options: FitOptions) -> None:
    """Refuse to continue from a file that is no checkpoint, or with other batches.

    Args:
        start: The checkpoint, or None for a new run.
        options: The options of the run that continues.

    Raises:
        InputError: For another seed or batch size than the checkpoint's.
        RunFolderError: For a file that is missing, damaged, or no checkpoint of `fit`.
    """
    if start is None:
        return
    state = load_checkpoint(start)
    if "options" not in state or "state_dict" not in state:
        raise RunFolderError(f"{start}: no checkpoint of fit. Try: a file last.safetensors.")
    for name, before in state["options"].items():
        now = getattr(options, name)
        if now != before:
            raise InputError(
                f"options.{name}",
                expected=f"{before}, as in the run that is resumed",
                got=str(now),
                hint=f"{name}={before}, or a new run",
            )
