"""What a policy costs on test cases, and what doing one thing always would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyro_vdn.decision._bootstrap import Bootstrap, Estimate
from pyro_vdn.decision._ordering import Array
from pyro_vdn.decision.costs import Costs, PolicyCases

ALTERNATIVES = {
    "accept": "always accept",
    "draw, accept": "always draw more",
    "fall back": "always fall back",
    "abstain": "always abstain",
}
"""What a policy is compared with, by the path that every case would take."""

ORACLE = "oracle"
"""The cheapest path of each case, known only afterwards."""


class ActionShare(NamedTuple):
    """What became of the cases on one path.

    Args:
        share: Share of the cases.
        risk: Mean risk taken; NaN without cases, and where no answer was given.
        cost: Mean cost; NaN without cases.

    Example:
        >>> ActionShare(0.25, 0.1, 0.12).share
        0.25
    """

    share: float
    risk: float
    cost: float


class Alternative(NamedTuple):
    """What another way would cost on the same cases.

    Args:
        cost: Its mean cost.
        difference: Mean cost of the policy less this one: below 0, the policy is cheaper.

    Example:
        >>> Alternative(Estimate(0.5, 0.4, 0.6), Estimate(-0.1, -0.2, 0.0)).difference.value
        -0.1
    """

    cost: Estimate
    difference: Estimate


@dataclass(frozen=True)
class PolicyReport:
    """Costs of a policy on some cases, in the unit of the risk.

    Args:
        cost: Mean cost of a case.
        actions: What became of the cases, by name among :data:`PATHS`, those on offer.
        alternatives: Mean costs of doing one thing always, where on offer, and of the oracle, which
            knows afterwards what was cheapest; each with its paired difference, the policy less the
            other: below 0, the policy is cheaper.
        cases: Number of cases.
        level: Share of the resamples that each interval holds.

    Example:
        >>> from pyro_vdn.decision import Policy
        >>> cases = PolicyCases([0.1, 0.2, 0.7, 0.9], [0.0, 0.0, 1.0, 1.0])
        >>> policy = Policy.choose(cases, Costs(abstain=0.3))
        >>> report = policy.evaluate(PolicyCases([0.1, 0.3, 0.8, 0.6], [0.1, 0.0, 1.0, 1.0]))
        >>> report.cost.value, report.actions["abstain"].share
        (0.25, 0.75)
        >>> round(report.alternatives["always accept"].difference.value, 3)
        -0.275
    """

    cost: Estimate
    actions: dict[str, ActionShare]
    alternatives: dict[str, Alternative]
    cases: int
    level: float


def policy_report(
    cases: PolicyCases, costs: Costs, path: NDArray[np.str_], draws: Bootstrap
) -> PolicyReport:
    """Return what cases cost that take given paths, one of :data:`PATHS` each, `(cases,)`."""
    offered = cases.path_costs(costs)
    ways = {name: offered[key] for key, name in ALTERNATIVES.items() if key in offered}
    ways[ORACLE] = np.min(list(offered.values()), axis=0)
    means = _Means(draws, np.stack([paid(cases, costs, path), *ways.values()]))
    risks = cases.path_risks()
    return PolicyReport(
        cost=means.of(0),
        actions={name: _share(path == name, risks[name], offered[name]) for name in offered},
        alternatives={
            name: Alternative(means.of(place), means.of(0, place))
            for place, name in enumerate(ways, start=1)
        },
        cases=len(cases),
        level=draws.level,
    )


def paid(cases: PolicyCases, costs: Costs, path: NDArray[np.str_]) -> Array:
    """Return what each case costs on its path, `(cases,)`."""
    offered = cases.path_costs(costs)
    return np.select([path == name for name in offered], list(offered.values()))


class _Means:
    """Means of rows of numbers, on the data and on every resample."""

    def __init__(self, draws: Bootstrap, numbers: Array) -> None:
        self.draws, self.values = draws, numbers.mean(1)
        self.samples = np.concatenate(
            [weights @ numbers.T / weights.sum(1, keepdims=True) for weights in draws.weights()]
        )

    def of(self, place: int, other: int | None = None) -> Estimate:
        """Return the mean of a row, or of its difference to another one."""
        value, samples = float(self.values[place]), self.samples[:, place]
        if other is not None:
            value, samples = value - float(self.values[other]), samples - self.samples[:, other]
        return self.draws.estimate(value, samples)


def _share(taken: NDArray[np.bool_], risk: Array | None, cost: Array) -> ActionShare:
    if not taken.any():
        return ActionShare(0.0, float("nan"), float("nan"))
    mean_risk = float("nan") if risk is None else float(risk[taken].mean())
    return ActionShare(float(taken.mean()), mean_risk, float(cost[taken].mean()))
