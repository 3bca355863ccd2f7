"""What an export is to hold: data, groups, rows and units, checked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vdn.diagnostics._rows import Batches, Rows
from pyro_vdn.diagnostics.export._dimensions import Schema
from pyro_vdn.errors import InputError

Program = Callable[..., Any]

#: Groups of an export, in the order in which they are stored.
EXPORT_GROUPS = (
    "posterior",
    "posterior_predictive",
    "prior",
    "prior_predictive",
    "log_likelihood",
    "predictive_density",
    "observed_data",
    "constant_data",
    "unit_stats",
    "layer_stats",
)
OF_TARGETS = frozenset({"log_likelihood", "predictive_density", "observed_data"})
OF_PRIOR = frozenset({"prior", "prior_predictive"})
OF_UNITS = frozenset({"unit_stats", "layer_stats"})


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be drawn, of which rows and units.

    Args:
        model: The program.
        guide: Its guide.
        inputs: Inputs, each `(rows, ...)`.
        y: Targets with a dimension of outputs, or None.
        schema: Names of the dimensions.
        num_samples: Number of draws.
        batch_size: Most rows at once.
        seed: Seed of all draws.
        site: Name of the outcome's site.
        rows: Rows of which latent sites are stored, `(chosen,)`; None for all.
        units: Units that are stored, by layer path; None for all of a layer.

    Example:
        >>> "posterior" in EXPORT_GROUPS
        True
    """

    model: Program
    guide: Program
    inputs: tuple[Tensor, ...]
    y: Tensor | None
    schema: Schema
    num_samples: int
    batch_size: int
    seed: int
    site: str
    rows: Tensor | None
    units: dict[str, Tensor | None]

    @property
    def total(self) -> int:
        """Number of rows."""
        return len(self.inputs[0])


def read_data(data: Batches, *, missing_allowed: bool) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Return inputs and targets of all rows.

    Args:
        data: Targets after inputs, `(x, y)` or `(x_0, x_1, y)`, None for no targets; inputs alone;
            or batches of either.
        missing_allowed: Whether NaN stands for what is missing.

    Raises:
        InputError: For other data, a list of tensors of equal length, which may be either, unequal
            or no rows, or values that are not finite.
    """
    _refuse_list_of_tensors(data)
    if isinstance(data, tuple) and len(data) > 1 and data[-1] is None:
        data = [data]
    batches = list(Rows(data, targets=False, missing_allowed=missing_allowed))
    if not batches:
        raise InputError("data", expected="at least one row", got="none", hint="check the loader")
    if isinstance(data, (tuple, Tensor)):  # checked in slices, and taken as it is
        whole = (data,) if isinstance(data, Tensor) else data
        return (whole, None) if len(whole) == 1 else (whole[:-1], whole[-1])
    *inputs, targets = zip(*batches, strict=True)
    y = None if any(target is None for target in targets) else torch.cat(targets)
    return tuple(torch.cat(values) for values in inputs), y


def _refuse_list_of_tensors(data: Batches) -> None:
    """Refuse `[x, y]`, which as a list of batches would put targets below inputs."""
    if not isinstance(data, list) or len(data) < 2:
        return
    if all(isinstance(v, Tensor) and v.dim() and len(v) == len(data[0]) for v in data):
        raise InputError(
            "data",
            expected="a tuple (x, y), or batches",
            got=f"a list of {len(data)} tensors of {len(data[0])} rows each",
            hint="to_arviz(model, guide, (x, y)); batches of inputs alone are [(x_0,), (x_1,)]",
        )


def read_groups(groups: Collection[str] | None, *, absent: Mapping[str, str]) -> tuple[str, ...]:
    """Return the groups to store, in order.

    Args:
        groups: Those asked for; None for all there are, `predictive_density` aside.
        absent: Groups there are not, with the reason.

    Raises:
        InputError: For an unknown group, or one there is not.
    """
    if groups is None:
        return tuple(g for g in EXPORT_GROUPS if g not in absent and g != "predictive_density")
    if isinstance(groups, str):
        groups = (groups,)
    for group in groups:
        if group not in EXPORT_GROUPS or group in absent:
            why = f" ({absent[group]})" if group in absent else ""
            raise InputError(
                "groups",
                expected=f"some of {[name for name in EXPORT_GROUPS if name not in absent]}",
                got=f"{group!r}{why}",
                hint="leave groups out for all there are",
            )
    return tuple(group for group in EXPORT_GROUPS if group in groups)


def read_rows(rows: Sequence[int] | Tensor | None, total: int) -> Tensor | None:
    """Return chosen rows, `(chosen,)`, or None for all.

    Args:
        rows: Different row numbers, counted from 0.
        total: Number of rows.

    Raises:
        InputError: For numbers that are none of a row, or twice the same.
    """
    return None if rows is None else _checked("rows", rows, total)


def read_units(
    units: Mapping[str, Sequence[int] | None] | Sequence[int] | None, schema: Schema
) -> dict[str, Tensor | None]:
    """Return chosen units by layer path, None for all of a layer.

    Args:
        units: By layer path, unit numbers or None for all; of a single layer, its unit numbers;
            None for all of all layers.
        schema: Names and sizes of layers.

    Raises:
        InputError: For a layer that does not run, or numbers that are none of a unit.
    """
    layers = schema.layers
    if units is None:
        return dict.fromkeys(layers)
    if not isinstance(units, Mapping):
        if len(layers) != 1:
            raise InputError(
                "units",
                expected=f"units by layer path, one or more of {list(layers)}",
                got=repr(list(units)),
                hint=f"units={{{next(iter(layers), 'neurons')!r}: [0, 1]}}",
            )
        units = {next(iter(layers)): units}
    for path in units:
        if path not in layers:
            raise InputError(
                "units",
                expected=f"layers that run: {list(layers)}",
                got=repr(path),
                hint="a layer is named by its attribute path, its site without the `.z`",
            )
    return {
        path: None
        if units[path] is None
        else _checked(f"units[{path!r}]", units[path], layers[path].num_units)
        for path in layers
        if path in units
    }


def _checked(what: str, chosen: Any, count: int) -> Tensor:
    numbers = torch.as_tensor(chosen if isinstance(chosen, Tensor) else list(chosen))
    fits = numbers.dim() == 1 and len(numbers) > 0 and not numbers.is_floating_point()
    if fits and numbers.dtype != torch.bool:
        inside = (numbers >= 0) & (numbers < count)
        if bool(inside.all()) and len(set(numbers.tolist())) == len(numbers):
            return numbers.long().cpu()
    raise InputError(
        what,
        expected=f"different integers in 0 to {count - 1}",
        got=repr(numbers.tolist()),
        hint="[0, 1], counted from 0",
    )
