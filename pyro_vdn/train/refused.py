"""What a run that was refused before its first step leaves behind: nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyro_vdn.train.lightning import LOGS
from pyro_vdn.train.resume import BEST, LAST, follows_another


@contextmanager
def cleared_when_refused(folder: Path, trained: Callable[[], bool]) -> Iterator[None]:
    """Remove what `fit` has written when an error ends a run before anything was trained.

    Then the next try does not find the folder taken. A folder that held anything before is left as
    it is; of one that was new or empty only logs and checkpoints are removed, so that what others
    wrote meanwhile stays.

    Args:
        folder: The folder of the run.
        trained: Asked after an error: whether a step was taken.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place, suppress(ValueError):
        ...     run = Path(place, "runs", "first")
        ...     with cleared_when_refused(run, trained=lambda: False):
        ...         (run / "logs").mkdir(parents=True)
        ...         raise ValueError
        >>> run.parent.exists()
        False
    """
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    vacant = folder in new or not any(folder.iterdir())
    try:
        yield
    except Exception:
        if vacant and not trained() and not follows_another():
            _clear(folder, new)
        raise


def _clear(folder: Path, new: list[Path]) -> None:
    """Remove logs and checkpoints, then the folders that were new as far as they are empty."""
    shutil.rmtree(folder / LOGS, ignore_errors=True)
    for name in (BEST, LAST):
        (folder / name).unlink(missing_ok=True)
    for place in new:
        with suppress(OSError):  # somebody else's files are in it
            place.rmdir()
