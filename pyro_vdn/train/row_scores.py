"""Scores of every test row and output, their means, and the standard errors of these."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_vdn.diagnostics import coverage, crps_draws, energy_score, pit
from pyro_vdn.diagnostics._sorting import sorted_draws
from pyro_vdn.infer import ClosedForm, Prediction

KEPT = ("nll", "joint_nll", "crps", "energy_score")
"""The scores that are kept row by row."""


class RowScores:
    """Scores of batches of rows: sums of all of them, and some kept row by row.

    Example:
        >>> scores, y = RowScores(), torch.zeros(2, 1)
        >>> draws, density = torch.randn(50, 2, 1), torch.full((2, 1), -1.5)
        >>> scores.add(Prediction(draws, density, density[:, 0]), y)
        >>> scores.means()["nll"], scores.rows()["joint_nll"], scores.transforms().shape
        (1.5, tensor([1.5000, 1.5000]), torch.Size([2, 1]))
    """

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, float] = {}
        self._kept: dict[str, list[Tensor]] = {name: [] for name in KEPT}
        self._transforms: list[Tensor] = []
        self._rows = 0

    def add(self, best: Prediction | ClosedForm, y: Tensor) -> None:
        """Score a batch; targets that are missing, and rows without any, count for nothing."""
        there = ~y.isnan()
        rows = there.flatten(1).any(-1)
        for name, value in _scores(best, y, there).items():
            seen = there if value.dim() == y.dim() else rows
            count = there.sum() if name == "joint_nll" else seen.sum()
            total = value.double().masked_fill(~seen, 0.0).sum()
            self._sums[name] = self._sums.get(name, 0.0) + float(total)
            self._counts[name] = self._counts.get(name, 0.0) + float(count)
            if name in KEPT:
                self._kept[name].append(value.masked_fill(~seen, math.nan))
        placed = pit(best.draws, y.masked_fill(~there, 0.0), seed=self._rows)
        self._transforms.append(placed.masked_fill(~there, math.nan))
        self._rows += len(y)

    def means(self) -> dict[str, float]:
        """Return the mean of every score; the joint one is per observed output."""
        return {name: total / max(self._counts[name], 1.0) for name, total in self._sums.items()}

    def rows(self) -> dict[str, Tensor]:
        """Return the scores that are kept; NaN for what is missing."""
        return {name: torch.cat(parts) for name, parts in self._kept.items()}

    def transforms(self) -> Tensor:
        """Return the probability integral transforms, of the targets' shape."""
        return torch.cat(self._transforms)


def _scores(best: Prediction | ClosedForm, y: Tensor, there: Tensor) -> dict[str, Tensor]:
    """Return scores of each target or row; those of missing targets mean nothing."""
    assert best.log_prob_per_output is not None
    assert best.log_prob_joint is not None
    # Draws and targets that agree, at 0, add nothing to the distances between whole rows.
    draws, y = best.draws.masked_fill(~there, 0.0), y.masked_fill(~there, 0.0)
    median = sorted_draws(draws)[(len(draws) - 1) // 2]  # as torch's, the lower of two
    return {
        "mse": (best.mean - y).square(),
        "mae": (median - y).abs(),
        "nll": -best.log_prob_per_output,
        "joint_nll": -best.log_prob_joint,
        "crps": crps_draws(draws, y, fair=True),
        "coverage_90": coverage(draws.unsqueeze(1), y.unsqueeze(0), 0.9, dim=0),
        "energy_score": energy_score(draws.flatten(2), y.flatten(1), fair=True),
    }


def standard_errors(rows: Mapping[str, Tensor], blocks: Tensor) -> dict[str, float]:
    """Return the standard errors of mean scores per output; see `error_of_ratio`.

    Args:
        rows: Scores, `(rows, outputs)`, or for the joint one and the energy score of whole rows,
            `(rows,)`; NaN where a target is missing. ``"nll"`` is among them.
        blocks: Which block each row is in, integers from 0, `(rows,)`: rows of one block may
            depend on each other.

    Returns:
        Standard errors by name; empty for fewer than two blocks.

    Example:
        >>> nll = torch.tensor([[1.0, 3.0], [2.0, 6.0], [4.0, 8.0]])
        >>> errors = standard_errors({"nll": nll}, torch.arange(3))
        >>> {name: round(value, 6) for name, value in errors.items()}
        {'nll': 1.154701}
    """
    counts = (~rows["nll"].isnan()).flatten(1).sum(-1).double()
    whole = (counts > 0).double()
    if int(torch.bincount(blocks[counts > 0]).count_nonzero()) < 2:
        return {}
    errors = {}
    for name, values in rows.items():
        totals = values.double().reshape(len(values), -1).nansum(-1)
        each = whole if name == "energy_score" else counts
        errors[name] = error_of_ratio(torch.bincount(blocks, totals), torch.bincount(blocks, each))
    return errors


def error_of_ratio(totals: Tensor, counts: Tensor) -> float:
    r"""Return the standard error of a mean over independent blocks of unequal size.

    With totals `a_g` of a score and counts `c_g` in each of G blocks, the mean is
    `R = sum a_g / sum c_g` and its standard error `sd(a_g - R c_g) / (mean(c_g) sqrt(G))`.

    Args:
        totals: `a_g`, `(blocks,)`.
        counts: `c_g`, `(blocks,)`; blocks of none are left out.

    Returns:
        The standard error.

    Example:
        >>> round(error_of_ratio(torch.tensor([1.0, 2.0, 6.0]), torch.ones(3)), 6)
        1.527525
    """
    totals, counts = totals[counts > 0], counts[counts > 0]
    residuals = totals - totals.sum() / counts.sum() * counts
    return float(residuals.std() / counts.mean()) / math.sqrt(len(counts))
