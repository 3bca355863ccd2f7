"""Predictive checks: could the model have made data like these?"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_vdn.diagnostics._checks import CHUNK_ELEMENTS, check_level
from pyro_vdn.diagnostics.calibration._labels import Labels
from pyro_vdn.diagnostics.predictive._check_parts import (
    Statistics,
    check_data,
    choose,
    common_dtype,
    split_into,
    taken,
)
from pyro_vdn.diagnostics.predictive._p_value_text import p_value_text
from pyro_vdn.errors import InputError

Per = Literal["all", "group", "horizon", "output", "row"]
"""What a check looks at together: see :func:`predictive_check`."""


@dataclass(frozen=True, eq=False)
class PredictiveCheck:
    """Statistics of the data and of replicated data.

    Args:
        names: Names of the statistics.
        places: Labels of what they were taken of: groups, steps, outputs, rows, or `("all",)`.
        observed: Statistics of the data, shape `(statistics, places)`; NaN where undefined.
        replicated: Statistics of each draw, shape `(draws, statistics, places)`.
        per: Of what kind the places are.

    Example:
        >>> replicated = torch.linspace(0.0, 1.0, 99)[:, None, None]
        >>> check = PredictiveCheck(("max",), ("all",), torch.tensor([[0.995]]), replicated)
        >>> check.p_value, check.two_sided
        (tensor([[0.0150]]), tensor([[0.0300]]))
        >>> print(check)
        statistic        observed     replicated   p
        max                 0.995     0.5 ± 0.29   0.015  *
    """

    names: tuple[str, ...]
    places: tuple[Hashable, ...]
    observed: Tensor
    replicated: Tensor
    per: Per = "all"

    @property
    def p_value(self) -> Tensor:
        r"""How often replicated data have at least as much of it, `(statistics, places)`.

        .. math:: p = \frac{\#\{T_s > T\} + (\#\{T_s = T\} + 1) / 2}{S + 1}

        Ties are shared, and the data count as one of the draws, so that `p` is never 0 or 1: it
        estimates :math:`P(T(y^{rep}) > T(y)) + P(T(y^{rep}) = T(y)) / 2`. NaN where the statistic
        of the data is undefined; draws of which it is undefined are left out.
        """
        above, ties = ((op(self.replicated, self.observed)).sum(0) for op in (torch.gt, torch.eq))
        known = (~self.replicated.isnan()).sum(0)
        share = (above + (ties + 1) / 2).to(self.observed.dtype) / (known + 1)
        return share.masked_fill(self.observed.isnan() | (known == 0), torch.nan)

    @property
    def two_sided(self) -> Tensor:
        r"""Twice the smaller side, :math:`2 \min(p, 1 - p)`, shape `(statistics, places)`."""
        return 2.0 * torch.minimum(self.p_value, 1.0 - self.p_value)

    @property
    def distance(self) -> Tensor:
        """Standard deviations of the draws from their mean to the data, `(statistics, places)`.

        It tells how far where the p-value only says "beyond all draws".
        """
        mean, sd = self._moments()
        return (self.observed - mean) / sd

    def outside(self, level: float = 0.95) -> NDArray[np.bool_]:
        """Say where the data lie outside the central interval of the draws.

        Args:
            level: Share of the draws inside, in (0, 1).

        Returns:
            Whether the two-sided p-value is below `1 - level`, `(statistics, places)`. Of a true
            model that happens at about a share `1 - level` of places, less often where draws are
            few or values tie: expect some among many.

        Raises:
            InputError: If the level lies outside (0, 1), or there are too few draws to leave it.
        """
        check_level(level)
        beyond = (1.0 - level) * (1.0 - 1e-6)  # on the bound is inside, whatever the rounding
        if 1.0 / (len(self.replicated) + 1) >= beyond:
            raise InputError(
                "draws",
                expected=f"at least {int(1.0 / beyond)} for level {level:g}",
                got=str(len(self.replicated)),
                hint="draw more samples from the predictive distribution",
            )
        return np.asarray((self.two_sided < beyond).cpu().numpy())

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return observed, replicated, p_value, two_sided and distance as NumPy arrays."""
        values = {name: getattr(self, name) for name in ("p_value", "two_sided", "distance")}
        values |= {"observed": self.observed, "replicated": self.replicated}
        return {name: value.cpu().double().numpy() for name, value in values.items()}

    def table(self) -> list[dict[str, Any]]:
        """Return one row per statistic and place, with its numbers by name."""
        mean, sd = self._moments()
        columns = {"observed": self.observed, "replicated_mean": mean, "replicated_sd": sd}
        columns |= {name: getattr(self, name) for name in ("p_value", "two_sided", "distance")}
        plain = {name: value.tolist() for name, value in columns.items()}
        return [
            {"statistic": name, self.per: place}
            | {column: values[i][j] for column, values in plain.items()}
            for i, name in enumerate(self.names)
            for j, place in enumerate(self.places)
        ]

    def __str__(self) -> str:
        """Write one line per statistic; a star where the two-sided p-value is below 0.05."""
        if len(self.places) > 1:
            return "\n".join(self._line_over_places(i) for i in range(len(self.names)))
        lines = [f"{'statistic':<16} {'observed':>8} {'replicated':>14}   p"]
        for row in self.table():
            spread = f"{row['replicated_mean']:.3g} ± {row['replicated_sd']:.2g}"
            mark = "  *" if row["two_sided"] < 0.05 else ""
            seen = f"{row['observed']:.3g}"
            p_value = p_value_text(row["p_value"], sign=False)
            lines.append(f"{row['statistic']:<16} {seen:>8} {spread:>14}   {p_value}{mark}")
        return "\n".join(lines)

    def _line_over_places(self, statistic: int) -> str:
        two_sided = self.two_sided[statistic]
        known = int((~two_sided.isnan()).sum())
        if known == 0:
            return f"{self.names[statistic]}: undefined everywhere"
        worst = int(two_sided.nan_to_num(nan=torch.inf).argmin())
        return (
            f"{self.names[statistic]}: {int((two_sided < 0.05).sum())} of {known} with two-sided "
            f"p < 0.05 ({0.05 * known:.1f} expected), farthest {self.per} {self.places[worst]}: "
            f"p {p_value_text(float(self.p_value[statistic, worst]))}"
        )

    def _moments(self) -> tuple[Tensor, Tensor]:
        mean = self.replicated.nanmean(0)
        known = (~self.replicated.isnan()).sum(0)
        squares = (self.replicated - mean).square().nansum(0)
        return mean, (squares / (known - 1).clamp(min=0)).sqrt()  # 0 / 0 of too few is NaN


def predictive_check(
    draws: Tensor,
    observed: Tensor,
    *,
    statistics: Statistics | None = None,
    per: Per | None = None,
    groups: Labels | None = None,
) -> PredictiveCheck:
    r"""Compare statistics of the data with those of data that the model made.

    Steps of a forecast `(rows, steps)` are taken for outputs, of which no statistic along time is
    made, until they are told apart: pass `draws[..., None]` and `y[..., None]`.

    .. math:: p = P(T(y^{rep}) \ge T(y) \mid \text{what the draws are conditioned on})

    A p-value near 0 says that the data have more of `T` than the model makes, near 1 that they have
    less; the distance says by how much. Check what matters for the use of the model, and among many
    p-values expect some small ones.

    The data may be those that the model was fitted to (a *posterior* predictive check). They are
    then used twice: the p-values crowd around 1/2, more so the closer the statistic is to what was
    fitted, and a misfit shows less than it should. On **held-out data** they are uniform if the
    predictive distribution is right. Draws from the prior give a *prior* predictive check, with no
    double use: are data like these among those the model thinks possible?

    Args:
        draws: Replicated data, `(draws, *observed.shape)`, such as `Prediction.draws`, or the
            outcomes of the model run without a guide.
        observed: Data, `(rows,)`, `(rows, outputs)` or `(rows, time, outputs)`, numbers or counts;
            NaN where missing, which is then left out of the draws too. A forecast `(rows, steps)`
            is passed as `y[..., None]`, one long series as `y[None, :, None]`.
        statistics: Names among :data:`CHECK_STATISTICS` and named functions, in a list, or either
            under names of their own, in a dictionary. Functions lead from `(..., n)` to `(...)`; an
            :class:`OfSeries` runs along time, series by series, and is averaged over them. By
            default all that make sense: those of series where there is time, the share of zeros
            where there are any.
        per: Look at everything together (``"all"``), or at each label of `groups` (``"group"``, the
            default if there are any), each step (``"horizon"``), each output, or each row.
        groups: Labels of rows, `(rows,)`; or of steps, `(rows, time)`, or single values, in the
            shape of the data, for all statistics but those of series. Places are sorted by label.

    Returns:
        Observed and replicated statistics with p-values.

    Raises:
        InputError: If shapes disagree, a draw is not finite, there is no value, a name is unknown,
            a statistic returns another shape or needs a time dimension that is not there, or
            groups are missing.

    Example:
        >>> y = torch.randn(200, 24, 1).cumsum(1)  # random walks
        >>> independent = y.std() * torch.randn(500, 200, 24, 1)  # a model without memory
        >>> check = predictive_check(independent, y, statistics=["sd", "autocorrelation"])
        >>> check.outside(0.99)
        array([[False],
               [ True]])

        A prior predictive check takes draws from the prior:

        >>> import pyro
        >>> from pyro_vdn.models import Regression
        >>> x, y = torch.randn(100, 3), torch.randn(100, 1)
        >>> prior = pyro.infer.Predictive(Regression(3, num_units=4), num_samples=100)(x)["y"]
        >>> predictive_check(prior, y, statistics=["sd"]).replicated.shape
        torch.Size([100, 1, 1])

    Source: Gelman, Meng and Stern, *Posterior Predictive Assessment of Model Fitness via Realized
    Discrepancies*, 1996; on double use: Bayarri and Berger, *P Values for Composite Null Models*,
    2000; on the prior: Gabry et al., *Visualization in Bayesian Workflow*, 2019.
    """
    there = check_data(draws, observed)
    kind: Per = ("all" if groups is None else "group") if per is None else per
    places, split, timed = split_into(observed.shape, kind, groups)
    zeros = bool((observed == 0).any()) or bool((draws == 0).any())
    dtype = common_dtype(draws, observed)
    chosen = choose(statistics, steps=observed.shape[1] if timed else 1, zeros=zeros)

    def of_sets(sets: Tensor) -> Tensor:  # (sets, *shape) -> (sets, statistics, places)
        blocks = split(sets.to(dtype).masked_fill(~there, torch.nan))
        found = [[taken(name, it, block) for block in blocks] for name, it in chosen.items()]
        return torch.stack([torch.cat(of_places, dim=1) for of_places in found], dim=1)

    size = max(1, CHUNK_ELEMENTS // observed.numel())
    starts = range(0, len(draws), size)
    replicated = torch.cat([of_sets(draws[start : start + size]) for start in starts])
    seen = of_sets(observed.unsqueeze(0))[0]
    return PredictiveCheck(tuple(chosen), places, seen, replicated, kind)
