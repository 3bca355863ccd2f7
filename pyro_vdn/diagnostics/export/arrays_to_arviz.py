"""From plain arrays to ArviZ: `InferenceData` on ArviZ 0.x, `DataTree` on ArviZ 1.x."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyro_vdn import __version__
from pyro_vdn.diagnostics.export._arviz import LIBRARY, ArviZData, container
from pyro_vdn.errors import InputError

SAMPLE_GROUPS = frozenset(
    {
        "posterior",
        "posterior_predictive",
        "predictions",
        "prior",
        "prior_predictive",
        "log_likelihood",
        "log_prior",
        "sample_stats",
        "sample_stats_prior",
    }
)
"""Groups whose arrays carry draws on the leftmost dimension."""


def arrays_to_arviz(
    groups: Mapping[str, Mapping[str, ArrayLike]],
    *,
    dims: Mapping[str, Sequence[str] | Mapping[str, Sequence[str]]] | None = None,
    coords: Mapping[str, ArrayLike | Mapping[str, ArrayLike]] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> ArviZData:
    """Put arrays into ArviZ data with named dimensions.

    One chain is added to every group of draws: `(draw, ...)` becomes `(chain=1, draw, ...)`. Draws
    from a guide are independent, so read them with `arviz.summary(kind="stats")`: R-hat and
    effective sample size say nothing about them.

    Args:
        groups: Group name to variable name to array. In the groups of :data:`SAMPLE_GROUPS` arrays
            have shape `(draw, ...)`, the same number of draws in each; in every other group, such
            as `observed_data`, `constant_data` or `unit_stats`, they are stored as they are.
        dims: Variable name to the names of its dimensions, without chain and draw. A variable not
            listed gets `<variable>_dim_0` and so on. A mapping under a group's name holds that
            group's own.
        coords: Dimension name to labels; `0, 1, ...` where absent. A mapping under a group's name
            likewise, for example `{"row": range(9), "posterior": {"row": [3, 7]}}`.
        attrs: Attributes of the whole; a mapping under a group's name likewise, for example
            `{"log_likelihood": {"meaning": "conditional, log p(y | z)"}}`.

    Returns:
        `arviz.InferenceData` on ArviZ 0.x, `xarray.DataTree` on 1.x, with the version of this
        library among the attributes.

    Raises:
        InputError: If names, shapes, draws or labels do not fit together.

    Example:
        >>> data = arrays_to_arviz(
        ...     {"posterior": {"z": np.zeros((100, 3, 2))}, "unit_stats": {"kl": np.ones(2)}},
        ...     dims={"z": ["row", "unit"], "kl": ["unit"]},
        ...     coords={"unit": ["first", "second"]},
        ... )
        >>> data["posterior"]["z"].dims
        ('chain', 'draw', 'row', 'unit')
        >>> float(data["unit_stats"]["kl"].sel(unit="second"))
        1.0
    """
    arrays = {group: _arrays(group, variables) for group, variables in groups.items()}
    if not arrays:
        raise InputError(
            "groups", expected="at least one group", got="none", hint="pass {'posterior': {...}}"
        )
    of_all, of_group = {}, {}
    for what, given in (("dims", dims), ("coords", coords), ("attrs", attrs)):
        of_all[what], of_group[what] = _by_group(what, given or {}, arrays)
    _refuse_unused("dims", of_all["dims"], {name for group in arrays.values() for name in group})
    stamp = {
        "inference_library": LIBRARY,
        "inference_library_version": __version__,
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    datasets = {}
    for group, variables in arrays.items():
        own = {what: by_group[group] for what, by_group in of_group.items()}
        _refuse_unused(f"dims['{group}']", own["dims"], set(variables))
        datasets[group] = _dataset(
            group,
            variables,
            {**of_all["dims"], **own["dims"]},
            {**of_all["coords"], **own["coords"]},
            {**stamp, **own["attrs"]},
        )
        _refuse_unused(f"coords['{group}']", own["coords"], set(datasets[group].dims))
    present = {dim for data in datasets.values() for dim in data.dims}
    _refuse_unused("coords", of_all["coords"], present)
    return container(datasets, {**stamp, **of_all["attrs"]})


def _by_group(
    what: str, given: Mapping[str, Any], groups: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Mapping[str, Any]]]:
    """Return what is given for all groups, and what for each of them alone."""
    own = {name: value for name, value in given.items() if isinstance(value, Mapping)}
    _refuse_unused(what, own, set(groups))
    rest = {name: value for name, value in given.items() if name not in own}
    return rest, {group: own.get(group, {}) for group in groups}


def _arrays(group: str, variables: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
    """Convert one group; in a group of draws, add the chain and compare the draws."""
    if not variables:
        raise InputError(
            f"groups['{group}']",
            expected="at least one variable",
            got="none",
            hint="leave the group out",
        )
    arrays = {name: _array(f"groups['{group}']['{name}']", v) for name, v in variables.items()}
    for name in (group, *arrays):
        if not name or "/" in name:
            raise InputError(
                f"groups['{group}']",
                expected="non-empty names without '/'",
                got=f"'{name}'",
                hint="separate parts of a name with '.'",
            )
    if group not in SAMPLE_GROUPS:
        return arrays
    draws = {name: array.shape[:1] for name, array in arrays.items()}
    for name, count in draws.items():
        first = next(iter(draws))
        if count != draws[first] or count in ((), (0,)):
            raise InputError(
                f"groups['{group}']['{name}']",
                expected=f"shape (draw, ...) with as many draws as '{first}' has",
                got=f"shape {arrays[name].shape}",
                hint="put the draws on the leftmost dimension, without a chain dimension",
            )
    return {name: array[None] for name, array in arrays.items()}  # (draw, ...) -> (1, draw, ...)


def _array(what: str, value: Any) -> NDArray[Any]:
    if hasattr(value, "detach"):  # a torch tensor; this module needs no torch
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "biufcU":
        raise InputError(
            what,
            expected="an array of numbers, booleans or strings",
            got=f"dtype {array.dtype}",
            hint="convert it with numpy.asarray(..., dtype=float)",
        )
    return array


def _dataset(
    group: str,
    arrays: Mapping[str, NDArray[Any]],
    dims: Mapping[str, Sequence[str]],
    coords: Mapping[str, ArrayLike],
    attrs: Mapping[str, Any],
) -> Any:
    """Build one `xarray.Dataset` with a label for every dimension."""
    import xarray as xr

    sample = ("chain", "draw") if group in SAMPLE_GROUPS else ()
    sizes: dict[str, int] = {}
    variables = {}
    for name, array in arrays.items():
        inner = array.ndim - len(sample)
        names = (*sample, *dims.get(name, [f"{name}_dim_{i}" for i in range(inner)]))
        what = f"groups['{group}']['{name}']"
        if len(names) != array.ndim or len({name, *names}) != len(names) + 1:
            raise InputError(
                what,
                expected=f"{inner} dimension names, distinct, none the variable's own",
                got=f"dims {tuple(dims.get(name, ()))} for shape {array.shape}",
                hint="name every dimension but chain and draw in dims",
            )
        for dim, size in zip(names, array.shape, strict=True):
            _check_size(what, dim, size, sizes, coords)
        variables[name] = (names, array)
    labels = {dim: np.asarray(coords.get(dim, np.arange(size))) for dim, size in sizes.items()}
    return xr.Dataset(variables, coords=labels, attrs=dict(attrs))


def _check_size(
    what: str, dim: str, size: int, sizes: dict[str, int], coords: Mapping[str, ArrayLike]
) -> None:
    """Compare one dimension with its labels and with the variables before; remember its size."""
    expected = len(np.asarray(coords[dim])) if dim in coords else sizes.get(dim, size)
    if size != expected:
        raise InputError(
            what,
            expected=f"{expected} along '{dim}'",
            got=f"{size}",
            hint=f"check coords['{dim}'] and the variables that share '{dim}'",
        )
    sizes[dim] = size


def _refuse_unused(what: str, given: Mapping[str, Any], known: set[str]) -> None:
    for name in given:
        if name not in known:
            raise InputError(
                what,
                expected=f"names among {sorted(known)}",
                got=f"'{name}'",
                hint="correct the spelling, or remove the entry",
            )
