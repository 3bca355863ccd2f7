"""Named scores of the same cases, side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from pyro_vdn.decision._ordering import Array
from pyro_vdn.diagnostics._checks import as_array
from pyro_vdn.errors import InputError

Features = Mapping[str, Tensor | ArrayLike]
"""Scores by name, each `(cases,)`."""


def named_columns(features: Features, names: tuple[str, ...]) -> Array:
    """Return the named features side by side, `(cases, features)`."""
    if not names:
        raise InputError(
            "features",
            expected="at least one score",
            got="none",
            hint="features={'entropy': table['entropy']}",
        )
    for name in names:
        if name not in features:
            raise InputError(
                "features",
                expected=f"'{name}' among the names",
                got=", ".join(features) or "none",
                hint="pass every score that is named",
            )
    columns = [
        as_array(f"features['{name}']", features[name], ndim=1, sizes="(cases,)") for name in names
    ]
    for name, column in zip(names, columns, strict=True):
        check_length(f"features['{name}']", column, len(columns[0]))
    return np.stack(columns, axis=1)


def check_length(what: str, values: Array, cases: int) -> None:
    """Refuse another number of values than the first feature has."""
    if len(values) != cases:
        raise InputError(
            what,
            expected=f"{cases} values, one per case as in the first feature",
            got=f"{len(values)}",
            hint="take all from the same tokens",
        )
