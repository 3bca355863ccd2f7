"""From the record of a layer to plain arrays, one number per unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_vdn.diagnostics._checks import as_array
from pyro_vdn.errors import InputError
from pyro_vdn.poutine import LayerRecord, StreamingMoments

Array = NDArray[np.float64]


class Answer(NamedTuple):
    """How posteriors vary with inputs, each `(units,)`, NaN below two rows."""

    loc_variance: Array
    information: Array
    scale_variation: Array


def answer_of(record: LayerRecord) -> Answer:
    """Summarise how posteriors vary over inputs, latent dimension by latent dimension."""
    units = len(record.kl.mean)
    several = record.latent_loc.count > 0

    def latents(value: Tensor) -> Array:  # (units * latents,) -> (units, latents)
        return plain(value).reshape(units, -1)

    loc = latents((record.latent_loc if several else record.loc).variance)
    variance = latents((record.latent_variance if several else record.variance).mean)
    scale: StreamingMoments = record.latent_scale if several else record.scale
    spread = latents(scale.variance) ** 0.5 / latents(scale.mean)
    information = 0.5 * np.log1p(loc / variance)
    if record.kl.count < 2:  # one input shows nothing of how others are answered
        loc, information, spread = (np.full_like(loc, np.nan) for _ in range(3))
    return Answer(loc.mean(-1), information.sum(-1), spread.mean(-1))


#: Steps from which on a sequence shows whether its units renew themselves.
_LEAST_STEPS = 4


class Memory(NamedTuple):
    """How units with memory renew themselves, each `(units,)`, or None of those without."""

    carried: Array | None
    renewal: Array | None


def memory_of(record: LayerRecord) -> Memory:
    """Summarise what steps take over from those before them."""
    later = record.innovation.count
    sequences = record.kl.count - later
    if later == 0 or sequences <= 0:
        return Memory(None, None)
    second_moment = plain(record.energy_about_prior.mean) + plain(record.variance.mean)
    new = plain(record.innovation.mean) / second_moment
    if later < (_LEAST_STEPS - 1) * sequences:
        return Memory(1.0 - new, np.full_like(new, np.nan))
    return Memory(1.0 - new, later / sequences * new)


def plain(value: Tensor) -> Array:
    """Convert a tensor to float64."""
    return value.detach().cpu().double().numpy()


def finite(value: Tensor) -> Array:
    """Convert a tensor to float64, with NaN for infinity."""
    array = plain(value)
    return np.where(np.isfinite(array), array, np.nan)


def sampling_error(moments: StreamingMoments) -> Array:
    """Return standard errors of means, `(units,)`, NaN below two rows: one row shows no spread."""
    if moments.count < 2:
        return np.full_like(plain(moments.mean), np.nan)
    errors: Array = np.sqrt(plain(moments.variance) / (moments.count - 1))
    return errors


def check_recorded(record: LayerRecord) -> None:
    """Refuse a record of no row."""
    if record.kl.count == 0:
        raise InputError(
            "record",
            expected="at least one recorded row",
            got="none",
            hint="run the guide inside `with record() as seen:`",
        )


def check_random(variance: Array, what: str) -> None:
    """Refuse points: a variance of zero anywhere."""
    if (variance <= 0).any():
        raise InputError(
            "record",
            expected=f"units that are distributions, with a positive variance of {what}",
            got=f"{variance.min():g} at ({int(variance.argmin())},)",
            hint="measure the model itself, not its deterministic twin or one with clamped units",
        )


def of_units(what: str, value: Tensor | ArrayLike, units: int) -> Array:
    """Convert what is given per unit, or as one number for all of them, to `(units,)`."""
    array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    if array.ndim == 0:
        array = np.broadcast_to(array, (units,))
    array = as_array(what, array, ndim=1, sizes="(units,)")
    if len(array) != units:
        raise InputError(
            what,
            expected=f"{units} units, as in the record",
            got=f"{len(array)}",
            hint="pass what belongs to this layer, or one number for all of its units",
        )
    return array


def band_bounds(band: Sequence[Tensor | ArrayLike], units: int) -> tuple[Array, Array]:
    """Return the bounds of every unit, `(units,)` each, given `(low, high, ...)`."""
    if len(band) < 2:
        raise InputError(
            "band", expected="bounds (low, high)", got=f"{len(band)}", hint="band=(0.02, 0.2)"
        )
    low, high = (of_units("band", value, units) for value in band[:2])
    if (low > high).any():
        unit = int((low > high).argmax())
        raise InputError(
            "band",
            expected="a lower bound that is at most the upper one",
            got=f"{low[unit]:g} over {high[unit]:g} at ({unit},)",
            hint="band=(low, high), in this order",
        )
    return low, high
