"""Risk-coverage: how much risk is left if only the least uncertain cases are accepted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from pyro_vdn.decision._bootstrap import Bootstrap, Estimate, bootstrap
from pyro_vdn.decision._ordering import Array, Ordering, Sums, area, ordering, risk_at, sums
from pyro_vdn.diagnostics._checks import as_array
from pyro_vdn.errors import InputError


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """A risk-coverage curve, with the areas under it and under the best possible one.

    Args:
        coverage: Accepted shares of the cases, rising to 1, `(points,)`.
        risk: Mean risk of the accepted cases, in the units of the risk, `(points,)`.
        threshold: Largest accepted uncertainty at each coverage, `(points,)`.
        aurc: Area under the curve, see :func:`aurc`; from all cases, whatever the points.
        oracle: The same area if cases were ordered by their risk itself.
        lower: Lower end of the bootstrap interval of `risk` at each coverage, `(points,)`, if
            asked for.
        upper: Upper end, likewise.
        level: Share of the resamples that the interval holds.
        interval: `aurc` with its bootstrap interval, if asked for.

    Example:
        >>> curve = risk_coverage([0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 1.0, 1.0])
        >>> curve.risk[[1, 3]]
        array([0. , 0.5])
        >>> curve.selective_risk_at(0.75), curve.coverage_at(0.4)
        (0.333..., 0.75)
    """

    coverage: Array
    risk: Array
    threshold: Array
    aurc: float
    oracle: float
    lower: Array | None = None
    upper: Array | None = None
    level: float | None = None
    interval: Estimate | None = None

    @property
    def e_aurc(self) -> float:
        """Area in excess of the best possible order, in the units of the risk."""
        return self.aurc - self.oracle

    def selective_risk_at(self, coverage: float) -> float:
        """Return the mean risk of the least uncertain `coverage` of the cases.

        Args:
            coverage: Accepted share, in (0, 1]; interpolated between the points of the curve.

        Returns:
            Mean risk, in the units of the risk.

        Raises:
            InputError: If the share lies outside (0, 1].
        """
        check_coverage(coverage)
        return float(np.interp(coverage, self.coverage, self.risk))

    def coverage_at(self, risk: float) -> float:
        """Return the largest coverage on the curve whose mean risk is at most `risk`.

        Args:
            risk: Largest mean risk that is tolerated, in the units of the risk.

        Returns:
            Coverage, 0 where no point of the curve is low enough.
        """
        low_enough = np.flatnonzero(self.risk <= risk)
        return float(self.coverage[low_enough[-1]]) if len(low_enough) else 0.0


def risk_coverage(
    uncertainty: Tensor | ArrayLike,
    risk: Tensor | ArrayLike,
    *,
    points: int | None = None,
    blocks: Tensor | ArrayLike | None = None,
    resamples: int = 0,
    level: float = 0.95,
    seed: int = 0,
) -> RiskCoverage:
    r"""Accept the least uncertain cases first; return the mean risk of what is accepted.

    .. math:: r(k / n) = \frac{1}{k} \sum_{j \le k} \ell_{(j)}

    with :math:`\ell_{(j)}` the risk of the :math:`j`-th least uncertain case. Equally uncertain
    cases come in random order, and the curve is the expectation over it.

    Args:
        uncertainty: One score per case, larger is less certain, `(cases,)`. Only its order counts.
        risk: What accepting the case costs: its negative log-likelihood in nats, or 0 and 1 for
            right and wrong, `(cases,)`.
        points: Number of coverages, evenly spaced up to 1; one per case by default.
        blocks: Labels of blocks that are resampled whole, such as the sequence each token belongs
            to, `(cases,)`; each case by itself where absent, which makes intervals of dependent
            cases too narrow.
        resamples: Resamples behind the intervals; none by default.
        level: Share of the resamples that each interval holds: that of the risk at each coverage by
            itself, and that of the area.
        seed: Seed of the resampling. The global random state is neither read nor changed.

    Returns:
        The curve.

    Raises:
        InputError: If shapes disagree, a value is not finite, or a setting makes no sense.

    Example:
        >>> risk_coverage([0.3, 0.1, 0.1], [2.0, 1.0, 0.0]).risk  # the two first in any order
        array([0.5, 0.5, 1. ])
        >>> risk_coverage([1, 2, 3], [0.3, 0.3, 0.3], resamples=9).interval.value  # the area's
        0.3

    Source: El-Yaniv and Wiener, *On the Foundations of Noise-free Selective Classification*, 2010;
    Geifman and El-Yaniv, *Selective Classification for Deep Neural Networks*, 2017.
    """
    score, loss = as_cases(uncertainty, risk)
    count = len(score) if points is None else points
    _check_counts(count, resamples)
    ordered = ordering(score, loss)
    total = sums(ordered)
    share = np.arange(1, count + 1) / count
    under = float(area(total))
    lower = upper = interval = None
    if resamples:
        draws = bootstrap(blocks, len(score), resamples=resamples, level=level, seed=seed)
        lower, upper, interval = _intervals(ordered, share, under, draws)
    last = np.minimum(np.ceil(share * len(score) - 1e-9).astype(int), len(score)) - 1
    return RiskCoverage(
        coverage=share,
        risk=risk_at(total, share),
        threshold=score[ordered.order][last],
        aurc=under,
        oracle=float(area(sums(ordering(loss, loss)))),
        lower=lower,
        upper=upper,
        level=level if resamples else None,
        interval=interval,
    )


def aurc(uncertainty: Tensor | ArrayLike, risk: Tensor | ArrayLike) -> float:
    r"""Return the area under the risk-coverage curve: the mean selective risk over all coverages.

    .. math:: \text{AURC} = \frac{1}{n} \sum_{k=1}^{n} \frac{1}{k} \sum_{j \le k} \ell_{(j)}

    in expectation over the order of equally uncertain cases. Lower is better; an uninformative
    score has the mean risk.

    Args:
        uncertainty: One score per case, larger is less certain, `(cases,)`.
        risk: Risk of each case, `(cases,)`.

    Returns:
        The area, in the units of the risk.

    Raises:
        InputError: If shapes disagree or a value is not finite.

    Example:
        >>> aurc([1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 0.0, 1.0])
        0.5
        >>> aurc([0.1, 0.9, 0.2, 0.8], [0.0, 1.0, 0.0, 1.0])  # (0 + 0 + 1/3 + 1/2) / 4
        0.208...

    Source: Geifman, Uziel and El-Yaniv, *Bias-Reduced Uncertainty Estimation for Deep Neural
    Classifiers*, 2019.
    """
    return float(area(sums(ordering(*as_cases(uncertainty, risk)))))


def e_aurc(uncertainty: Tensor | ArrayLike, risk: Tensor | ArrayLike) -> float:
    r"""Return the area under the risk-coverage curve in excess of the best possible order.

    .. math:: \text{E-AURC} = \text{AURC}(u, \ell) - \text{AURC}(\ell, \ell)

    Args:
        uncertainty: One score per case, larger is less certain, `(cases,)`.
        risk: Risk of each case, `(cases,)`.

    Returns:
        The excess, in the units of the risk, at least 0.

    Raises:
        InputError: If shapes disagree or a value is not finite.

    Example:
        >>> e_aurc([0.1, 0.9, 0.2, 0.8], [0.0, 1.0, 0.0, 1.0])
        0.0

    Source: Geifman, Uziel and El-Yaniv 2019.
    """
    score, loss = as_cases(uncertainty, risk)
    return float(area(sums(ordering(score, loss))) - area(sums(ordering(loss, loss))))


def as_cases(
    uncertainty: Tensor | ArrayLike, risk: Tensor | ArrayLike, *, of: str | None = None
) -> tuple[Array, Array]:
    """Return finite float64 arrays of the same cases; `of` names them among several in errors."""
    which = "" if of is None else f"['{of}']"
    score = as_array(f"uncertainty{which}", uncertainty, ndim=1, sizes="(cases,)")
    loss = as_array(f"risk{which}", risk, ndim=1, sizes="(cases,)")
    if len(score) != len(loss):
        raise InputError(
            f"risk{which}",
            expected=f"{len(score)} values, one per case as in uncertainty",
            got=f"{len(loss)}",
            hint="take both from the same tokens",
        )
    return score, loss


def check_coverage(coverage: float) -> None:
    """Refuse a share of accepted cases outside (0, 1]."""
    if not 0.0 < coverage <= 1.0:
        raise InputError(
            "coverage",
            expected="a share above 0 and at most 1",
            got=repr(coverage),
            hint="write 80 % as 0.8",
        )


def _check_counts(points: int, resamples: int) -> None:
    if points < 1:
        raise InputError("points", expected="at least 1", got=str(points), hint="try 100")
    if resamples < 0:
        raise InputError(
            "resamples", expected="0 for none, or at least 2", got=str(resamples), hint="try 200"
        )


def _intervals(
    ordered: Ordering, share: Array, under: float, draws: Bootstrap
) -> tuple[Array, Array, Estimate]:
    """Return the ends of the risk at each share, `(points,)`, and the area with its interval."""
    rows: list[Array] = []
    areas: list[Array] = []
    for total in (sums(ordered, weights) for weights in draws.weights()):
        areas.append(area(total))
        pairs = zip(total.cases, total.risk, strict=True)
        rows.extend(risk_at(Sums(cases, risk), share) for cases, risk in pairs)
    lower, upper = draws.interval(np.stack(rows))
    return lower, upper, draws.estimate(under, np.concatenate(areas))
