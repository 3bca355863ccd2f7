"""Comparison of fits by the density that they give to the same held-out rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_vdn.diagnostics._checks import check_level
from pyro_vdn.diagnostics.comparison._paired import Wording, of_rows, paired_rows
from pyro_vdn.diagnostics.comparison.stacking import pseudo_bma_weights, stacking_weights
from pyro_vdn.nn.shapes import check_choice

Weights = Literal["stacking", "pseudo_bma"]

_WORDING = Wording(
    what="log_densities",
    one="log density",
    many="log densities",
    example='{"neurons": log_density(model, guide, x, y)[1], ...}',
    infinite="-inf is a density of 0: a likelihood with heavier tails, or more draws",
)


class ComparedFit(NamedTuple):
    """One line of a comparison; elpd is in nats, summed over rows.

    Args:
        name: The fit's name.
        rank: Its place by elpd, 0 for the best.
        elpd: Expected log predictive density, estimated by the sum over held-out rows.
        se: Standard error of `elpd`.
        elpd_diff: The elpd of the best less this one, 0 for the best itself.
        dse: Standard error of that *paired* difference.
        lower: Lower end of the interval of `elpd_diff`.
        upper: Upper end of it.
        weight: Weight in a mixture of all fits.

    Example:
        >>> fit = ComparedFit("twin", 1, -120.0, 5.0, 10.0, 2.0, 6.1, 13.9, 0.1)
        >>> fit.is_worse
        True
    """

    name: str
    rank: int
    elpd: float
    se: float
    elpd_diff: float
    dse: float
    lower: float
    upper: float
    weight: float

    @property
    def is_worse(self) -> bool:
        """Whether the interval of the difference to the best leaves out 0."""
        return self.lower > 0.0


@dataclass(frozen=True)
class Comparison:
    """Fits ordered by elpd, the best first; printed, it is a table.

    Args:
        fits: One line per fit.
        rows: Number of rows that all fits have a density of.
        missing: Number of rows left out, for which one has none.
        blocks: Number of blocks of dependent rows, `rows` without blocks.
        level: Share of intervals that hold the true difference.

    Example:
        >>> found = compare({"wide": np.full(50, -2.0), "sharp": np.full(50, -1.0)})
        >>> [fit.name for fit in found.fits], found["wide"].elpd_diff
        (['sharp', 'wide'], 50.0)
    """

    fits: tuple[ComparedFit, ...]
    rows: int
    missing: int
    blocks: int
    level: float

    def __getitem__(self, name: str) -> ComparedFit:
        for fit in self.fits:
            if fit.name == name:
                return fit
        raise KeyError(name)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one plain dictionary per fit, with its elpd and difference also per row."""
        return [
            {
                **fit._asdict(),
                "elpd_per_row": fit.elpd / self.rows,
                "elpd_diff_per_row": fit.elpd_diff / self.rows,
            }
            for fit in self.fits
        ]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return one array `(fits,)` per column of the table, in the order of the ranks."""
        rows = self.to_rows()
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def __str__(self) -> str:
        width = max(len("fit"), *(len(fit.name) for fit in self.fits))
        head = f"{'rank':>4}  {'fit':<{width}}  {'elpd':>10}  {'se':>8}  {'elpd/row':>9}  "
        lines = [
            head + f"{'elpd_diff':>9}  {'dse':>8}  {100 * self.level:>4.0f} % interval  weight"
        ]
        for fit in self.fits:
            interval = f"[{fit.lower:.1f}, {fit.upper:.1f}]" if fit.rank else ""
            lines.append(
                f"{fit.rank:>4}  {fit.name:<{width}}  {fit.elpd:>10.1f}  {fit.se:>8.1f}  "
                f"{fit.elpd / self.rows:>9.4f}  {fit.elpd_diff:>9.1f}  {fit.dse:>8.1f}  "
                f"{interval:>15}  {fit.weight:>6.2f}"
            )
        return "\n".join([*lines, of_rows(self.rows, self.missing, self.blocks)])


def compare(
    log_densities: Mapping[str, Tensor | ArrayLike],
    *,
    blocks: Tensor | ArrayLike | None = None,
    weights: Weights = "stacking",
    level: float = 0.95,
) -> Comparison:
    r"""Compare fits by their log densities of the same held-out rows, in the style of ArviZ.

    .. math:: \text{elpd}_k = \sum_i \log p_k(y_i \mid x_i), \quad
        \text{se}_k = \sqrt{n}\, \operatorname{sd}_i \log p_k(y_i), \quad
        \text{dse}_k = \sqrt{n}\, \operatorname{sd}_i \log \frac{p_{best}(y_i)}{p_k(y_i)}

    The difference is paired: what makes a row hard for all fits cancels, so that `dse` is usually
    far below either `se`. With `blocks` its square is :math:`G / (G - 1)` times the sum over G
    blocks of the squared sum of deviations in each, which allows for any dependence within a block;
    without, :math:`n` deviations squared, and all is as in ``az.compare``. Against the best of many
    fits, chosen by these very rows, differences are a little too large.

    Any fits compare: with neurons, deterministic twins, dropout, ensembles (`pooled`), other
    likelihoods, as long as rows and units of the outcome are the same::

        fits = {"neurons": model, "twin": deterministic(model), "dropout": dropout(model, p=0.1)}
        densities = {
            name: log_density(fit, NeuronGuide(fit), x, y)[1] for name, fit in fits.items()
        }
        members = [predict(one, NeuronGuide(one), x, y=y) for one in ensemble]
        print(compare({**densities, "ensemble": pooled(members).log_prob_joint}))

    **Why no leave-one-out from the training rows.** A neuron is a *local* latent: row `i` has its
    own :math:`z_i`, of which nothing but row `i` knows. PSIS-LOO on the conditional
    :math:`\log p(y_i \mid z_i)` weighs draws of :math:`q(z_i \mid y_i)` by
    :math:`1 / p(y_i \mid z_i)` to undo the row's influence, which means to turn the posterior back
    into the prior: where the row has made it less than half as wide in variance, these weights have
    infinite variance (in the conjugate case the tail has the shape
    :math:`k = 1 - \operatorname{var}_q / \operatorname{var}_p`, close to 1 for an informed neuron),
    and the elpd comes out too high. What is wanted is :math:`p(y_i \mid x_i)` with :math:`z_i`
    integrated out at parameters that have not seen the row, and that is what a held-out density
    says directly.

    Other scores of rows, such as CRPS, compare by :func:`compare_scores`.

    Args:
        log_densities: By name, log density of each held-out row in nats, `(rows,)`, such as the
            joint one of :func:`pyro_vdn.infer.log_density`. NaN is a missing row; a row that one
            fit misses is left out for all.
        blocks: Labels of rows that depend on each other, `(rows,)`: windows that overlap, tokens of
            one text, channels at one time. Without, each row is by itself, and errors of dependent
            rows are too small. With 10 blocks an interval of 90 % holds 86 %; 30 are enough.
        weights: ``"stacking"`` for those of the best mixture (:func:`stacking_weights`), or
            ``"pseudo_bma"``.
        level: Level of the intervals, which are normal.

    Returns:
        The fits, best first.

    Raises:
        InputError: For no fit, unequal numbers of rows, infinite densities, fewer than two rows or
            blocks that all fits have, an unknown choice, or a level outside (0, 1).

    Example:
        >>> easy = np.random.default_rng(0).normal(size=200)
        >>> print(compare({"a": easy - 1.1, "b": easy - 1.0 + 0.01 * np.sin(easy)}))
        rank  fit        elpd        se   elpd/row  elpd_diff       dse    95 % interval  weight
           0  b        -196.9      13.7    -0.9845        0.0       0.0                     1.00
           1  a        -216.9      13.6    -1.0847       20.1       0.1     [19.9, 20.2]    0.00
        200 rows

    Source: Vehtari, Gelman and Gabry, *Practical Bayesian Model Evaluation using Leave-One-Out
    Cross-Validation and WAIC*, 2017 (section 5.2: paired errors); blocks: Liang and Zeger,
    *Longitudinal Data Analysis using Generalized Linear Models*, 1986.
    """
    check_level(level)
    check_choice("weights", weights, get_args(Weights))
    paired = paired_rows(log_densities, blocks, _WORDING)
    weigh = stacking_weights if weights == "stacking" else pseudo_bma_weights
    weight = weigh(paired.values)
    fits = tuple(
        ComparedFit(paired.names[place.at], rank, *place[1:], float(weight[place.at]))
        for rank, place in enumerate(paired.ranked(level, more_is_better=True))
    )
    return Comparison(fits, len(paired.values), paired.missing, paired.blocks, level)
