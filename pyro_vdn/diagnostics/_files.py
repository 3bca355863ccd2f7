"""Checks on where a file is to be written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyro_vdn import files
from pyro_vdn.errors import InputError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it there on success, remove it on failure."""
    final = Path(path)
    if not final.parent.is_dir():
        raise InputError(
            "path",
            expected="a file in an existing folder",
            got=f"'{final}'",
            hint=f"create the folder first: mkdir -p '{final.parent}'",
        )
    if final.is_dir():
        raise InputError(
            "path", expected="a file", got=f"the folder '{final}'", hint="append a file name"
        )
    with files.replacing(final) as temporary:
        yield temporary
