"""Reading a file whole: plain or gzip, complete, and the one that was meant."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

from pyro_vdn.datasets.registry import DatasetInfo
from pyro_vdn.errors import InputError


def read_file(path: Path, *, what: str | None = None) -> bytes:
    """Read a file, decompressed if its name ends in `.gz`.

    Args:
        path: The file.
        what: What an error should call it; by default its path.

    Returns:
        Its decompressed content.

    Raises:
        InputError: If the file is missing, cannot be read, or is a damaged gzip.

    Example:
        >>> read_file(Path("nowhere.csv"))
        Traceback (most recent call last):
            ...
        pyro_vdn.errors.InputError: nowhere.csv: expected a file, got nothing at that path. \
Try: check the path
    """
    what = what or str(path)
    if not path.exists():
        raise InputError(what, expected="a file", got="nothing at that path", hint="check the path")
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            what,
            expected="a complete gzip file",
            got=f"a truncated or damaged one ({error})",
            hint="delete it and fetch it again",
        ) from error
    except OSError as error:
        raise InputError(
            what,
            expected="a readable file",
            got=str(error),
            hint="check that it is a file and that you may read it",
        ) from error


def read_verified(path: Path, info: DatasetInfo, *, what: str | None = None) -> bytes:
    """Read the file of a data set and check that it is the published one.

    Args:
        path: The file, plain or `.gz`.
        info: The data set it should hold.
        what: What an error should call the file; by default its path.

    Returns:
        Its decompressed content.

    Raises:
        InputError: If it cannot be read or has another checksum.

    Example:
        >>> from pyro_vdn.datasets import dataset_info, fetch
        >>> len(read_verified(fetch("energy"), dataset_info("energy")))
        35309
    """
    content = read_file(path, what=what)
    found = hashlib.sha256(content).hexdigest()
    published = hashlib.sha256(path.read_bytes()).hexdigest() if path.suffix == ".gz" else found
    if info.sha256 not in (found, published):
        raise InputError(
            what or str(path),
            expected=f"sha256 {info.sha256} ({info.name})",
            got=f"sha256 {found} ({len(content):,} bytes)",
            hint="delete the file and fetch it again; it is truncated, edited or another file",
        )
    return content
