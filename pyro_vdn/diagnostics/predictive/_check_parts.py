"""What predictive checks are made of: data, the places they are split into, statistics there."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from torch import Tensor

from pyro_vdn.diagnostics._checks import refuse_where
from pyro_vdn.diagnostics.calibration._labels import Labels, grouped
from pyro_vdn.diagnostics.predictive.check_statistics import CHECK_STATISTICS, OfSeries, Statistic
from pyro_vdn.errors import InputError

Split = Callable[[Tensor], list[Tensor]]
"""From data sets `(sets, *shape)` to blocks `(sets, places, series, time)`."""

Statistics = Mapping[str, str | Statistic | OfSeries] | Sequence[str | Statistic | OfSeries]
"""Ready statistics by name, and functions: in a list, or under names of their own."""

_KINDS = ("all", "group", "horizon", "output", "row")


def common_dtype(draws: Tensor, observed: Tensor) -> torch.dtype:
    """Return the dtype in which statistics of both are taken: equal values must tie.

    That of the more precise of the two, at least float32; counts are float64.
    """
    kinds = [it.dtype if it.is_floating_point() else torch.float64 for it in (draws, observed)]
    return torch.promote_types(torch.promote_types(*kinds), torch.float32)


def check_data(draws: Tensor, observed: Tensor) -> Tensor:
    """Refuse draws that do not fit the data; return where the data are there."""
    if not 1 <= observed.ndim <= 3:
        raise InputError(
            "observed",
            expected="shape (rows,), (rows, outputs) or (rows, time, outputs)",
            got=f"shape {tuple(observed.shape)}",
            hint="y[..., None] of a forecast (rows, steps), y[None, :, None] of one series",
        )
    if draws.ndim == 0 or draws.shape[1:] != observed.shape or len(draws) == 0:
        raise InputError(
            "draws",
            expected=f"shape (draws, *observed.shape) = (draws, {str(tuple(observed.shape))[1:]}",
            got=f"shape {tuple(draws.shape)}",
            hint="put the draws on the leftmost dimension",
        )
    there = ~observed.isnan()
    if not bool(there.any()):
        raise InputError(
            "observed", expected="at least one value", got="none", hint="check the mask"
        )
    refuse_where(observed.isinf(), "observed", observed, "finite values, or NaN where missing")
    refuse_where(~draws.isfinite() & there, "draws", draws, "finite values")
    return there


def split_into(
    shape: Sequence[int], per: str, groups: Labels | None
) -> tuple[tuple[Hashable, ...], Split, bool]:
    """Return the labels of the places that data of a shape have, how to split, whether to series.

    Of labels of rows the splits are series; of finer labels they are values without an order.
    """
    rows, outputs = shape[0], shape[-1] if len(shape) > 1 else 1
    steps = shape[1] if len(shape) == 3 else 1
    _check_per(shape, per, groups)

    def series(sets: Tensor) -> Tensor:  # (sets, *shape) -> (sets, rows, outputs, time)
        return sets.reshape(-1, rows, steps, outputs).transpose(-1, -2)

    if per == "group":
        names, members = grouped(groups, *(tuple(shape[:end]) for end in range(1, len(shape) + 1)))
        own = [members == at for at in range(len(names))]

        def of_rows(sets: Tensor) -> list[Tensor]:
            return [series(sets)[:, it].flatten(1, 2).unsqueeze(1) for it in own]

        def of_values(sets: Tensor) -> list[Tensor]:
            return [sets[:, it].flatten(1)[:, None, None] for it in own]

        by_row = members.ndim == 1
        return names, of_rows if by_row else of_values, by_row and len(shape) == 3
    by_kind: dict[str, tuple[Sequence[Hashable], Callable[[Tensor], Tensor]]] = {
        "all": (("all",), lambda sets: series(sets).flatten(1, 2).unsqueeze(1)),
        "row": (range(rows), series),
        "output": (range(outputs), lambda sets: series(sets).transpose(1, 2)),
        "horizon": (
            range(1, steps + 1),
            lambda sets: series(sets).flatten(1, 2).transpose(1, 2).unsqueeze(-1),
        ),
    }
    places, block = by_kind[per]
    return tuple(places), lambda sets: [block(sets)], len(shape) == 3 and per != "horizon"


def choose(
    statistics: Statistics | None, *, steps: int, zeros: bool
) -> Mapping[str, Statistic | OfSeries]:
    """Return statistics by name, by default those that say something of such data.

    Args:
        statistics: What the user asked for.
        steps: Length of a series in a block, 1 without time.
        zeros: Whether any value is zero.
    """
    if statistics is None:
        chosen = dict(CHECK_STATISTICS)
        if not zeros:
            del chosen["zero_share"]
        if steps < 3:
            chosen = {name: it for name, it in chosen.items() if not isinstance(it, OfSeries)}
    else:
        chosen = _named(statistics)
    if not chosen:
        raise InputError("statistics", expected="at least one", got="none", hint='["mean", "sd"]')
    for name, statistic in chosen.items():
        if isinstance(statistic, OfSeries) and steps == 1:
            raise InputError(
                f"statistic '{name}'",
                expected="series: data of shape (rows, time, outputs), whole or by labels of rows",
                got="values without a time dimension",
                hint="y[..., None] of a forecast (rows, steps), y[None, :, None] of one series",
            )
    return chosen


def taken(name: str, statistic: Statistic | OfSeries, block: Tensor) -> Tensor:
    """Return a statistic of each set and place, `(sets, places, series, time)` to two of them."""
    of_series = isinstance(statistic, OfSeries)
    values = block if of_series else block.flatten(2)
    found = statistic(values)
    if found.shape != values.shape[:-1]:
        raise InputError(
            f"statistic '{name}'",
            expected=f"a function that takes away the last dimension of {tuple(values.shape)}",
            got=f"shape {tuple(found.shape)}",
            hint="reduce over dim=-1: lambda y: y.amax(-1) - y.amin(-1)",
        )
    return found.nanmean(-1) if of_series else found


def _named(statistics: Statistics) -> dict[str, Statistic | OfSeries]:
    """Return what was asked for by name."""
    if isinstance(statistics, Mapping):
        return {name: _looked_up(one) for name, one in statistics.items()}
    chosen: dict[str, Statistic | OfSeries] = {}
    for one in statistics:
        name, found = _name_of(one), _looked_up(one)
        if not name.isidentifier() or chosen.get(name, found) is not found:
            raise InputError(
                "statistics",
                expected="functions with a name of their own where they are in a list",
                got=name,
                hint="name them: {'sd': 'sd', 'range': lambda y: y.amax(-1) - y.amin(-1)}",
            )
        chosen[name] = found
    return chosen


def _name_of(statistic: str | Statistic | OfSeries) -> str:
    if isinstance(statistic, str):
        return statistic
    function = statistic.statistic if isinstance(statistic, OfSeries) else statistic
    return str(getattr(function, "__name__", repr(function)))


def _looked_up(statistic: str | Statistic | OfSeries) -> Statistic | OfSeries:
    if isinstance(statistic, str) and statistic in CHECK_STATISTICS:
        return CHECK_STATISTICS[statistic]
    if isinstance(statistic, str) or not callable(statistic):
        raise InputError(
            "statistics",
            expected=f"functions, or names among {', '.join(CHECK_STATISTICS)}",
            got=repr(statistic),
            hint="functions by name: {'range': lambda y: y.amax(-1) - y.amin(-1)}",
        )
    return statistic


def _check_per(shape: Sequence[int], per: str, groups: Labels | None) -> None:
    if per not in _KINDS:
        raise InputError("per", expected=f"one of {', '.join(_KINDS)}", got=repr(per), hint="'all'")
    if (per == "group") != (groups is not None):
        raise InputError(
            "groups",
            expected="labels exactly if per='group'",
            got=f"{'none' if groups is None else 'labels'} and per={per!r}",
            hint="groups=['winter', 'summer', ...] alone splits by them",
        )
    if per == "horizon" and len(shape) != 3:
        raise InputError(
            "observed",
            expected="shape (rows, time, outputs) to check each step",
            got=f"shape {tuple(shape)}",
            hint="y[..., None] of a forecast (rows, steps)",
        )
