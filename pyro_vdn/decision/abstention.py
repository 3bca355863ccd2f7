"""Accept or abstain: a threshold on uncertainty, chosen on validation cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_vdn.decision._features import named_columns
from pyro_vdn.decision._ordering import Array, ordering, sums
from pyro_vdn.decision.risk_coverage import as_cases, check_coverage
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


@dataclass(frozen=True)
class Threshold:
    """Accept what is at most this uncertain, abstain from the rest.

    Args:
        value: Largest uncertainty that is accepted.
        coverage: Share accepted among the cases it was chosen on.
        risk: Their mean risk.

    Example:
        >>> threshold = Threshold.choose([0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 1.0, 1.0], coverage=0.5)
        >>> threshold.accept([0.15, 0.35])
        array([ True, False])
    """

    value: float
    coverage: float
    risk: float

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
        target's only on average, and a little above it, as the choice fits the noise of these.

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


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")
