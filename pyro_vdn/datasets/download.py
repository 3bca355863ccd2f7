"""Downloading one file: with a timeout, checked before it appears, never half written."""

from __future__ import annotations

import http.client
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO
from urllib.request import urlopen

from pyro_vdn.datasets.checksum import read_verified
from pyro_vdn.datasets.registry import DatasetInfo
from pyro_vdn.errors import InputError


def download(info: DatasetInfo, folder: Path, *, timeout: float = 30.0) -> Path:
    """Download the file of a data set into a folder.

    The bytes go to a temporary file in the same folder, which takes its final name only after
    its checksum was found right: readers see the whole file or none.

    Args:
        info: The data set.
        folder: The folder that receives `info.file`, plain or `.gz` as published.
        timeout: Seconds to wait for the server.

    Returns:
        The path of the file.

    Raises:
        InputError: If the server cannot be reached, the folder cannot be written, or the file
            is not the published one.

    Example:
        >>> from pyro_vdn.datasets import dataset_info
        >>> download(dataset_info("yacht"), Path("cache"))  # doctest: +SKIP
        PosixPath('cache/uci/yacht/data.txt')
    """
    path = download_path(info, folder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
    except OSError as error:
        raise InputError(
            str(path.parent),
            expected="a folder that can be written",
            got=str(error),
            hint="set PYRO_VDN_CACHE to a folder of your own",
        ) from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as out:
            _receive(info, out, path, timeout)
        read_verified(temporary, info, what=f"download of {info.url}")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def download_path(info: DatasetInfo, folder: Path) -> Path:
    """Say where `download` puts the file of a data set.

    Args:
        info: The data set.
        folder: The folder that receives it.

    Returns:
        The path, which ends in `.gz` where the published file does.

    Example:
        >>> from pyro_vdn.datasets import dataset_info
        >>> download_path(dataset_info("exchange"), Path("cache")).as_posix()
        'cache/exchange/exchange_rate.txt.gz'
    """
    return folder / (info.file + (".gz" if info.url.endswith(".gz") else ""))


def _receive(info: DatasetInfo, out: IO[bytes], path: Path, timeout: float) -> None:
    try:
        with urlopen(info.url, timeout=timeout) as response:
            shutil.copyfileobj(response, out)
    except (OSError, http.client.HTTPException) as error:
        raise InputError(
            f"data set {info.name!r}",
            expected=f"a download from {info.url}",
            got=f"{type(error).__name__}: {error}",
            hint=f"if this machine is offline, download the file elsewhere and put it at {path}, "
            f"or at {info.file} in the folder that PYRO_VDN_DATA names",
        ) from error
