"""What each action costs, and the cases that actions are chosen for."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_vdn.decision._ordering import Array
from pyro_vdn.decision.risk_coverage import as_cases
from pyro_vdn.diagnostics._checks import as_array
from pyro_vdn.errors import InputError
from pyro_vdn.nn.shapes import check_not_negative

PATHS = (
    "accept",
    "draw, accept",
    "draw, fall back",
    "draw, abstain",
    "fall back",
    "abstain",
)
"""Everything that can become of a case."""


@dataclass(frozen=True)
class Costs:
    r"""What actions cost, in the unit of the risk; an action without a cost is not on offer.

    .. math::
        \text{accept} &: e \, \ell \\
        \text{draw more, then accept} &: d + e \, \ell' \\
        \text{fall back} &: f + e \, \ell^f \\
        \text{abstain} &: a

    and draws that end in a fallback or an abstention cost both.

    Args:
        draw: :math:`d`, of drawing more samples for one case.
        fall_back: :math:`f`, of calling the fallback for one case, besides the risk it takes.
        abstain: :math:`a`, of leaving one case to somebody else.
        error: :math:`e`, by which risks are multiplied; 1 leaves them in their unit.

    Raises:
        InputError: For a negative or infinite cost, no weight of errors, or nothing to choose.

    Example:
        >>> Costs(draw=0.02, abstain=0.5).fall_back is None
        True
    """

    draw: float | None = None
    fall_back: float | None = None
    abstain: float | None = None
    error: float = 1.0

    def __post_init__(self) -> None:
        offered = {
            name: cost
            for name in ("draw", "fall_back", "abstain")
            if (cost := getattr(self, name)) is not None
        }
        check_not_negative(**offered, error=self.error)
        if not offered or self.error == 0.0:
            raise InputError(
                "costs",
                expected="a cost of at least one of draw, fall_back and abstain, and error above 0",
                got=f"{', '.join(offered) or 'none'}, error={self.error}",
                hint="Costs(draw=0.02, abstain=0.5)",
            )


@dataclass(frozen=True, eq=False)
class PolicyCases:
    """Uncertainty and risk of each case, as they are and as each action would make them.

    Args:
        uncertainty: Score at few draws, larger is less certain, `(cases,)`.
        risk: Risk of accepting at few draws, `(cases,)`.
        refined_uncertainty: The score at many draws, `(cases,)`, if drawing more is on offer.
        refined_risk: Risk of accepting at many draws, `(cases,)`, likewise.
        fallback_risk: Risk of the fallback's answer, `(cases,)`, if it is on offer.

    All are kept as float64 arrays.

    Raises:
        InputError: If shapes disagree, a value is not finite, or one of the two refined arrays
            comes without the other.

    Example:
        >>> cases = PolicyCases([0.1, 0.9], [0.0, 1.0], fallback_risk=[0.2, 0.2])
        >>> cases.path_costs(Costs(fall_back=0.1, abstain=0.6))["fall back"].round(3)
        array([0.3, 0.3])
    """

    uncertainty: Tensor | ArrayLike
    risk: Tensor | ArrayLike
    refined_uncertainty: Tensor | ArrayLike | None = None
    refined_risk: Tensor | ArrayLike | None = None
    fallback_risk: Tensor | ArrayLike | None = None

    def __post_init__(self) -> None:
        score, loss = as_cases(self.uncertainty, self.risk)
        object.__setattr__(self, "uncertainty", score)
        object.__setattr__(self, "risk", loss)
        for name in ("refined_uncertainty", "refined_risk", "fallback_risk"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _checked(name, getattr(self, name), len(loss)))
        if (self.refined_uncertainty is None) != (self.refined_risk is None):
            raise InputError(
                "refined_uncertainty, refined_risk",
                expected="both or neither",
                got="one of the two",
                hint="score the same cases again at more draws, and take the risk there",
            )

    def __len__(self) -> int:
        return len(self.score)

    @property
    def score(self) -> Array:
        """The uncertainty at few draws, `(cases,)`."""
        return np.asarray(self.uncertainty)

    @property
    def refined_score(self) -> Array:
        """The uncertainty at many draws, `(cases,)`; that at few if there is none."""
        return (
            self.score if self.refined_uncertainty is None else np.asarray(self.refined_uncertainty)
        )

    def take(self, chosen: NDArray[np.bool_]) -> PolicyCases:
        """Return some of the cases.

        Args:
            chosen: Which, `(cases,)`.

        Returns:
            Those chosen, in their order.
        """
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        some: dict[str, Any] = {
            name: None if array is None else array[chosen] for name, array in arrays.items()
        }
        return PolicyCases(**some)

    def path_risks(self) -> dict[str, Array | None]:
        """Return the risk that each of :data:`PATHS` takes, `(cases,)`, or None for no answer."""
        few, many, other = (
            None if value is None else np.asarray(value)
            for value in (self.risk, self.refined_risk, self.fallback_risk)
        )
        return dict(zip(PATHS, (few, many, other, None, other, None), strict=True))

    def path_costs(self, costs: Costs) -> dict[str, Array]:
        """Return what each path on offer would cost, `(cases,)`.

        Args:
            costs: What actions cost.

        Returns:
            Costs by name among :data:`PATHS`, in their order, those on offer only.

        Raises:
            InputError: If an action has a cost, but its risk is not among the arrays.
        """
        for name, needed in (("draw", "refined_risk"), ("fall_back", "fallback_risk")):
            if getattr(costs, name) is not None and getattr(self, needed) is None:
                raise InputError(
                    needed,
                    expected=f"one risk per case, as Costs({name}=...) offers that action",
                    got="None",
                    hint=f"PolicyCases(..., {needed}=...), or leave {name} out of the costs",
                )
        fixed = {
            "accept": 0.0,
            "draw, accept": costs.draw,
            "draw, fall back": _sum(costs.draw, costs.fall_back),
            "draw, abstain": _sum(costs.draw, costs.abstain),
            "fall back": costs.fall_back,
            "abstain": costs.abstain,
        }
        nothing = np.zeros(len(self))
        return {
            path: cost + costs.error * (nothing if risk is None else risk)
            for (path, cost), risk in zip(fixed.items(), self.path_risks().values(), strict=True)
            if cost is not None
        }


def _checked(name: str, value: Tensor | ArrayLike, cases: int) -> Array:
    array = as_array(name, value, ndim=1, sizes="(cases,)")
    if len(array) != cases:
        raise InputError(
            name,
            expected=f"{cases} values, one per case as in uncertainty",
            got=f"{len(array)}",
            hint="take all arrays from the same cases",
        )
    return array


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second
