"""The largest threshold whose risk on new cases is low enough, with a stated confidence."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyro_vdn.decision._ordering import Array
from pyro_vdn.diagnostics._exact import binomial_cdf
from pyro_vdn.errors import InputError

PILOT = 0.2
"""Share of the cases that propose thresholds, which the others test."""
_CANDIDATES = 50
_ON_THE_BEST = 0.8
"""Share of the error that is first spent on the threshold that looks best in the pilot."""
_MOST_STAKED = 0.95
_DOUBT = 0.02
"""Added to the sum of squares, lest a few equal outcomes look like certainty."""


class Cases(NamedTuple):
    """Cases, the block that each is part of, and the most that a case can cost."""

    score: Array
    loss: Array
    block: NDArray[np.intp]
    largest: float

    def part(self, chosen: NDArray[np.intp]) -> Cases:
        """Return the cases of some blocks, which are numbered as they come in `chosen`."""
        place = np.full(int(self.block.max()) + 1, -1)
        place[chosen] = np.arange(len(chosen))
        held = place[self.block] >= 0
        return Cases(self.score[held], self.loss[held], place[self.block[held]], self.largest)


def certified(cases: Cases, target: float, error: float, seed: int) -> float | None:
    r"""Return the largest threshold that passes, or None.

    A random part of the blocks, the pilot, proposes thresholds; so they do not depend on the cases
    that test them. They are tested from the smallest up, each at the error set aside for it plus
    what the one before passed on, which it does if it passes (the fallback procedure): whatever
    the shape of the risk and the dependence of the tests, the chance that any threshold of too
    high a risk passes is at most `error`.
    """
    shuffled = np.random.default_rng(seed).permutation(int(cases.block.max()) + 1)
    some = max(1, round(PILOT * len(shuffled)))
    pilot, rest = cases.part(shuffled[:some]), cases.part(shuffled[some:])
    thresholds = _candidates(pilot.score)
    shares = _shares(pilot, thresholds, target)
    counted = cases.largest == 1.0 and bool(np.isin(cases.loss, (0.0, 1.0)).all())
    if counted and len(shuffled) == len(cases.loss):
        values = _by_count(rest, thresholds, target)
    else:
        values = _by_bets(pilot, rest, thresholds, target, error)
    passed, carried = None, 0.0
    for threshold, share, p in zip(thresholds, shares, values, strict=True):
        carried += error * share
        if p <= carried:
            passed = float(threshold)
        else:
            carried = 0.0
    return passed


def check_goal(cases: Cases, target: float, confidence: float) -> None:
    """Refuse a confidence outside (0, 1), a target that says nothing, and a bound that fails."""
    if not 0.0 < confidence < 1.0:
        raise InputError(
            "confidence",
            expected="a share strictly between 0 and 1",
            got=repr(confidence),
            hint="write 95 % as 0.95",
        )
    if cases.loss.max() > cases.largest:
        raise InputError(
            "largest",
            expected=f"at least {cases.loss.max():.4g}, the largest risk of these cases",
            got=f"{cases.largest:.4g}",
            hint="the most that a case can ever cost; clip the risk there, as np.minimum(nll, 10)",
        )
    if not math.isfinite(cases.largest):
        raise InputError(
            "largest",
            expected="a finite number",
            got=repr(cases.largest),
            hint="the most that a case can ever cost; clip the risk there, as np.minimum(nll, 10)",
        )
    if not target < cases.largest:
        raise InputError(
            "target_risk",
            expected=f"below {cases.largest:.4g}, the most that a case can cost",
            got=repr(target),
            hint="a target above it needs no evidence",
        )
    if cases.block.max() < 9:
        raise InputError(
            "uncertainty",
            expected="at least 10 cases, or blocks of cases",
            got=str(cases.block.max() + 1),
            hint="some hundreds, to be able to say anything",
        )


def _candidates(score: Array) -> Array:
    """Return thresholds at even coverages of the pilot, rising, the last of them infinite."""
    ordered = np.sort(score)
    ends = np.ceil(np.arange(1, _CANDIDATES) / _CANDIDATES * len(ordered)).astype(int) - 1
    return np.append(np.unique(ordered[ends]), np.inf)


def _shares(pilot: Cases, thresholds: Array, target: float) -> Array:
    """Return the part of the error set aside for each threshold: most for the clearest case."""
    accepted = pilot.score <= thresholds[:, None]  # (thresholds, cases)
    count = accepted.sum(1)
    # Half a costly case more, lest a few cheap ones look like certainty.
    mean = ((pilot.loss * accepted).sum(1) + 0.5 * pilot.largest) / (count + 1.0)
    shares = np.full(len(thresholds), (1.0 - _ON_THE_BEST) / len(thresholds))
    shares[np.argmax((target - mean) * np.sqrt(count))] += _ON_THE_BEST
    return shares


def _by_count(cases: Cases, thresholds: Array, target: float) -> Array:
    """Return p-values of 0/1 risks: the chance of so few errors, were the risk the target."""
    order = np.argsort(cases.score, kind="stable")
    count = np.searchsorted(cases.score[order], thresholds, side="right")
    errors = np.append(0.0, np.cumsum(cases.loss[order]))[count]
    if target <= 0.0:
        return np.ones(len(thresholds))
    return binomial_cdf(errors, count, target)


def _by_bets(pilot: Cases, rest: Cases, thresholds: Array, target: float, error: float) -> Array:
    r"""Return p-values of any bounded risk: one over the most that bets against it have won.

    With :math:`x_b` the sum over block :math:`b` of risk less target of what is accepted, at most
    :math:`c`, a risk of the target or more means :math:`E[x_b] \ge 0`, and then wealth
    :math:`\prod_b (1 - \lambda_b x_b / c)` exceeds :math:`1 / p` with chance `p` at most, as long
    as each stake :math:`\lambda_b < 1` is set before its block is seen (Ville's inequality).
    """
    longest = max(int(np.bincount(part.block).max()) for part in (pilot, rest))
    most = longest * (rest.largest - target)

    def outcomes(part: Cases, threshold: float) -> Array:
        excess = np.where(part.score <= threshold, part.loss - target, 0.0)
        return np.bincount(part.block, excess) / most

    return np.array(
        [_bet(outcomes(pilot, value), outcomes(rest, value), error) for value in thresholds]
    )


def _bet(before: Array, outcomes: Array, error: float) -> float:
    r"""Return one over the largest wealth of a gambler who bets on outcomes below zero.

    The stake :math:`\sqrt{2 \log(1 / \text{error}) / (n \hat\sigma^2)}` suits a mean that
    :math:`n` outcomes can just tell from zero, with the mean square :math:`\hat\sigma^2` of all
    before.
    """
    past = np.square(before).sum() + _DOUBT + np.append(0.0, np.cumsum(np.square(outcomes)[:-1]))
    square = past / (len(before) + np.arange(1.0, len(outcomes) + 1))
    stake = np.sqrt(2.0 * math.log(1.0 / error) / (len(outcomes) * square))
    wealth = np.cumsum(np.log1p(-np.minimum(stake, _MOST_STAKED) * outcomes))
    return math.exp(-max(0.0, float(wealth.max(initial=0.0))))
