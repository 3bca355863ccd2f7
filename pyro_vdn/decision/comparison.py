"""Which uncertainty score finds the risk? Areas under risk-coverage curves, paired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from pyro_vdn.decision._bootstrap import Estimate, bootstrap
from pyro_vdn.decision._ordering import Array, area, ordering, sums
from pyro_vdn.decision.risk_coverage import as_cases
from pyro_vdn.errors import InputError


class ScoreArea(NamedTuple):
    """The area under one score's risk-coverage curve, and how it compares.

    Args:
        aurc: Area under the curve, in the units of the risk.
        e_aurc: The area in excess of that of the best possible order of the same risks.
        difference: The area less that of the reference: below 0, the score is better.
        mean_risk: Mean risk of all cases: the area of a score that knows nothing.

    Example:
        >>> same = Estimate(0.0, 0.0, 0.0)
        >>> ScoreArea(Estimate(0.5, 0.4, 0.6), Estimate(0.2, 0.1, 0.3), same, 0.7).difference
        Estimate(value=0.0, lower=0.0, upper=0.0)
    """

    aurc: Estimate
    e_aurc: Estimate
    difference: Estimate
    mean_risk: float


@dataclass(frozen=True)
class AURCComparison:
    """Areas under the risk-coverage curves of several scores on the same cases.

    Args:
        scores: By name, in the order given.
        reference: The score that the others are compared with.
        mean_risk: Mean risk of all cases, that of the reference where each score has its own.

    Example:
        >>> risk = [0.0, 0.0, 1.0, 1.0]
        >>> found = compare_aurc({"good": [1, 2, 3, 4], "bad": [4, 3, 2, 1]}, risk, resamples=99)
        >>> found["bad"].difference.value
        0.583...
    """

    scores: dict[str, ScoreArea]
    reference: str
    mean_risk: float

    def __getitem__(self, name: str) -> ScoreArea:
        return self.scores[name]


def compare_aurc(
    scores: Mapping[str, Tensor | ArrayLike],
    risk: Tensor | ArrayLike | Mapping[str, Tensor | ArrayLike],
    *,
    reference: str | None = None,
    blocks: Tensor | ArrayLike | None = None,
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> AURCComparison:
    """Compare uncertainty scores by the area under their risk-coverage curves.

    Blocks of cases are drawn with replacement, the same ones for all scores, so that differences
    are paired; intervals are percentiles over the resamples. Each score is sorted once: a resample
    changes only how often its cases count.

    One `risk` for all asks which score puts the same predictions in the best order. A risk by name
    asks which *method* leaves least risk among what it accepts, each with predictions and a score
    of its own: neurons, their twin, an ensemble. An area is then small for good predictions, a good
    order, or both; `mean_risk` and `e_aurc` tell them apart.

    Args:
        scores: Uncertainty by name, larger is less certain, each `(cases,)`.
        risk: Risk of each case, `(cases,)`; or one for each of the scores, by their names, if they
            belong to different predictions of the same cases.
        reference: Name of the score to compare with; the first by default.
        blocks: Labels of blocks that are resampled whole, such as the sequence each token belongs
            to, `(cases,)`; each case by itself where absent, which makes intervals of dependent
            cases too narrow.
        resamples: Number of resamples, at least 2.
        level: Share of the resamples that an interval holds.
        seed: Seed of the resampling. The global random state is neither read nor changed.

    Returns:
        Areas, excess areas and differences, each with its interval.

    Raises:
        InputError: Without scores, for an unknown reference, if names or shapes disagree, a value
            is not finite, or a setting makes no sense.

    Example:
        >>> import torch
        >>> risk = torch.rand(200)
        >>> scores = {"noisy": risk + torch.rand(200), "blind": torch.rand(200)}
        >>> compare_aurc(scores, risk)["blind"].difference.lower > 0
        True
        >>> constant = torch.zeros(200)  # a twin without spread, here with the smaller errors
        >>> risks = {"neurons": risk, "twin": 0.2 * risk}
        >>> found = compare_aurc({"neurons": scores["noisy"], "twin": constant}, risks)
        >>> found["twin"].difference.upper < 0 < found["twin"].e_aurc.lower
        True

    Source: AURC: Geifman, Uziel and El-Yaniv, *Bias-Reduced Uncertainty Estimation for Deep Neural
    Classifiers*, 2019; blocks: Davison and Hinkley, *Bootstrap Methods and their Application*,
    1997, section 3.8.
    """
    against = _reference(scores, reference)
    pairs = _pairs(scores, risk)
    draws = bootstrap(blocks, len(pairs[against][1]), resamples=resamples, level=level, seed=seed)
    ordered = {name: _Areas(*pair) for name, pair in pairs.items()}
    # The best order of one risk for all is the same for all.
    oracle_of = {name: name if isinstance(risk, Mapping) else against for name in scores}
    oracles = {name: _Areas(pairs[name][1], pairs[name][1]) for name in set(oracle_of.values())}
    for weights in draws.weights():
        for areas in (*ordered.values(), *oracles.values()):
            areas.resample(weights)

    def less(areas: _Areas, other: _Areas) -> Estimate:
        return draws.estimate(areas.value - other.value, areas.samples() - other.samples())

    found = {
        name: ScoreArea(
            aurc=draws.estimate(areas.value, areas.samples()),
            e_aurc=less(areas, oracles[oracle_of[name]]),
            difference=less(areas, ordered[against]),
            mean_risk=float(pairs[name][1].mean()),
        )
        for name, areas in ordered.items()
    }
    return AURCComparison(found, against, found[against].mean_risk)


class _Areas:
    """The area of one score, on the data and on every resample."""

    def __init__(self, uncertainty: Array, risk: Array) -> None:
        self.ordered = ordering(uncertainty, risk)
        self.value = float(area(sums(self.ordered)))
        self.resampled: list[Array] = []

    def resample(self, weights: np.ndarray) -> None:
        self.resampled.append(area(sums(self.ordered, weights)))

    def samples(self) -> Array:
        return np.concatenate(self.resampled)


def _pairs(
    scores: Mapping[str, Tensor | ArrayLike],
    risk: Tensor | ArrayLike | Mapping[str, Tensor | ArrayLike],
) -> dict[str, tuple[Array, Array]]:
    """Return the uncertainty and the risk of the same cases, by name."""
    if not isinstance(risk, Mapping):
        return {name: as_cases(values, risk) for name, values in scores.items()}
    if set(risk) != set(scores):
        raise InputError(
            "risk",
            expected=f"the names of the scores, {', '.join(scores)}",
            got=", ".join(str(name) for name in risk) or "none",
            hint="one risk for each score, or one array for all",
        )
    pairs = {name: as_cases(values, risk[name], of=name) for name, values in scores.items()}
    cases = len(next(iter(pairs.values()))[1])
    for name, (_, loss) in pairs.items():
        if len(loss) != cases:
            raise InputError(
                f"risk['{name}']",
                expected=f"{cases} values, as for the first score",
                got=str(len(loss)),
                hint="differences are paired: take all from predictions of the same cases",
            )
    return pairs


def _reference(scores: Mapping[str, Tensor | ArrayLike], reference: str | None) -> str:
    if not scores:
        raise InputError(
            "scores",
            expected="at least one score",
            got="none",
            hint="scores={'entropy': table['entropy']}",
        )
    if reference is None:
        return next(iter(scores))
    if reference not in scores:
        raise InputError(
            "reference",
            expected=f"one of {', '.join(scores)}",
            got=repr(reference),
            hint="name a score that is compared",
        )
    return reference
