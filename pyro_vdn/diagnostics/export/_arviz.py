"""The one place that knows which of ArviZ's two APIs is installed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, TypeAlias

ArviZData: TypeAlias = Any
"""`arviz.InferenceData` (0.x) or `xarray.DataTree` (1.x); both answer `data["posterior"]["z"]`."""

LIBRARY = "pyro-vdn"
"""What the attribute `inference_library` says."""


def import_arviz() -> Any:
    """Import ArviZ without its once-a-day announcement; every other warning passes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\s*ArviZ is undergoing", FutureWarning)
        import arviz
    return arviz


def container(datasets: Mapping[str, Any], attrs: Mapping[str, Any]) -> ArviZData:
    """Put one `xarray.Dataset` per group into the container of the installed ArviZ."""
    # Datasets are built here, not by `arviz.from_dict`: on 0.x that drops custom groups such as
    # `unit_stats` and turns a nested dict into nonsense, without a word; on 1.x it takes their
    # first dimensions for chain and draw.
    arviz = import_arviz()
    if int(arviz.__version__.split(".")[0]) < 1:
        return arviz.InferenceData(attrs=dict(attrs), **datasets)
    import xarray as xr

    tree = xr.DataTree.from_dict(dict(datasets))
    tree.attrs.update(attrs)
    return tree
