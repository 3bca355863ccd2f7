"""Does a risk rise with a signal? Mean risk by dose, with intervals and a statement."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_vdn.diagnostics._blocks import block_numbers, check_lengths
from pyro_vdn.diagnostics._checks import CHUNK_ELEMENTS, as_array, check_level
from pyro_vdn.diagnostics.comparison.rank_correlation import Correlation, rank_correlation
from pyro_vdn.errors import InputError
from pyro_vdn.nn.shapes import check_positive

Array = NDArray[np.float64]

TRENDS = ("rises", "falls", "turns", "unclear")
"""What may be said of the risk: see :class:`DoseResponse`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class DoseResponse:
    """Mean risk by dose.

    Args:
        dose: Mean signal in each bin, rising, `(bins,)`.
        risk: Mean risk in each bin, `(bins,)`.
        low: Lower ends of its intervals, each by itself, `(bins,)`.
        high: Upper ends, `(bins,)`.
        count: Observations in each bin, `(bins,)`.
        correlation: Spearman's correlation of signal and risk over all observations, with interval.
        rise: Mean risk in the last bin less that in the first.
        rise_low: Lower end of its interval.
        rise_high: Upper end of it.
        steps_up: Steps from a bin to the next in which the risk is known to rise: at the level of
            the intervals, for all steps together (Bonferroni).
        steps_down: Steps in which it is known to fall.
        trend: ``"rises"`` if the interval of the rise lies above 0 and no step is known to fall,
            ``"falls"`` in the opposite case, ``"turns"`` if steps of both kinds are known, or one
            against the rise from first to last, and ``"unclear"`` otherwise.
        blocks: Number of blocks that were drawn again.

    Example:
        >>> signal = np.arange(300.0)
        >>> found = dose_response(signal, signal**2, bins=3)
        >>> found.trend, found.steps_up, found.count
        ('rises', 2, array([100, 100, 100]))
    """

    dose: Array
    risk: Array
    low: Array
    high: Array
    count: NDArray[np.intp]
    correlation: Correlation
    rise: float
    rise_low: float
    rise_high: float
    steps_up: int
    steps_down: int
    trend: str
    blocks: int

    def __str__(self) -> str:
        """Say what was found in one line."""
        steps = len(self.risk) - 1
        rho = self.correlation
        interval = f"[{self.rise_low:+.4g}, {self.rise_high:+.4g}]"
        return (
            f"mean risk {self.trend}: {self.risk[0]:.4g} to {self.risk[-1]:.4g} over "
            f"{len(self.risk)} bins, {self.rise:+.4g} {interval}; "
            f"{self.steps_up} of {steps} steps are known to rise, {self.steps_down} to fall; "
            f"Spearman {rho.value:.3f} [{rho.low:.3f}, {rho.high:.3f}]"
        )


