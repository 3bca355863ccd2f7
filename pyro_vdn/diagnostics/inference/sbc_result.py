"""Ranks of simulation-based calibration, and what they say."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pyro_vdn.diagnostics._checks import check_level
from pyro_vdn.diagnostics.predictive.ecdf_bands import EcdfBand, ecdf_band

_NAMED = 5
Place: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class SBCResult:
    r"""Ranks of simulated origins among a guide's draws, and the verdict on each quantity.

    The ranks of a guide that draws from the exact posterior are uniform. Each quantity has the
    exact p-value of its ranks' distribution function; the verdicts together call an exact guide
    wrong with a probability of at most ``1 - level``, by Holm's correction, which holds however
    quantities depend on each other.

    Args:
        ranks: By quantity, ranks 0, ..., `num_draws`, shape `(simulations, ...)`.
        num_draws: Number of draws of each simulation.
        level: Probability that an exact guide passes.

    Example:
        >>> import torch
        >>> even = torch.arange(100) % 20
        >>> result = SBCResult({"z": torch.stack([even, even // 3], dim=-1)}, num_draws=19)
        >>> result.passed, result.failures
        (False, ['z[1]'])

    Source: Talts, Betancourt, Simpson, Vehtari and Gelman, *Validating Bayesian Inference
    Algorithms with Simulation-Based Calibration*, 2018; Holm, *A Simple Sequentially Rejective
    Multiple Test Procedure*, 1979.
    """

    ranks: dict[str, Tensor]
    num_draws: int
    level: float = 0.95

    @property
    def num_simulations(self) -> int:
        """Number of simulations."""
        return len(next(iter(self.ranks.values())))

    @cached_property
    def band(self) -> EcdfBand:
        """The band that holds the distribution function of one quantity's ranks."""
        return ecdf_band(self.num_simulations, level=self.level, ranks=self.num_draws + 1)

    @cached_property
    def p_values(self) -> dict[str, NDArray[np.float64]]:
        """How often an exact guide strays as far, by quantity, of its shape without simulations."""
        return {name: self._over_places(ranks) for name, ranks in self.ranks.items()}

    @property
    def failures(self) -> list[str]:
        """Quantities whose ranks are not uniform, the worst first, such as ``neurons.z[3]``."""
        return [label for label, _, _ in self.failed]

    @cached_property
    def failed(self) -> list[tuple[str, str, Place]]:
        """The same, each as label, name in `ranks`, and place in its shape."""
        tested = [
            (float(values[place]), name, place)
            for name, values in self.p_values.items()
            for place in product(*map(range, values.shape))
        ]
        tested.sort(key=lambda one: one[0])
        # Holm: the smallest p-value against the level over all quantities, the next over the rest.
        allowed = [(1.0 - self.level) / left for left in range(len(tested), 0, -1)]
        fails = [one[0] <= limit for one, limit in zip(tested, allowed, strict=True)]
        count = fails.index(False) if False in fails else len(fails)
        return [(_label(name, place), name, place) for _, name, place in tested[:count]]

    @property
    def passed(self) -> bool:
        """Whether no quantity fails."""
        return not self.failed

    @cached_property
    def moments(self) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        r"""Standardised mean and variance of the ranks, by quantity, each about 0 if uniform.

        Both count standard errors, those of uniform ranks :math:`r - S / 2`, whose squares have the
        mean :math:`(R^2 - 1) / 12` and the variance :math:`(R^2 - 1) (R^2 - 4) / 180` with
        :math:`R = S + 1`. A mean above 0 says that draws are too low. A variance above 0 says that
        they spread too little, for origins fall outside; below 0, too much. The two ranks of a
        single draw have no spread to tell: 0.
        """
        cells, count = self.num_draws + 1, self.num_simulations
        expected = (cells**2 - 1) / 12.0
        deviation = np.sqrt(max((cells**2 - 1) * (cells**2 - 4), 1) / 180.0)
        found = {}
        for name, ranks in self.ranks.items():
            values = ranks.detach().cpu().double().numpy() - 0.5 * self.num_draws
            mean = values.mean(axis=0) * np.sqrt(count / expected)
            spread = ((values**2).mean(axis=0) - expected) * np.sqrt(count) / deviation
            found[name] = (mean, spread)
        return found

    def coverage(self, level: float) -> dict[str, NDArray[np.float64]]:
        r"""Return how often central intervals of the guide hold the origin, by quantity.

        A rank stands for the cell :math:`[r, r + 1] / (S + 1)` and counts as far as the cell lies
        in :math:`[(1 - \ell) / 2, (1 + \ell) / 2]`: on average :math:`\ell` for an exact guide,
        whatever the number of draws. The standard error is then at most
        :math:`\sqrt{\ell (1 - \ell) / n}`.

        Args:
            level: Nominal share :math:`\ell` in (0, 1).

        Returns:
            Shares, each of its quantity's shape without simulations.
        """
        check_level(level)
        cells = self.num_draws + 1
        ends = np.clip(np.arange(cells + 1) / cells, (1.0 - level) / 2.0, (1.0 + level) / 2.0)
        inside = np.diff(ends) * cells
        return {
            name: np.asarray(inside[ranks.detach().cpu().numpy()].mean(axis=0))
            for name, ranks in self.ranks.items()
        }

    def describe(self, name: str, place: Place = ()) -> str:
        """Say in words which way the ranks of a quantity stray most.

        Args:
            name: The quantity.
            place: Which of its numbers, such as the unit.
        """
        mean, spread = (float(values[place]) for values in self.moments[name])
        if abs(spread) >= abs(mean):
            return "draws spread too little" if spread > 0 else "draws spread too much"
        return "draws are too low" if mean > 0 else "draws are too high"

    def __str__(self) -> str:
        """Say the verdict, and the worst quantities in words."""
        total = sum(values.size for values in self.p_values.values())
        verdict = "passed, all" if self.passed else f"FAILED in {len(self.failed)}"
        lines = [
            f"{verdict} of {total} quantities: {self.num_simulations} simulations, "
            f"{self.num_draws} draws each"
        ]
        lines += [
            f"{label}: {self.describe(name, place)}" for label, name, place in self.failed[:_NAMED]
        ]
        left = len(self.failed) - _NAMED
        return "\n".join([*lines, *([f"and {left} more"] if left > 0 else [])])

    def _over_places(self, ranks: Tensor) -> NDArray[np.float64]:
        values = ranks.detach().cpu().numpy()
        columns = values.reshape(len(values), -1)
        found = [self.band.p_value(column) for column in columns.T]
        return np.array(found, dtype=np.float64).reshape(values.shape[1:])


def quantities(ranks: Tensor, name: str) -> dict[str, Tensor]:
    """Return the ranks of each number of a quantity, `(simulations,)` each, by label.

    Args:
        ranks: Ranks, `(simulations, ...)`.
        name: Name of the quantity.

    Example:
        >>> import torch
        >>> list(quantities(torch.zeros(100, 2), "z"))
        ['z[0]', 'z[1]']
    """
    columns = ranks.flatten(1).unbind(1) if ranks.dim() > 1 else (ranks,)
    places = product(*map(range, ranks.shape[1:]))
    return {_label(name, place): column for place, column in zip(places, columns, strict=True)}


def _label(name: str, place: Place) -> str:
    return f"{name}[{', '.join(map(str, place))}]" if place else name
