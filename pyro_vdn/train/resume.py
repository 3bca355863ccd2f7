"""Whether a run may start in a folder, or continue from a checkpoint, and what it takes along."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyro_vdn.errors import InputError, RunFolderError
from pyro_vdn.train.checkpoint import load_checkpoint
from pyro_vdn.train.files import replacing
from pyro_vdn.train.options import FitOptions

BEST = "best.safetensors"
LAST = "last.safetensors"


def check_folder(folder: str | Path | None, *, start: Path | None = None) -> None:
    """Refuse a folder that holds anything, before anything is trained.

    Args:
        folder: The folder of a run.
        start: The checkpoint that the run continues from; the folder where it lies may hold it.

    Raises:
        RunFolderError: If the folder is a file, or is not empty and not that of the run resumed.

    Example:
        >>> check_folder("no/such/folder")
    """
    if folder is None or follows_another():  # the first process has checked it
        return
    path = Path(folder)
    resuming = start is not None and _are_same(path, start.parent)
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
    return path / LAST if path.is_dir() else path


def last_of_run(folder: Path) -> Path | None:
    """Return the last checkpoint of a part of a run, or None where it starts anew.

    What a part that was killed before its first checkpoint has left is removed.

    Args:
        folder: The part's own folder of checkpoints and logs.

    Example:
        >>> last_of_run(Path("no/such/folder")) is None
        True
    """
    if (folder / LAST).exists():
        return folder / LAST
    if folder.is_dir() and not follows_another():
        shutil.rmtree(folder)
    return None


def follows_another() -> bool:
    """Say whether this is not the first of several processes that train together."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0


def check_resumed(start: Path | None, options: FitOptions, callbacks: Sequence[Any] = ()) -> None:
    """Refuse to continue from a file that is no checkpoint, or with other batches.

    Args:
        start: The checkpoint, or None for a new run.
        options: The options of the run that continues.
        callbacks: Its callbacks.

    Raises:
        InputError: For another seed or batch size than the checkpoint's, or without its
            controllers.
        RunFolderError: For a file that is missing, damaged, or no checkpoint of `fit`; likewise
            for the best checkpoint of its run, which a run without a better one ends with.
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
    _check_controllers(state.get("callbacks", {}), callbacks)
    kept = state.get("callbacks", {}).get("KeepCheckpoints", {})
    if kept.get("best_step") is not None:
        _check_best(start, kept["best_step"])


def _check_controllers(kept: Mapping[str, Any], callbacks: Sequence[Any]) -> None:
    """Refuse to continue without all controllers of a run, which would be another run.

    Other controllers in their place refuse themselves, when they are given the checkpoint.
    """
    keys = {getattr(callback, "state_key", "") for callback in callbacks}
    given = {key for key in keys if key.startswith("ControlCallback(")}
    missing = [key for key in kept if key.startswith("ControlCallback(") and key not in given]
    if missing and given <= set(kept):
        raise InputError(
            "callbacks",
            expected=f"the controllers of the run that is resumed: {', '.join(missing)}",
            got="none" if not given else "a part of them",
            hint="callbacks=[ControlCallback(controller)], with the model wrapped in its effects",
        )


def bring_checkpoints(start: Path, folder: Path) -> None:
    """Copy the checkpoints of a run that is resumed in another folder, each whole or not at all.

    Args:
        start: The checkpoint that the run continues from, with the best one beside it.
        folder: The folder in which it continues.

    Raises:
        RunFolderError: If they cannot be written.
    """
    if _are_same(folder, start.parent):
        return
    # The best one first: a last one must not claim a best that is not there.
    for source, name in ((start.parent / BEST, BEST), (start, LAST)):
        if source.is_file():
            with replacing(folder / name) as temporary:
                shutil.copyfile(source, temporary)


def _are_same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _check_best(start: Path, step: int) -> None:
    best = start.parent / BEST
    if not best.is_file():
        raise RunFolderError(
            f"{best}: no such file, though {start.name} comes from a run whose best evaluation was "
            f"at step {step}. Try: a folder that holds both files of that run, or a new run."
        )
    its_step = load_checkpoint(best)["global_step"]  # refuses it where it is damaged
    if its_step != step and start.name != BEST:
        raise RunFolderError(
            f"{best}: expected the best checkpoint of the run of {start.name}, of step {step}, "
            f"got one of step {its_step}. Try: a folder that holds both files of that run, or a "
            "new run."
        )