def dose_response(
    signal: Tensor | ArrayLike,
    risk: Tensor | ArrayLike,
    *,
    bins: int | None = 10,
    blocks: Tensor | ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> DoseResponse:
    """Return the mean risk by bins of a signal, with bootstrap intervals over whole blocks.

    Blocks are drawn again with replacement, with all their observations, and bins stay as they are.
    Where the dose was given, such as a share of corrupted tokens, ``bins=None`` makes each of its
    values a bin; if the same sequences were seen at every dose, give them the same block at each,
    and differences between doses become paired.

    Args:
        signal: The dose, `(observations,)`: a score of each token, or the level of its group.
        risk: What may answer to it, such as the NLL or 1 where the prediction was wrong,
            `(observations,)`.
        bins: Bins of equal mass, by quantiles of the signal; fewer where many are equal. None for
            one bin per value.
        blocks: What each observation is part of, such as ``table["sequence"]``, `(observations,)`;
            without, observations are taken to be independent.
        level: Level of the intervals.
        resamples: How many times the blocks are drawn.
        seed: Seed of these draws.

    Returns:
        Mean risks, intervals, correlation and what can be said of the trend.

    Raises:
        InputError: For lengths that differ, values that are not finite, a signal of one value, or
            fewer than two blocks.

    Example:
        >>> corruption = np.repeat([0.0, 0.05, 0.15], 100)
        >>> risk = corruption + np.tile(np.linspace(0, 1, 100), 3)
        >>> text = np.tile(np.arange(100), 3)
        >>> dose_response(corruption, risk, bins=None, blocks=text).trend
        'rises'

    Source: Davison and Hinkley, *Bootstrap Methods and their Application*, 1997, section 3.8, for
    whole blocks.
    """
    check_level(level)
    check_positive(resamples=resamples)
    dose, response = (
        as_array(name, value, ndim=1, sizes="(observations,)")
        for name, value in (("signal", signal), ("risk", risk))
    )
    check_lengths("risk", response, len(dose))
    members = block_numbers(blocks, len(dose))
    at = _bins(dose, bins)
    count = np.bincount(at)
    means = [np.bincount(at, values) / count for values in (dose, response)]
    drawn = _resample(response, at, members, resamples, seed)
    tails = [100 * (0.5 - level / 2), 100 * (0.5 + level / 2)]
    low, high = np.nanpercentile(drawn, tails, axis=0)
    rise_low, rise_high = np.nanpercentile(drawn[:, -1] - drawn[:, 0], tails)
    up, down = _known_steps(means[1], drawn, level)
    return DoseResponse(
        dose=means[0],
        risk=means[1],
        low=low,
        high=high,
        count=count,
        correlation=rank_correlation(dose, response, blocks=members, level=level),
        rise=float(means[1][-1] - means[1][0]),
        rise_low=float(rise_low),
        rise_high=float(rise_high),
        steps_up=up,
        steps_down=down,
        trend=_trend(float(rise_low), float(rise_high), up, down),
        blocks=int(members.max()) + 1,
    )


def _bins(dose: Array, bins: int | None) -> NDArray[np.intp]:
    """Return the bin of each observation, `(observations,)`, without empty ones."""
    if bins is not None:
        check_positive(bins=bins)
        edges = np.unique(np.quantile(dose, np.arange(1, bins) / bins))
        dose = np.searchsorted(edges, dose, side="left").astype(float)
    at: NDArray[np.intp] = np.unique(dose, return_inverse=True)[1]
    if int(at.max()) == 0:
        raise InputError(
            "signal",
            expected="at least two bins of different values",
            got="one",
            hint="a signal that varies, and bins=2 or more",
        )
    return at


def _resample(
    risk: Array, at: NDArray[np.intp], members: NDArray[np.intp], resamples: int, seed: int
) -> Array:
    """Return mean risks of blocks drawn again, `(resamples, bins)`; NaN for bins without any."""
    bins, blocks = int(at.max()) + 1, int(members.max()) + 1
    if blocks < 2:
        raise InputError(
            "blocks",
            expected="at least two",
            got="one",
            hint="blocks=table['sequence'], or cut one long sequence into several",
        )
    cells = members * bins + at
    # Each block's totals by bin are all that a resample needs: (blocks, 2 * bins)
    totals = np.concatenate(
        [
            np.bincount(cells, values, minlength=blocks * bins).reshape(blocks, bins)
            for values in (risk, np.ones_like(risk))
        ],
        axis=1,
    )
    generator = np.random.default_rng(seed)
    parts = []
    chunk = max(1, CHUNK_ELEMENTS // (4 * blocks))
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        times = np.zeros((rows, blocks))
        for row in times:
            row += np.bincount(generator.integers(blocks, size=blocks), minlength=blocks)
        parts.append(times @ totals)
    sums, counts = np.split(np.concatenate(parts), 2, axis=1)
    means: Array = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return means


def _known_steps(risk: Array, drawn: Array, level: float) -> tuple[int, int]:
    """Return how many steps are known to rise and to fall, all of them together."""
    steps = np.diff(risk)
    error = np.nanstd(np.diff(drawn, axis=1), axis=0)
    bound = NormalDist().inv_cdf(1 - (1 - level) / (2 * len(steps))) * error
    return int((steps > bound).sum()), int((steps < -bound).sum())


def _trend(low: float, high: float, up: int, down: int) -> str:
    if math.isnan(low):
        return "unclear"
    if (up and down) or (low > 0 and down) or (high < 0 and up):
        return "turns"
    if low > 0:
        return "rises"
    return "falls" if high < 0 else "unclear"
