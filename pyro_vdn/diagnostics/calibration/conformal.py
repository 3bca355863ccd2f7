"""Split conformal prediction: intervals with a guaranteed share of targets inside."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vdn.diagnostics._checks import check_finite, check_level, refuse_where
from pyro_vdn.diagnostics.calibration._labels import EVERYONE, Label, Labels, grouped
from pyro_vdn.diagnostics.scoring.intervals import Interval, check_interval
from pyro_vdn.errors import InputError


@dataclass(frozen=True, eq=False)
class SplitConformal:
    r"""A margin for predicted intervals, chosen on calibration rows that the model never saw.

    .. math:: E_i = \max(l_i - y_i, \ y_i - u_i) / s_i, \qquad
        q = E_{(k)}, \quad k = \lceil (n + 1) \ell \rceil, \qquad [l - q s, \ u + q s]

    If calibration rows and a new row are exchangeable (their order carries no information, as of
    independent rows), the new target lies inside with a probability of at least :math:`\ell`, and
    of exactly :math:`k / (n + 1)` where scores have no ties, whatever the model and its errors. The
    probability is over calibration sets and new rows together; it holds on average over inputs,
    not at each of them. Windows of one series are not exchangeable if the series drifts: see
    :class:`AdaptiveConformal`.

    Which interval is handed in makes the method:

    - predicted quantiles: conformalised quantile regression; wide where the model says so;
    - ``lower = upper = mean`` and ``scale = standard deviation``: normalised residuals;
    - ``lower = upper = mean``: plain residuals, one width for all.

    Args:
        margin: Margins :math:`q`, shape `(groups, ...)` with the entries of a row (1 for each if
            joint), in units of the target, or of the scale where one was given.
        level: Share :math:`\ell` that is guaranteed.
        count: Calibration rows of each group, shape `(groups,)`.
        groups: Names of the groups; one, `"all"`, without groups.
        scaled: Whether scores were divided by a scale, which `apply` then needs too.
        joint: Whether whole rows are to lie inside.
        entries: Shape of a row of the fit.

    Example:
        >>> mean = torch.zeros(19, 1)
        >>> target = torch.arange(1.0, 20.0).unsqueeze(-1)
        >>> conformal = SplitConformal.fit(mean, mean, target, 0.9)
        >>> conformal.apply(torch.full((1, 1), 100.0), torch.full((1, 1), 100.0))
        Interval(lower=tensor([[82.]]), upper=tensor([[118.]]))

    Source: Romano, Patterson and Candes, *Conformalized Quantile Regression*, 2019; Lei, G'Sell,
    Rinaldo, Tibshirani and Wasserman, *Distribution-Free Predictive Inference for Regression*,
    2018; groups: Vovk, *Conditional Validity of Inductive Conformal Predictors*, 2012.
    """

    margin: Tensor
    level: float
    count: Tensor
    groups: tuple[Label, ...] = EVERYONE
    scaled: bool = False
    joint: bool = False
    entries: tuple[int, ...] = ()

    @classmethod
    def fit(
        cls,
        lower: Tensor,
        upper: Tensor,
        target: Tensor,
        level: float,
        *,
        scale: Tensor | None = None,
        groups: Labels | None = None,
        joint: bool = False,
    ) -> SplitConformal:
        """Choose the margin on calibration rows.

        Each entry of a row (output, or step and output) gets its own margin. Flatten entries into
        rows first if they are exchangeable too and one margin is to serve them all.

        Args:
            lower: Predicted lower bounds, shape `(rows, ...)`: quantiles, or the mean.
            upper: Predicted upper bounds, shape `(rows, ...)`, nowhere below `lower`.
            target: Observed values, shape `(rows, ...)`.
            level: Share in (0, 1) that is to lie inside.
            scale: What to divide scores by, positive, shape `(rows, ...)`, such as the predicted
                standard deviation; nothing by default.
            groups: A label for each row; margins are chosen, and the share is guaranteed, within
                each group.
            joint: Choose one margin such that *all* entries of a row lie inside together, with a
                probability of `level`: a band for whole trajectories.

        Returns:
            The margin, ready for `apply`.

        Raises:
            InputError: If shapes disagree, a value is not finite, bounds cross, a scale is not
                positive, or a group has too few rows for the level.
        """
        check_level(level)
        check_interval(lower, upper, target)
        if target.ndim == 0:
            raise InputError(
                "target", expected="shape (rows, ...)", got="shape ()", hint="stack rows first"
            )
        score = torch.maximum(lower - target, target - upper) / checked_scale(scale, target)
        if joint:
            whole = score.reshape(len(score), -1).amax(dim=-1)
            score = whole.reshape(-1, *(1,) * (target.ndim - 1))  # (rows,) -> (rows, 1, ...)
        names, members = grouped(groups, (len(target),))
        margins, counts = [], []
        for at, name in enumerate(names):
            own = score[members == at]
            margins.append(own.kthvalue(_rank(len(own), level, name), dim=0).values)
            counts.append(len(own))
        return cls(
            torch.stack(margins),
            level,
            torch.tensor(counts),
            names,
            scaled=scale is not None,
            joint=joint,
            entries=tuple(target.shape[1:]),
        )

    @property
    def guarantee(self) -> Tensor:
        """Probability that a new target lies inside if scores have no ties, shape `(groups,)`."""
        ranks = [conformal_rank(int(n), self.level) for n in self.count]
        return torch.tensor(ranks, dtype=self.margin.dtype) / (self.count + 1)

    def apply(
        self,
        lower: Tensor,
        upper: Tensor,
        *,
        scale: Tensor | None = None,
        groups: Labels | None = None,
    ) -> Interval:
        """Widen (or narrow) predicted intervals by the margin.

        Args:
            lower: Predicted lower bounds, shape `(rows, ...)`, made as those of the fit.
            upper: Predicted upper bounds, shape `(rows, ...)`.
            scale: As in the fit, if it had one.
            groups: A label for each row, if the fit had groups.

        Returns:
            The intervals, shape `(rows, ...)` each. Bounds that a negative margin would make cross
            meet halfway.

        Raises:
            InputError: If shapes disagree with each other or the fit, a value is not finite, bounds
                cross, a scale is missing, not positive or one too many, or a label is unknown.
        """
        check_interval(lower, upper, lower)
        self._check_entries(lower)
        if self.scaled != (scale is not None):
            raise InputError(
                "scale",
                expected="the scale of each row, as in the fit" if self.scaled else "none",
                got="none" if self.scaled else "one, which the fit had not",
                hint="pass scale= to both fit and apply, or to neither",
            )
        step = self.margin[self._members(groups, len(lower))] * checked_scale(scale, lower)
        low, high = lower - step, upper + step
        middle = 0.5 * (low + high)
        return Interval(torch.minimum(low, middle), torch.maximum(high, middle))

    def _check_entries(self, lower: Tensor) -> None:
        if tuple(lower.shape[1:]) != self.entries:
            raise InputError(
                "lower",
                expected=f"rows of the fit's shape {self.entries}",
                got=f"rows of shape {tuple(lower.shape[1:])}",
                hint="pass the same outputs and steps as in the fit",
            )

    def _members(self, groups: Labels | None, rows: int) -> Tensor:
        """Return the place of each row's group, `(rows,)`."""
        if groups is None and self.groups == EVERYONE:
            return torch.zeros(rows, dtype=torch.long)
        names, members = grouped(groups, (rows,))
        for name in names:
            if name not in self.groups:
                raise InputError(
                    "groups",
                    expected=f"labels among those of the fit, {list(self.groups)}",
                    got=repr(name),
                    hint="calibrate with rows of every group that is to come",
                )
        return torch.tensor([self.groups.index(name) for name in names])[members]


