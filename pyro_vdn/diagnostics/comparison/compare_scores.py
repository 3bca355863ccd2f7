"""Comparison of fits by any score of the same held-out rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy.typing import ArrayLike
from torch import Tensor

from pyro_vdn.diagnostics._checks import check_level
from pyro_vdn.diagnostics.comparison._paired import Wording, of_rows, paired_rows

_WORDING = Wording(
    what="scores",
    one="score",
    many="scores",
    example='{"neurons": crps_draws(draws, target, fair=True)[:, 0], ...}',
    infinite="find the row whose prediction or target is infinite, or leave it out as NaN",
)


class ComparedScore(NamedTuple):
    """One line of a comparison; scores are means over rows, in their unit, and lower is better.

    Args:
        name: The fit's name.
        rank: Its place, 0 for the best.
        mean: Mean score.
        se: Standard error of `mean`.
        diff: This mean less that of the best, 0 for the best itself.
        dse: Standard error of that *paired* difference.
        lower: Lower end of the interval of `diff`.
        upper: Upper end of it.

    Example:
        >>> ComparedScore("twin", 1, 0.35, 0.02, 0.08, 0.01, 0.06, 0.1).is_worse
        True
    """

    name: str
    rank: int
    mean: float
    se: float
    diff: float
    dse: float
    lower: float
    upper: float

    @property
    def is_worse(self) -> bool:
        """Whether the interval of the difference to the best leaves out 0."""
        return self.lower > 0.0


@dataclass(frozen=True)
class ScoreComparison:
    """Fits ordered by their mean score, the best first; printed, it is a table.

    Args:
        fits: One line per fit.
        rows: Number of rows that all fits have a score of.
        missing: Number of rows left out, for which one has none.
        blocks: Number of blocks of dependent rows, `rows` without blocks.
        level: Share of intervals that hold the true difference.

    Example:
        >>> found = compare_scores({"far": [2.0, 3.0, 2.5], "near": [1.0, 2.0, 1.5]})
        >>> [fit.name for fit in found.fits], found["far"].diff
        (['near', 'far'], 1.0)
    """

    fits: tuple[ComparedScore, ...]
    rows: int
    missing: int
    blocks: int
    level: float

    def __getitem__(self, name: str) -> ComparedScore:
        for fit in self.fits:
            if fit.name == name:
                return fit
        raise KeyError(name)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one plain dictionary per fit, the best first."""
        return [fit._asdict() for fit in self.fits]

    def __str__(self) -> str:
        width = max(len("fit"), *(len(fit.name) for fit in self.fits))
        lines = [
            f"{'rank':>4}  {'fit':<{width}}  {'mean':>9}  {'se':>9}  {'diff':>9}  {'dse':>9}  "
            f"{f'{100 * self.level:.0f} % interval':>20}"
        ]
        for fit in self.fits:
            interval = f"[{fit.lower:.4g}, {fit.upper:.4g}]" if fit.rank else ""
            numbers = "  ".join(f"{value:>9.4g}" for value in (fit.mean, fit.se, fit.diff, fit.dse))
            lines.append(f"{fit.rank:>4}  {fit.name:<{width}}  {numbers}  {interval:>20}".rstrip())
        return "\n".join([*lines, of_rows(self.rows, self.missing, self.blocks)])


def compare_scores(
    scores: Mapping[str, Tensor | ArrayLike],
    *,
    blocks: Tensor | ArrayLike | None = None,
    level: float = 0.95,
) -> ScoreComparison:
    r"""Compare fits by a score of each of the same held-out rows; lower is better.

    .. math:: \bar s_k = \frac{1}{n} \sum_i s_{ki}, \quad
        \text{se}_k = \operatorname{sd}_i s_{ki} / \sqrt{n}, \quad
        \text{dse}_k = \operatorname{sd}_i (s_{ki} - s_{best, i}) / \sqrt{n}

    Any score that adds up over rows: CRPS, squared or absolute error, interval score, minus a log
    density. Differences are paired, and errors of blocks are those of :func:`compare`, which is the
    one to ask about log densities (it also has the weights of a mixture). Against the best of many
    fits, chosen by these very rows, differences are a little too large::

        crps = {
            name: crps_draws(found.draws, y, fair=True).mean(-1)  # (rows, outputs) -> (rows,)
            for name, found in predictions.items()
        }
        print(compare_scores(crps))

    Args:
        scores: By name, score of each held-out row, `(rows,)`, all in one unit. NaN is a missing
            row; a row that one fit misses is left out for all. Of scores from draws the fair ones,
            if fits have different numbers of draws.
        blocks: Labels of rows that depend on each other, `(rows,)`. Without, each row is by itself,
            and errors of dependent rows are too small; 30 blocks are enough.
        level: Level of the intervals, which are normal.

    Returns:
        The fits, best first.

    Raises:
        InputError: For no fit, unequal numbers of rows, infinite scores, fewer than two rows or
            blocks that all fits have, or a level outside (0, 1).

    Example:
        >>> import torch
        >>> from pyro_vdn.diagnostics import crps_draws
        >>> noise = torch.Generator().manual_seed(0)
        >>> y, draws = torch.randn(400, generator=noise), torch.randn(100, 400, generator=noise)
        >>> fits = {"wide": 2.0 * draws, "right": draws, "shifted": draws + 0.5}
        >>> found = compare_scores({k: crps_draws(v, y, fair=True) for k, v in fits.items()})
        >>> [fit.name for fit in found.fits], found["wide"].is_worse
        (['right', 'shifted', 'wide'], True)

    Source: Diebold and Mariano, *Comparing Predictive Accuracy*, 1995 (paired differences of any
    loss); blocks: Liang and Zeger, *Longitudinal Data Analysis using Generalized Linear Models*,
    1986.
    """
    check_level(level)
    paired = paired_rows(scores, blocks, _WORDING)
    rows = len(paired.values)
    fits = []
    for rank, place in enumerate(paired.ranked(level, more_is_better=False)):
        mean = float(paired.values[:, place.at].mean())
        errors = (place.se, place.behind, place.dse, place.lower, place.upper)
        name = paired.names[place.at]
        fits.append(ComparedScore(name, rank, mean, *(value / rows for value in errors)))
    return ScoreComparison(tuple(fits), rows, paired.missing, paired.blocks, level)
