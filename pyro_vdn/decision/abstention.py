"""Accept or abstain: a threshold on uncertainty, chosen on validation cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_vdn.decision._certify import Cases, certified, check_goal
from pyro_vdn.decision._features import named_columns
from pyro_vdn.decision._ordering import Array, ordering, sums
from pyro_vdn.decision.risk_coverage import as_cases, check_coverage
from pyro_vdn.diagnostics._blocks import block_numbers
from pyro_vdn.diagnostics._checks import as_array
from pyro_vdn.errors import InputError


class Acceptance(NamedTuple):
    """What a threshold does on some cases.

    Args:
        coverage: Share of the cases that are accepted.
        risk: Mean risk of the accepted cases; NaN if there are none.
        abstained_risk: Mean risk of the others; NaN if there are none.
        mean_risk: Mean risk of all cases.

    Example:
        >>> Threshold(0.5, 0.5, 0.0).report([0.1, 0.2, 0.9, 0.8], [0.0, 0.0, 1.0, 0.0])
        Acceptance(coverage=0.5, risk=0.0, abstained_risk=0.5, mean_risk=0.25)
    """

    coverage: float
    risk: float
    abstained_risk: float
    mean_risk: float


class Certificate(NamedTuple):
    """What may be said of a threshold's risk on new cases: at most the target.

    Args:
        target_risk: The risk, in its units.
        confidence: Chance that a threshold chosen in this way keeps to it, at least.

    Example:
        >>> Certificate(0.05, 0.95).target_risk
        0.05
    """

    target_risk: float
    confidence: float


@dataclass(frozen=True)
class Threshold:
    """Accept what is at most this uncertain, abstain from the rest.

    Args:
        value: Largest uncertainty that is accepted.
        coverage: Share accepted among the cases it was chosen on.
        risk: Their mean risk.
        certificate: What holds for new cases, if the threshold is from :meth:`certify`.

    Example:
        >>> threshold = Threshold.choose([0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 1.0, 1.0], coverage=0.5)
        >>> threshold.accept([0.15, 0.35])
        array([ True, False])
    """

    value: float
    coverage: float
    risk: float
    certificate: Certificate | None = None

    @classmethod
    def choose(
        cls,
        uncertainty: Tensor | ArrayLike,
        risk: Tensor | ArrayLike,
        *,
        target_risk: float | None = None,
        coverage: float | None = None,
    ) -> Threshold:
        """Choose a threshold on validation cases, by the risk or by the coverage wanted.

        Equally uncertain cases are accepted together or not at all. The risk on new cases is the
        target's only on average, and a little above it, as the choice fits the noise of these;
        :meth:`certify` keeps to it.

        Args:
            uncertainty: One score per case, larger is less certain, `(cases,)`.
            risk: Risk of each case, `(cases,)`.
            target_risk: Accept as many cases as possible with at most this mean risk.
            coverage: Or accept this share of the cases at least, in (0, 1], and no more than
                needed.

        Returns:
            The threshold with its coverage and risk on these cases.

        Raises:
            InputError: If not exactly one goal is given, no threshold reaches the risk, the share
                lies outside (0, 1], shapes disagree, or a value is not finite.
        """
        score, loss = as_cases(uncertainty, risk)
        ordered = ordering(score, loss)
        total = sums(ordered)
        count, selective = total.cases[1:], total.risk[1:] / total.cases[1:]
        reached = _reached(count, selective, target_risk, coverage)
        return cls(
            value=float(score[ordered.order[count[reached] - 1]]),
            coverage=float(count[reached] / len(score)),
            risk=float(selective[reached]),
        )

    @classmethod
    def certify(
        cls,
        uncertainty: Tensor | ArrayLike,
        risk: Tensor | ArrayLike,
        *,
        target_risk: float,
        confidence: float = 0.95,
        largest: float | None = None,
        blocks: Tensor | ArrayLike | None = None,
        seed: int = 0,
    ) -> Threshold:
        r"""Choose a threshold whose risk on new cases is at most the target, with a confidence.

        .. math:: P\big(E[\ell \mid u \le \hat t\,] \le \text{target}\big)
            \ge \text{confidence}

        over the drawing of these cases, whatever their distribution, as long as new ones come from
        the same. A fifth of them, at random, proposes 50 thresholds, and the others test these from
        the smallest up, so that the choice does not spoil the tests: risks of 0 and 1 by the exact
        binomial tail, others, and blocks, by a bet against too high a risk (Ville's inequality).

        Args:
            uncertainty: One score per case, larger is less certain, `(cases,)`.
            risk: Risk of each case, `(cases,)`.
            target_risk: Largest mean risk of accepted cases that is tolerated.
            confidence: Chance of keeping to it, at least, in (0, 1).
            largest: The most that any case can cost; 1 by default if all risks are 0 or 1, and
                needed otherwise. There is no least, so that log-likelihoods need a clip on one side
                only.
            blocks: Labels of blocks that are independent of each other while their cases are not,
                such as the sequence each token belongs to, `(cases,)`. No block to come may be
                longer than the longest of these. Without, every case is by itself, which promises
                too much for cases that depend on each other.
            seed: Seed of the split. The global random state is neither read nor changed.

        Returns:
            The threshold, infinite where everything may be accepted, with its coverage and risk on
            these cases and its certificate.

        Raises:
            InputError: If no threshold passes, a setting makes no sense, a risk exceeds the
                largest, shapes disagree, or a value is not finite.

        Example:
            >>> u, noise = np.random.default_rng(0).uniform(size=(2, 2000))
            >>> threshold = Threshold.certify(u, noise < 0.5 * u**2, target_risk=0.05)
            >>> bool(threshold.value**2 / 6 <= 0.05)  # the true risk of what it accepts
            True

        Source: selection with guaranteed risk: Geifman and El-Yaniv, *Selective Classification for
        Deep Neural Networks*, 2017; testing thresholds in order: Angelopoulos, Bates, Candes,
        Jordan and Lei, *Learn then Test*, 2021; passing errors on: Wiens, *A fixed sequence
        Bonferroni procedure*, 2003; bets: Waudby-Smith and Ramdas, *Estimating means of bounded
        random variables by betting*, 2024.
        """
        score, loss = as_cases(uncertainty, risk)
        cases = Cases(score, loss, block_numbers(blocks, len(loss), least=2), _most(loss, largest))
        check_goal(cases, target_risk, confidence)
        value = certified(cases, target_risk, 1.0 - confidence, seed)
        if value is None:
            raise InputError(
                "target_risk",
                expected=f"one that {len(loss)} cases can vouch for with {confidence:.4g}",
                got=f"{target_risk!r}, which no threshold passes",
                hint="take more cases, tolerate more risk, or order them by a better score",
            )
        accepted = score <= value
        return cls(
            value=value,
            coverage=float(accepted.mean()),
            risk=_mean(loss[accepted]),
            certificate=Certificate(target_risk, confidence),
        )

    def accept(self, uncertainty: Tensor | ArrayLike) -> NDArray[np.bool_]:
        """Return which cases are accepted, `(cases,)`.

        Raises:
            InputError: If a value is not finite.
        """
        score = as_array("uncertainty", uncertainty, ndim=1, sizes="(cases,)")
        return score <= self.value

    def report(self, uncertainty: Tensor | ArrayLike, risk: Tensor | ArrayLike) -> Acceptance:
        """Return coverage and risk on other cases, such as the test's.

        Args:
            uncertainty: One score per case, `(cases,)`.
            risk: Risk of each case, `(cases,)`.

        Raises:
            InputError: If shapes disagree or a value is not finite.
        """
        score, loss = as_cases(uncertainty, risk)
        accepted = score <= self.value
        return Acceptance(
            coverage=float(accepted.mean()),
            risk=_mean(loss[accepted]),
            abstained_risk=_mean(loss[~accepted]),
            mean_risk=_mean(loss),
        )


def action_score(features: Mapping[str, Tensor | ArrayLike], weights: Mapping[str, float]) -> Array:
    r"""Return the published uncertainty to act on, a weighted sum of internal scores.

    .. math:: u(x) = a \, \mathrm{KL}(x) + b \, \sigma(x) + c \, \mathrm{MI}(x)

    with weights set by hand; :class:`pyro_vdn.decision.Combination` fits them.

    Args:
        features: Scores by name, each `(cases,)`.
        weights: Weight by name, in units of one over the score's.

    Returns:
        The sum, `(cases,)`.

    Raises:
        InputError: Without weights, if a weighted score is missing, shapes disagree, or a value is
            not finite.

    Example:
        >>> scores = {"kl": [1.0, 2.0], "scale": [0.5, 0.5], "mutual_information": [0.0, 0.1]}
        >>> action_score(scores, {"kl": 1.0, "scale": 2.0, "mutual_information": 10.0})
        array([2., 4.])

    Source: Ruffenach, *Agentic Control in Variational Language Models*, arXiv:2604.12513 (2026).
    """
    columns = named_columns(features, tuple(weights))
    total: Array = columns @ np.array(list(weights.values()))
    return total


def _reached(
    count: NDArray[np.int64], selective: Array, target_risk: float | None, coverage: float | None
) -> int:
    """Return which group of equally uncertain cases is the last to be accepted."""
    if target_risk is None and coverage is not None:
        check_coverage(coverage)
        return int(np.searchsorted(count, coverage * count[-1] - 1e-9))
    if target_risk is None or coverage is not None:
        raise InputError(
            "target_risk, coverage",
            expected="exactly one of the two",
            got="none" if coverage is None else "both",
            hint="coverage=0.8 accepts four cases in five",
        )
    low_enough = np.flatnonzero(selective <= target_risk)
    if not len(low_enough):
        raise InputError(
            "target_risk",
            expected=f"at least {selective.min():.4g}, the lowest that a threshold reaches",
            got=repr(target_risk),
            hint="tolerate more risk, or order the cases by a better score",
        )
    return int(low_enough[-1])


def _most(loss: Array, largest: float | None) -> float:
    """Return the most that a case can cost, which 0/1 risks say themselves."""
    if largest is not None:
        return float(largest)
    if not np.isin(loss, (0.0, 1.0)).all():
        raise InputError(
            "largest",
            expected="the most that a case can ever cost, as not all risks are 0 or 1",
            got="None",
            hint="clip the risk and say where: risk=np.minimum(nll, 10), largest=10",
        )
    return 1.0


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")