def conformal_rank(count: int, level: float) -> int:
    """Return the rank `ceil((count + 1) level)` of the score that becomes the margin."""
    # The slack forgives products such as 10 * 0.9, which rounding puts just above 9.
    return math.ceil((count + 1) * level - 1e-9)


def _rank(count: int, level: float, name: Label) -> int:
    rank = conformal_rank(count, level)
    if rank > count:
        least = math.ceil(level / (1.0 - level) - 1e-9)
        raise InputError(
            "target",
            expected=f"at least {least} calibration rows for a level of {level}",
            got=f"{count}" + ("" if (name,) == EVERYONE else f" in group {name!r}"),
            hint="calibrate on more rows, join groups, or ask for a lower level",
        )
    return rank


def checked_scale(scale: Tensor | None, like: Tensor) -> Tensor:
    """Return positive scales of the shape of `like`, 1 where none are given."""
    if scale is None:
        return torch.ones_like(like)
    check_finite("scale", scale)
    if scale.shape != like.shape:
        raise InputError(
            "scale",
            expected=f"the shape of the bounds, {tuple(like.shape)}",
            got=f"shape {tuple(scale.shape)}",
            hint="pass one scale per bound",
        )
    refuse_where(scale <= 0, "scale", scale, "positive values")
    return scale
