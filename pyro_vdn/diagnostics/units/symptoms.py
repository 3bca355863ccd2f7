"""What is wrong with units: one symptom per collapse mode, with its evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyro_vdn.diagnostics.units.statistics import UnitStatistics
from pyro_vdn.errors import InputError


class CollapseMode(str, Enum):
    """What has become of a unit.

    Members after `LIVING` are in order of precedence: a unit with several symptoms is called after
    the first.

    Example:
        >>> CollapseMode("ignored").remedy.startswith("Homeostat or Projection")
        True
    """

    LIVING = "living"
    VARIANCE_BLOW_UP = "variance blow-up"
    FROZEN_IN_TIME = "frozen in time"
    POSTERIOR_COLLAPSE = "posterior collapse"
    ENERGY_BLOW_UP = "energy blow-up"
    DETERMINISTIC_COLLAPSE = "deterministic collapse"
    IGNORED = "ignored"

    def __str__(self) -> str:
        return self.value

    @property
    def remedy(self) -> str:
        """What to try against it; empty for a living unit."""
        return _REMEDIES[self]


_REMEDIES = {
    CollapseMode.LIVING: "",
    CollapseMode.VARIANCE_BLOW_UP: (
        "ScaleGuard with a lower ceiling, a smaller learning rate, or a KL weight nearer 1, since "
        "nothing else holds the scale"
    ),
    CollapseMode.FROZEN_IN_TIME: (
        "a smaller phi with a larger innovation scale, or a hyper-prior that keeps phi off 1; "
        "PersistenceShare, where memory outweighs the data; longer sequences, if this is the pace"
    ),
    CollapseMode.POSTERIOR_COLLAPSE: (
        "Thermostat with a KL range, KL warm-up or FreeBits; a lower EnergyBand with Homeostat or "
        "Projection lifts the location"
    ),
    CollapseMode.ENERGY_BLOW_UP: (
        "EnergyBand with Homeostat (steady) or Projection (at once), or a higher KL weight"
    ),
    CollapseMode.DETERMINISTIC_COLLAPSE: (
        "ScaleGuard with a floor, a higher KL weight by Thermostat, or PACmELBO, under which noise "
        "is free where the data are noisy"
    ),
    CollapseMode.IGNORED: (
        "Homeostat or Projection to rescale the unit so that the readout sees it, a lower KL "
        "weight, or prune the unit"
    ),
}


@dataclass(frozen=True)
class CollapseThresholds:
    r"""Where a unit stops to be called living.

    The defaults are where a standard normal prior makes the case plain, not fits to data:

    Args:
        kl: A unit with less KL, in nats, has collapsed onto its prior. 1e-2 is a location of 0.14
            prior scales, or a scale 10 % off the prior's: too little to carry a signal. (The
            published 1e-4 of `active` is a hundred times more lenient.)
        information: A unit whose location says less about its input, in nats, and whose scale does
            not vary either, has the same posterior for every input: a collapse that pays KL. 1e-3
            is a location that varies by 4.5 % of the posterior's scale.
        scale_variation: Below this relative spread of its scale over inputs, the scale does not
            vary.
        scale_floor: Posterior over prior scale under which a unit is a number and no distribution:
            at 0.05 the scale alone costs 2.5 nats.
        scale_ceiling: Posterior over prior scale above which its variance has blown up: nothing is
            learned from data by being less certain than the prior; at 3 the scale costs 2.9 nats.
        energy: Without a band, `mu2` about the prior's mean over prior variance above which the
            energy has blown up: 10 costs 5 nats for the location alone. (A learned prior may itself
            be far from zero.)
        band_excess: With a band, `mu2` over its upper bound above which the energy has blown up.
        renewal: A unit with memory whose steps after the first bring, in the course of a whole
            sequence, less than this share of its energy anew is frozen in time: it is one number
            per sequence, whatever its later inputs say. Left alone, a unit of half-life `h` renews
            `1.4 / h` of its energy a step, so 0.1 is a half-life of 14 sequences; a slow unit whose
            half-life is anything like the length of a sequence is ten times above it. What an input
            moves counts too, so a unit that follows its input against a stiff prior is not frozen.
            The measure is of whole sequences, hence the same for a signal sampled more finely.
        use: A unit is ignored if its use is shown to be smaller than this on either side, in nats
            per row: :math:`|\text{use}| + 2 \cdot \text{error}` is below it. Nothing that is noisy
            is called ignored; where the noise hides the answer, the unit is *undecided* and the
            report counts it. The error is over rows alone: *surely* is said of other rows, with the
            noise of draws left out.

    Raises:
        InputError: For a threshold that is not positive.

    Example:
        >>> CollapseThresholds(use=1e-4).kl
        0.01
    """

    kl: float = 1e-2
    information: float = 1e-3
    scale_variation: float = 1e-2
    scale_floor: float = 0.05
    scale_ceiling: float = 3.0
    energy: float = 10.0
    band_excess: float = 4.0
    renewal: float = 0.1
    use: float = 1e-3

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not value > 0:
                raise InputError(
                    item.name,
                    expected="a positive threshold",
                    got=repr(value),
                    hint=f"{item.name}={item.default}",
                )


class Symptom(NamedTuple):
    """A symptom, looked for in every unit of a layer.

    Args:
        present: Which units have it, `(units,)`.
        evidence: From a unit's index to a short sentence with its number and the threshold.

    Example:
        >>> Symptom(np.array([True]), lambda unit: "too loud").evidence(0)
        'too loud'
    """

    present: NDArray[np.bool_]
    evidence: Callable[[int], str]


def symptoms(
    statistics: UnitStatistics, thresholds: CollapseThresholds
) -> dict[CollapseMode, Symptom]:
    """Look for every symptom, in order of precedence.

    Args:
        statistics: Statistics of a layer's units.
        thresholds: Where a symptom begins.

    Returns:
        Symptoms by the mode that they make. Without a measured use, none is ignored.
    """
    return {mode: look(statistics, thresholds) for mode, look in _LOOKS.items()}


def undecided(statistics: UnitStatistics, thresholds: CollapseThresholds) -> NDArray[np.bool_]:
    """Say of which units the use is too noisy to tell it from none, `(units,)`."""
    if statistics.use is None or statistics.use_error is None:
        return np.zeros(len(statistics.kl), dtype=bool)
    size, noise = np.abs(statistics.use), 2.0 * statistics.use_error
    within = (size - noise < thresholds.use) & (size + noise >= thresholds.use)
    return within | np.isnan(noise)  # one row says nothing


def same_for_every_input(s: UnitStatistics, t: CollapseThresholds) -> NDArray[np.bool_]:
    """Say which units have one posterior, whatever their input, `(units,)`; two rows can tell."""
    return (s.rows > 1) & (s.information < t.information) & (s.scale_variation < t.scale_variation)


def _variance_blow_up(s: UnitStatistics, t: CollapseThresholds) -> Symptom:
    ratio = s.scale / s.prior_scale
    return Symptom(
        ratio > t.scale_ceiling,
        lambda i: f"scale {ratio[i]:.3g} times the prior's, above {t.scale_ceiling:g}",
    )


def _frozen_in_time(s: UnitStatistics, t: CollapseThresholds) -> Symptom:
    if s.renewal is None:
        return Symptom(np.zeros(len(s.kl), dtype=bool), lambda i: "")
    renewal = s.renewal
    return Symptom(
        renewal < t.renewal,
        lambda i: f"renews {renewal[i]:.2g} of its energy over a sequence, under {t.renewal:g}",
    )


def _posterior_collapse(s: UnitStatistics, t: CollapseThresholds) -> Symptom:
    silent, same = s.kl < t.kl, same_for_every_input(s, t)

    def evidence(i: int) -> str:
        if silent[i]:
            return f"KL {s.kl[i]:.2g} nats, under {t.kl:g}"
        return (
            f"same posterior for every input: information {s.information[i]:.2g} nats, under "
            f"{t.information:g}, at a KL of {s.kl[i]:.3g}"
        )

    return Symptom(silent | same, evidence)


def _energy_blow_up(s: UnitStatistics, t: CollapseThresholds) -> Symptom:
    if s.band_high is not None:
        high = s.band_high
        excess = s.mu2 / np.maximum(high, np.finfo(np.float64).tiny)
        return Symptom(
            excess > t.band_excess,
            lambda i: (
                f"mu2 {s.mu2[i]:.3g}, {excess[i]:.3g} times its band's {high[i]:.3g}, above "
                f"{t.band_excess:g}"
            ),
        )
    ratio = s.mu2_about_prior / s.prior_scale**2
    return Symptom(
        ratio > t.energy,
        lambda i: (
            f"mu2 {s.mu2_about_prior[i]:.3g} about the prior's mean, {ratio[i]:.3g} times the "
            f"prior's variance, above {t.energy:g}"
        ),
    )


def _deterministic_collapse(s: UnitStatistics, t: CollapseThresholds) -> Symptom:
    ratio = s.scale / s.prior_scale
    return Symptom(
        ratio < t.scale_floor,
        lambda i: f"scale {ratio[i]:.2g} of the prior's, under {t.scale_floor:g}",
    )


def _ignored(s: UnitStatistics, t: CollapseThresholds) -> Symptom:
    if s.use is None or s.use_error is None:
        return Symptom(np.zeros(len(s.kl), dtype=bool), lambda i: "")
    use, error = s.use, s.use_error
    most = np.abs(use) + 2.0 * error
    return Symptom(
        most < t.use,
        lambda i: f"use {use[i]:.1g} ± {error[i]:.1g} nats a row, surely under {t.use:g}",
    )


# What memory has frozen also says little per step and may hardly be random: it comes before these.
_LOOKS: dict[CollapseMode, Callable[[UnitStatistics, CollapseThresholds], Symptom]] = {
    CollapseMode.VARIANCE_BLOW_UP: _variance_blow_up,
    CollapseMode.FROZEN_IN_TIME: _frozen_in_time,
    CollapseMode.POSTERIOR_COLLAPSE: _posterior_collapse,
    CollapseMode.ENERGY_BLOW_UP: _energy_blow_up,
    CollapseMode.DETERMINISTIC_COLLAPSE: _deterministic_collapse,
    CollapseMode.IGNORED: _ignored,
}
