"""ArviZ data as netCDF files: written whole or not at all, read back with checks."""

from __future__ import annotations

import os
from typing import Any, Final

from pyro_vdn.diagnostics._files import replacing
from pyro_vdn.diagnostics.export._arviz import LIBRARY, ArviZData, container
from pyro_vdn.errors import InputError

_ENGINE: Final = "h5netcdf"


def save_netcdf(data: ArviZData, path: str | os.PathLike[str]) -> None:
    """Write ArviZ data to a netCDF file, compressed and with the checksums of zlib.

    The file appears whole or not at all: an older one of that name survives a failure.

    Args:
        data: What :func:`to_arviz` or :func:`arrays_to_arviz` returned.
        path: File to write, usually ending in `.nc`; its folder must exist.

    Raises:
        InputError: If the folder does not exist or an attribute cannot be stored.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from pyro_vdn.diagnostics import arrays_to_arviz
        >>> data = arrays_to_arviz({"posterior": {"z": np.zeros((4, 2))}})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_netcdf(data, f"{folder}/run.nc")
        ...     load_netcdf(f"{folder}/run.nc")["posterior"]["z"].shape
        (1, 4, 2)
    """
    import xarray as xr

    with replacing(path) as temporary:
        try:
            xr.Dataset(attrs=data.attrs).to_netcdf(temporary, mode="w", engine=_ENGINE)
            for name, dataset in _datasets(data).items():
                dataset.to_netcdf(
                    temporary, mode="a", group=name, engine=_ENGINE, encoding=_encoding(dataset)
                )
        except (TypeError, ValueError) as error:
            raise InputError(
                "data",
                expected="attributes and values that netCDF can hold",
                got=str(error),
                hint="use numbers and strings as attributes, numbers and strings as values",
            ) from error


def load_netcdf(path: str | os.PathLike[str]) -> ArviZData:
    """Read a file written by :func:`save_netcdf`, completely, so that no handle stays open.

    Args:
        path: File to read.

    Returns:
        ArviZ data with the groups, coordinates and attributes that were saved.

    Raises:
        InputError: If the file is missing, damaged, or was not written by this library.

    Example: see :func:`save_netcdf`.
    """
    import h5netcdf
    import xarray as xr

    try:
        with h5netcdf.File(path, mode="r") as handle:
            names = list(handle.groups)
        attrs = xr.load_dataset(path, engine=_ENGINE).attrs
        datasets = {name: xr.load_dataset(path, group=name, engine=_ENGINE) for name in names}
    except Exception as error:  # a damaged file fails in any of four libraries, each its own way
        raise InputError(
            "path",
            expected="a readable netCDF file",
            got=f"'{os.fspath(path)}' ({type(error).__name__}: {error})",
            hint="check the path; if the file is damaged, copy it again or write it anew",
        ) from error
    if not datasets or attrs.get("inference_library") != LIBRARY:
        raise InputError(
            "path",
            expected=f"a file written by {LIBRARY}",
            got=f"'{os.fspath(path)}' of {attrs.get('inference_library', 'unknown origin')}",
            hint="read files of other libraries with arviz.from_netcdf",
        )
    return container(datasets, attrs)


def _datasets(data: ArviZData) -> dict[str, Any]:
    """List the groups of either container as `xarray.Dataset`."""
    if hasattr(data, "children"):
        return {name: node.to_dataset() for name, node in data.children.items()}
    return {name: data[name] for name in data.groups()}


def _encoding(dataset: Any) -> dict[str, dict[str, bool]]:
    """Compress numeric arrays; zlib adds a checksum, so that a flipped bit is noticed."""
    return {
        name: {"zlib": True}
        for name, values in dataset.variables.items()
        if values.ndim and values.size and values.dtype.kind in "biufc"
    }
