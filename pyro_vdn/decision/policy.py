"""Accept, draw more, fall back or abstain: thresholds that cost least on validation cases."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_vdn.decision._bootstrap import bootstrap
from pyro_vdn.decision._folds import held_out_cost
from pyro_vdn.decision._ladder import Steps, best_places, least
from pyro_vdn.decision._ordering import Array
from pyro_vdn.decision.costs import Costs, PolicyCases
from pyro_vdn.decision.policy_report import PolicyReport, paid, policy_report
from pyro_vdn.diagnostics._checks import as_array
from pyro_vdn.errors import InputError
from pyro_vdn.nn.shapes import check_positive

_FIRST = ("accept", "draw", "fall back", "abstain")
_SECOND = ("accept", "fall back", "abstain")


@dataclass(frozen=True)
class Policy:
    """What to do with a case, by its uncertainty.

    At few draws: accept up to `accept`, draw more up to `draw`, fall back up to `fall_back`, and
    abstain beyond. After drawing more, by the refined uncertainty: accept up to `refined_accept`,
    fall back up to `refined_fall_back`, and abstain beyond. Thresholds are infinite where nothing
    comes after, or minus infinity where nothing came before; an action between equal thresholds is
    never taken.

    Args:
        costs: What actions cost.
        accept: Largest uncertainty that is accepted at once.
        draw: Largest that is worth further draws.
        fall_back: Largest that is left to the fallback.
        refined_accept: Largest refined uncertainty that is accepted.
        refined_fall_back: Largest refined one that is left to the fallback.
        validation_cost: Mean cost on the cases it was chosen on, too good for others, or on folds
            held out, see :meth:`choose`; NaN for a policy set by hand.

    Raises:
        InputError: If thresholds fall, or give cases to an action without a cost.

    Example:
        >>> cases = PolicyCases([0.1, 0.2, 0.7, 0.9], [0.0, 0.0, 1.0, 1.0])
        >>> policy = Policy.choose(cases, Costs(abstain=0.3))
        >>> policy.decide([0.15, 0.8]).tolist(), policy.validation_cost
        (['accept', 'abstain'], 0.15)
    """

    costs: Costs
    accept: float
    draw: float
    fall_back: float
    refined_accept: float
    refined_fall_back: float
    validation_cost: float = math.nan

    def __post_init__(self) -> None:
        second = (self.costs.fall_back, self.costs.abstain)
        _check_stage("accept, draw, fall_back", self.first, (self.costs.draw, *second))
        _check_stage("refined_accept, refined_fall_back", self.refined, second)

    @classmethod
    def choose(
        cls,
        cases: PolicyCases,
        costs: Costs,
        *,
        grid: int = 32,
        folds: int = 0,
        blocks: Tensor | ArrayLike | None = None,
        seed: int = 0,
    ) -> Policy:
        """Choose the thresholds that cost least on validation cases.

        For each pair of refined thresholds on a grid of observed values, the thresholds at few
        draws are the best there are; from the best of these, either stage is made the best for the
        other in turn, until nothing gets cheaper. No thresholds at all are cheaper where the
        refined uncertainty takes at most `grid` values, or drawing more is not on offer.

        The mean cost of these very cases is too good for others, the more so the fewer of them are
        costly. In a simulation with all actions on offer, new cases cost on average twice as much
        with 10 failures to learn from, 68 % more with 26, 35 % with 56, 16 % with 210 and 6 % with
        840. The mean over `folds`, each by thresholds chosen on the others, was within 5 % on
        average, though a single one strays (by 20 % with 26).

        Args:
            cases: Validation cases.
            costs: What actions cost, in the unit of the risk.
            grid: Refined thresholds to try, at least 1; work and precision grow with it.
            folds: Number of folds behind `validation_cost`; 0 for the cost of these very cases.
                Thresholds are chosen on all of them either way.
            blocks: Labels of blocks that stay in one fold, such as sequences, `(cases,)`.
            seed: Seed of the division. The global random state is neither read nor changed.

        Returns:
            The policy.

        Raises:
            InputError: If arrays of an action are missing, the grid is empty, or folds do not fit.
        """
        check_positive(grid=grid)
        search = _Search(cases, cases.path_costs(costs))
        best = min(
            (search.given(pair) for pair in search.pairs(grid)), key=lambda found: found.cost
        )
        while (other := search.given(search.refined_for(best))).cost < best.cost - 1e-12:
            best = other
        accept, draw, fall_back = best.first
        # Of thresholds that cost the same: infinite ones, for new cases beyond the observed.
        refined_accept, refined_fall_back = search.refined_for(best)
        cost = best.cost / len(cases)
        if folds:

            def held_out(others: PolicyCases, these: PolicyCases) -> Array:
                return paid(these, costs, cls.choose(others, costs, grid=grid)._paths(these))

            cost = held_out_cost(cases, held_out, folds=folds, blocks=blocks, seed=seed)
        return cls(costs, accept, draw, fall_back, refined_accept, refined_fall_back, cost)

    def decide(self, uncertainty: Tensor | ArrayLike) -> NDArray[np.str_]:
        """Return what to do with new cases: "accept", "draw", "fall back" or "abstain", `(cases,)`.

        Args:
            uncertainty: Their uncertainty at few draws, `(cases,)`.

        Raises:
            InputError: If a value is not finite.
        """
        score = as_array("uncertainty", uncertainty, ndim=1, sizes="(cases,)")
        return np.array(_FIRST)[_action(score, self.first)]

    def decide_refined(self, uncertainty: Tensor | ArrayLike) -> NDArray[np.str_]:
        """Return what to do after drawing more: "accept", "fall back" or "abstain", `(cases,)`.

        Args:
            uncertainty: Uncertainty at many draws, `(cases,)`.

        Raises:
            InputError: If a value is not finite.
        """
        score = as_array("uncertainty", uncertainty, ndim=1, sizes="(cases,)")
        return np.array(_SECOND)[_action(score, self.refined)]

    def evaluate(
        self,
        cases: PolicyCases,
        *,
        blocks: Tensor | ArrayLike | None = None,
        resamples: int = 500,
        level: float = 0.95,
        seed: int = 0,
    ) -> PolicyReport:
        """Return what the policy costs on other cases, and what doing one thing always would.

        Args:
            cases: Test cases.
            blocks: Labels of blocks that are resampled whole, such as the sequence each token
                belongs to, `(cases,)`; each case by itself where absent, which makes intervals of
                dependent cases too narrow.
            resamples: Number of resamples, at least 2.
            level: Share of the resamples that an interval holds.
            seed: Seed of the resampling. The global random state is neither read nor changed.

        Returns:
            Mean cost, shares and risks of actions, and paired differences to alternatives.

        Raises:
            InputError: If an action has a cost but its arrays are missing, or a setting makes no
                sense.
        """
        draws = bootstrap(blocks, len(cases), resamples=resamples, level=level, seed=seed)
        return policy_report(cases, self.costs, self._paths(cases), draws)

    def _paths(self, cases: PolicyCases) -> NDArray[np.str_]:
        """Return what becomes of each case, one of :data:`PATHS`, `(cases,)`."""
        first = self.decide(cases.score)
        second = self.decide_refined(cases.refined_score)
        return np.where(first == "draw", np.char.add("draw, ", second), first)

    @property
    def first(self) -> tuple[float, float, float]:
        """Thresholds at few draws."""
        return self.accept, self.draw, self.fall_back

    @property
    def refined(self) -> tuple[float, float]:
        """Thresholds after drawing more."""
        return self.refined_accept, self.refined_fall_back


class _Found(NamedTuple):
    """Thresholds and the total cost of acting by them."""

    cost: float
    first: tuple[float, ...]
    refined: tuple[float, ...]


class _Search:
    """Best thresholds of one stage, those of the other given."""

    def __init__(self, cases: PolicyCases, costs: Mapping[str, Array]) -> None:
        self.score, self.refined_score, self.costs = cases.score, cases.refined_score, costs
        self.steps = Steps.of(self.score)
        self.running = {name: self.steps.running(costs[name]) for name in _FIRST if name in costs}

    def given(self, refined: tuple[float, ...]) -> _Found:
        """Return the best thresholds at few draws for given refined ones."""
        running = self.running
        if "draw, accept" in self.costs:
            running = running | {"draw": self.steps.running(self._drawn(refined))}
        ordered = {name: running[name] for name in _FIRST if name in running}
        first = _thresholds(self.steps, ordered, _FIRST)
        return _Found(least(list(ordered.values())), first, refined)

    def refined_for(self, found: _Found) -> tuple[float, ...]:
        """Return the best refined thresholds for the cases that are drawn."""
        drawn = _action(self.score, found.first) == _FIRST.index("draw")
        if not drawn.any():
            return found.refined
        steps = Steps.of(self.refined_score[drawn])
        ordered = {
            name: steps.running(self.costs[f"draw, {name}"][drawn])
            for name in _SECOND
            if f"draw, {name}" in self.costs
        }
        return _thresholds(steps, ordered, _SECOND)

    def pairs(self, grid: int) -> Iterator[tuple[float, float]]:
        """Yield refined thresholds to start from: pairs of observed values, evenly spread."""
        falls, abstains = (f"draw, {name}" in self.costs for name in _SECOND[1:])
        if not falls and not abstains:
            yield np.inf, np.inf
            return
        values = np.unique(self.refined_score)
        some = np.unique(np.linspace(0, len(values) - 1, min(grid, len(values))).astype(int))
        ends = [-np.inf, *values[some].tolist(), np.inf]
        for place, end in enumerate(ends):
            if not abstains:
                yield end, np.inf
            elif not falls:
                yield end, end
            else:
                yield from ((end, later) for later in ends[place:])

    def _drawn(self, refined: tuple[float, ...]) -> Array:
        """Return what drawing more costs each case, `(cases,)`."""
        action = _action(self.refined_score, refined)
        cost = self.costs["draw, accept"]
        for number, name in enumerate(_SECOND):
            if f"draw, {name}" in self.costs:
                cost = np.where(action == number, self.costs[f"draw, {name}"], cost)
        return cost


def _check_stage(what: str, thresholds: Sequence[float], costs: Sequence[float | None]) -> None:
    """Refuse thresholds that fall, or leave cases to an action without a cost."""
    ends = [*thresholds, math.inf]
    for start, end, cost in zip(ends[:-1], ends[1:], costs, strict=True):
        if not start <= end or (cost is None and start < end):
            raise InputError(
                what,
                expected="rising ones, equal (or infinite at the end) around what has no cost",
                got=", ".join(str(value) for value in thresholds),
                hint="Policy.choose(cases, costs)",
            )


def _action(score: Array, thresholds: Sequence[float]) -> NDArray[np.intp]:
    """Return the number of thresholds below each score, `(cases,)`."""
    return np.searchsorted(np.asarray(thresholds), score, side="left")


def _thresholds(
    steps: Steps, running: Mapping[str, Array], actions: Sequence[str]
) -> tuple[float, ...]:
    """Return where each action but the last ends; one that is not on offer ends where it starts."""
    places = [*best_places(list(running.values())), len(steps.values)]
    ends = dict(zip(running, places, strict=True))
    found: list[float] = []
    for action in actions[:-1]:
        start = found[-1] if found else -np.inf
        found.append(steps.threshold(ends[action]) if action in ends else start)
    return tuple(found)
