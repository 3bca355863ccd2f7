r"""Recalibration of numbers: fitted on validation rows, applied to others.

Classes and tokens have their temperature instead: :func:`fit_temperature`. Both fits here keep the
order of predictions and of draws. `VarianceScaling` has one number per entry, works from few rows
and reaches beyond the draws; `IsotonicPIT` mends any monotone distortion, from hundreds of rows
on, within the range of the draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vdn.diagnostics._checks import check_draws, check_finite, refuse_where
from pyro_vdn.diagnostics.scoring.scores import crps_draws
from pyro_vdn.errors import InputError


@dataclass(frozen=True, eq=False)
class VarianceScaling:
    r"""A factor on the spread about the mean.

    .. math:: \mu + c \, (x - \mu), \qquad \sigma \mapsto c \, \sigma

    Args:
        factor: Factors :math:`c` on standard deviations, positive; they broadcast to targets:
            shape `(1, ...)` with the entries of a row, 1 where entries were fitted together.

    Example:
        >>> mean, variance = torch.zeros(4, 1), torch.ones(4, 1)
        >>> target = torch.tensor([[-2.0], [2.0], [2.0], [-2.0]])
        >>> scaling = VarianceScaling.fit(mean, variance, target)
        >>> scaling.factor, scaling.apply_variance(variance)[0]
        (tensor([[2.]]), tensor([4.]))

    Source: Levi, Gispan, Giladi and Fetaya, *Evaluating and Calibrating Uncertainty Prediction in
    Regression Tasks*, 2022; Laves, Ihler, Fast, Kahrs and Ortmaier, *Well-Calibrated Regression
    Uncertainty in Medical Imaging with Deep Learning*, 2020.
    """

    factor: Tensor

    @classmethod
    def fit(
        cls, mean: Tensor, variance: Tensor, target: Tensor, *, dim: tuple[int, ...] | None = None
    ) -> VarianceScaling:
        r"""Minimise the NLL of Normal predictions, in closed form.

        .. math:: c^2 = \frac{1}{n} \sum_n (y_n - \mu_n)^2 / \sigma_n^2

        Args:
            mean: Predicted means, shape `(rows, ...)`.
            variance: Predicted variances, positive, shape `(rows, ...)`.
            target: Observed values, shape `(rows, ...)`.
            dim: Dimensions fitted together, 0 (rows) among them; all by default. ``dim=(0,)``
                gives a factor per entry, ``dim=(0, 2)`` of `(rows, time, outputs)` one per step.

        Returns:
            The scaling.

        Raises:
            InputError: If shapes disagree, a value is not finite, a variance is not positive, no
                target differs from its mean, or rows are not among the dimensions.
        """
        for what, value in (("mean", mean), ("variance", variance)):
            _check_like(what, value, target)
        refuse_where(variance <= 0, "variance", variance, "positive values")
        pooled = _pooled_dims(dim, target)
        squared = ((target - mean).square() / variance).mean(dim=pooled, keepdim=True)
        refuse_where(squared <= 0, "target", squared, "values that differ from their means")
        return cls(squared.sqrt())

    @classmethod
    def fit_draws(
        cls, draws: Tensor, target: Tensor, *, dim: tuple[int, ...] | None = None
    ) -> VarianceScaling:
        r"""Minimise the CRPS of draws, exactly.

        .. math:: S \sum_n \mathrm{CRPS}_n(c) = \sum_{n, s} |d_{ns}| \, |c - e_n / d_{ns}| - c K,
            \qquad d_{ns} = x_{ns} - \mu_n, \quad e_n = y_n - \mu_n

        is convex and piecewise linear in c, with K half the mean distance between draws, summed:
        its minimum is a weighted quantile of the ratios :math:`e / d`, positive unless most targets
        equal the means of their draws. The score is the V-statistic, under which exact draws get a
        factor near 1 however few they are (the fair score, which takes their mean for known, gives
        1.1 at 20). It needs a sort of all draws; some thousand rows will do.

        Args:
            draws: Draws, at least two, shape `(draws, rows, ...)`.
            target: Observed values, shape `(rows, ...)`.
            dim: As in `fit`.

        Returns:
            The scaling.

        Raises:
            InputError: If shapes disagree, a value is not finite, all draws of an entry are equal,
                most targets equal the means of theirs, there is one draw, or rows are not among the
                dimensions.
        """
        check_draws(draws, target, least=2)
        pooled = _pooled_dims(dim, target)
        return cls(_best_factor(draws, target, pooled))

    @property
    def inverse(self) -> VarianceScaling:
        """The scaling that undoes this one."""
        return VarianceScaling(1.0 / self.factor)

    def apply(self, draws: Tensor) -> Tensor:
        """Scale draws about their mean.

        Args:
            draws: Draws, shape `(draws, rows, ...)`.

        Returns:
            Draws of the same mean, shape `(draws, rows, ...)`.

        Raises:
            InputError: If they are not finite or not of the fit's shape.
        """
        check_finite("draws", draws)
        self._check_entries("draws", draws.shape[1:])
        mean = draws.mean(dim=0)
        return mean + self.factor * (draws - mean)

    def apply_variance(self, variance: Tensor) -> Tensor:
        """Scale variances, by the square of the factor.

        Args:
            variance: Variances, shape `(rows, ...)`.

        Returns:
            Variances, shape `(rows, ...)`.

        Raises:
            InputError: If they are not finite or not of the fit's shape.
        """
        check_finite("variance", variance)
        self._check_entries("variance", variance.shape)
        return self.factor.square() * variance

    def _check_entries(self, what: str, shape: torch.Size) -> None:
        own = self.factor.shape
        if len(shape) != len(own) or any(o not in (1, s) for o, s in zip(own, shape, strict=True)):
            raise InputError(
                what,
                expected=f"rows of shape {tuple(own[1:])}, 1 for any, as in the fit",
                got=f"rows of shape {tuple(shape[1:])}",
                hint="pass the same outputs and steps as in the fit",
            )


def _check_like(what: str, value: Tensor, target: Tensor) -> None:
    check_finite(what, value)
    check_finite("target", target)
    if value.shape != target.shape:
        raise InputError(
            what,
            expected=f"the target's shape {tuple(target.shape)}",
            got=f"shape {tuple(value.shape)}",
            hint="pass one prediction per target",
        )


def _pooled_dims(dim: tuple[int, ...] | None, target: Tensor) -> tuple[int, ...]:
    """Return the dimensions of a target that are fitted together, in order."""
    places = range(target.ndim) if dim is None else dim
    chosen = tuple(sorted({place % max(target.ndim, 1) for place in places}))
    if 0 not in chosen or not all(-target.ndim <= place < target.ndim for place in places):
        raise InputError(
            "dim",
            expected=f"dimensions of a target of shape {tuple(target.shape)}, 0 (rows) among them",
            got=str(dim),
            hint="dim=(0,) fits every entry of a row by itself",
        )
    return chosen


def _best_factor(draws: Tensor, target: Tensor, pooled: tuple[int, ...]) -> Tensor:
    """Return where the CRPS of scaled draws is smallest, with 1 in place of pooled dimensions."""
    mean = draws.mean(dim=0)
    deviation, error = draws - mean, target - mean
    weight = deviation.abs()
    score = crps_draws(deviation, torch.zeros_like(target))
    spread = len(draws) * (weight.mean(dim=0) - score).sum(dim=pooled, keepdim=True)
    refuse_where(spread <= 0, "draws", spread, "draws that differ from each other")
    ratio = torch.where(weight > 0, error / deviation, torch.zeros_like(weight))
    kept = [place for place in range(target.ndim) if place not in pooled]
    order = [0, *(place + 1 for place in (*pooled, *kept))]
    # (draws, pooled..., kept...) -> (all together, kept...)
    ratio, weight = (v.permute(order).flatten(0, len(pooled)) for v in (ratio, weight))
    ratio, by_ratio = ratio.sort(dim=0)
    mass = weight.gather(0, by_ratio).cumsum(dim=0)
    # Weights of ratios below and above the minimum differ by the pull of the spread.
    aim = 0.5 * (mass[-1] + spread.reshape(mass.shape[1:]))
    at = (mass < aim).sum(dim=0, keepdim=True).clamp_max(len(mass) - 1)
    factor = ratio.gather(0, at).reshape(spread.shape)
    refuse_where(factor <= 0, "target", factor, "values that differ from their means")
    return factor
