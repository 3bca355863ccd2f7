"""Where the file of a data set lies: in the package, a data folder, the cache, or still afar."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pyro_vdn.datasets.checksum import read_verified
from pyro_vdn.datasets.download import download
from pyro_vdn.datasets.registry import DATASETS, DatasetInfo, dataset_info
from pyro_vdn.errors import InputError

_EMBEDDED = Path(__file__).parent / "data"


class DatasetStatus(NamedTuple):
    """One row of `describe`.

    Args:
        name: The name by which it is loaded.
        task: `"regression"`, `"forecasting"` or `"language"`.
        size: Rows and columns, in words.
        licence: The licence of the data.
        status: `"embedded"` in the package, `"local"` in the folder `PYRO_VDN_DATA`, `"cached"`
            by an earlier download, or `"available"` for download.
        note: What to know before use, such as the consent that `accept=` asks for.

    Example:
        >>> describe()[0][:2]
        ('etth1', 'forecasting')
    """

    name: str
    task: str
    size: str
    licence: str
    status: str
    note: str


def cache_folder() -> Path:
    """Say which folder holds downloads: `PYRO_VDN_CACHE`, else `~/.cache/pyro-vdn`.

    Returns:
        The folder, which need not exist yet.

    Example:
        >>> cache_folder().is_absolute()
        True
    """
    chosen = os.environ.get("PYRO_VDN_CACHE")
    folder = Path(chosen) if chosen else Path("~/.cache/pyro-vdn")
    return folder.expanduser().absolute()


def fetch(name: str, *, accept: str | None = None, timeout: float = 30.0) -> Path:
    """Find the file of a data set, downloading it if it is nowhere on this machine.

    Looked at in order: the copy in the package, the folder in the environment variable
    `PYRO_VDN_DATA`, the cache, the net. Whatever is found must have the published checksum.

    Args:
        name: A key of `DATASETS`.
        accept: The consent that some data sets ask for.
        timeout: Seconds to wait for a server.

    Returns:
        The path of the file, plain or `.gz`.

    Raises:
        InputError: If the name is unknown, consent is missing, the file found is not the
            published one, or the file is nowhere and cannot be downloaded.

    Example:
        >>> fetch("etth1").name
        'ETTh1.csv.gz'
    """
    return _obtain(name, accept, timeout)[0]


def read_dataset(name: str, *, accept: str | None = None, timeout: float = 30.0) -> bytes:
    """Read the file of a data set that `fetch` finds, decompressed.

    Args:
        name: A key of `DATASETS`.
        accept: The consent that some data sets ask for.
        timeout: Seconds to wait for a server.

    Returns:
        The content of the file.

    Raises:
        InputError: As for `fetch`.

    Example:
        >>> read_dataset("etth1")[:9]
        b'date,HUFL'
    """
    return _obtain(name, accept, timeout)[1]


def describe() -> list[DatasetStatus]:
    """List every data set and where its file is now, without reading any.

    Returns:
        A row per data set.

    Example:
        >>> {row.name: row.status for row in describe()}["energy"]
        'embedded'
    """
    return [_describe(info) for info in DATASETS.values()]


def _describe(info: DatasetInfo) -> DatasetStatus:
    note = f"opt-in, accept={info.consent!r}: {info.note}" if info.consent else info.note
    status = next((status for status, path in _places(info) if path.is_file()), "available")
    return DatasetStatus(info.name, info.task, info.size, info.licence, status, note)


def _obtain(name: str, accept: str | None, timeout: float) -> tuple[Path, bytes]:
    info = dataset_info(name)
    _require_consent(info, accept)
    path = next((path for _, path in _places(info) if path.exists()), None)
    if path is None:
        _require_data_folder()
        path = download(info, cache_folder(), timeout=timeout)
    return path, read_verified(path, info)


def _places(info: DatasetInfo) -> Iterator[tuple[str, Path]]:
    if info.embedded:
        yield "embedded", _EMBEDDED / info.embedded
    local = os.environ.get("PYRO_VDN_DATA")
    folders = {"local": Path(local).expanduser()} if local else {}
    folders["cached"] = cache_folder()
    for status, folder in folders.items():
        yield status, folder / info.file
        yield status, folder / f"{info.file}.gz"


def _require_data_folder() -> None:
    local = os.environ.get("PYRO_VDN_DATA")
    if local and not Path(local).expanduser().is_dir():
        raise InputError(
            "PYRO_VDN_DATA",
            expected="a folder that exists",
            got=repr(local),
            hint="correct the path, or unset the variable to use the cache",
        )


def _require_consent(info: DatasetInfo, accept: str | None) -> None:
    if info.consent and accept != info.consent:
        raise InputError(
            f"data set {info.name!r}",
            expected=f"accept={info.consent!r}",
            got=f"accept={accept!r}",
            hint=f"another data set, or that argument, having read why: {info.note}",
        )
