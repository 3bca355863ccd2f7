"""Recalibration by the distribution of PIT values, a monotone map of probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vdn.diagnostics._checks import check_finite, in_chunks, refuse_where
from pyro_vdn.diagnostics.scoring.quantiles import check_levels
from pyro_vdn.errors import InputError


@dataclass(frozen=True, eq=False)
class IsotonicPIT:
    r"""A strictly increasing map of probabilities under which PIT values are uniform.

    .. math:: R(u_{(k)}) = k / (n + 1), \qquad \tilde F(y) = R(F(y)), \qquad
        \tilde q_\tau = q_{R^{-1}(\tau)}

    linear in between, with :math:`R(0) = 0` and :math:`R(1) = 1`. The isotonic regression of the
    empirical distribution of PIT values on those values is that distribution itself, so there is
    nothing to pool but ties. The map is exact on its own rows; on others it errs by about
    :math:`1 / \sqrt{4 n}` at the median. It is marginal: one map for all rows, which corrects
    none of them by itself.

    Args:
        probability: Knots :math:`u`, increasing from 0 to 1, shape `(knots,)`.
        calibrated: The map :math:`R` there, increasing from 0 to 1, shape `(knots,)`.

    Example:
        >>> recalibration = IsotonicPIT.fit(torch.tensor([0.4, 0.5, 0.6]))  # too wide
        >>> recalibration.apply(torch.tensor([0.2, 0.5, 0.6]))
        tensor([0.1250, 0.5000, 0.7500])
        >>> recalibration.levels([0.25, 0.75])
        tensor([0.4000, 0.6000])

    Source: Kuleshov, Fenner and Ermon, *Accurate Uncertainties for Deep Learning Using Calibrated
    Regression*, 2018.
    """

    probability: Tensor
    calibrated: Tensor

    @classmethod
    def fit(cls, pit_values: Tensor) -> IsotonicPIT:
        """Learn the map from the PIT values of validation rows.

        Args:
            pit_values: Probability integral transforms, any shape, in [0, 1]; from draws, the
                randomised ones of :func:`pit`.

        Returns:
            The map.

        Raises:
            InputError: If a value is not finite or lies outside [0, 1].
        """
        _check_probabilities("pit_values", pit_values)
        tiny = torch.finfo(pit_values.dtype).eps
        flat = pit_values.detach().reshape(-1).clamp(tiny, 1.0 - tiny).sort().values
        fresh = torch.ones_like(flat, dtype=torch.bool)
        fresh[1:] = flat.diff() > 0
        knots, first = flat[fresh], fresh.nonzero().squeeze(-1)
        # Equal values share the mean of their ranks, from `first + 1` to that before the next.
        rank = 0.5 * (first + 1 + torch.cat([first[1:], first.new_tensor([len(flat)])]))
        ends = flat.new_tensor([0.0, 1.0])
        share = rank.to(flat.dtype) / (len(flat) + 1)
        return cls(torch.cat([ends[:1], knots, ends[1:]]), torch.cat([ends[:1], share, ends[1:]]))

    def apply(self, probability: Tensor) -> Tensor:
        """Recalibrate probabilities of a predictive distribution function, such as PIT values.

        Args:
            probability: Values in [0, 1], any shape.

        Returns:
            Values in [0, 1], of the same shape.

        Raises:
            InputError: If a value is not finite or lies outside [0, 1].
        """
        _check_probabilities("probability", probability)
        return _interpolated(probability, self.probability, self.calibrated)

    def levels(self, levels: Sequence[float] | Tensor) -> Tensor:
        """Return the levels at which to read the prediction's quantiles.

        The prediction's quantile at the level returned is the recalibrated quantile at the level
        given.

        Args:
            levels: Probabilities wanted, shape `(levels,)`, each in (0, 1).

        Returns:
            Levels of the prediction as it stands, shape `(levels,)`, each in (0, 1).

        Raises:
            InputError: If a level lies outside (0, 1).
        """
        wanted = self.probability.new_tensor(check_levels(levels))
        return _interpolated(wanted, self.calibrated, self.probability)

    def apply_draws(self, draws: Tensor) -> Tensor:
        """Recalibrate draws, each of which keeps its rank among the draws of its entry.

        Joint draws stay joint: the order that ties the steps of a trajectory together is that of
        the model. Nothing lies beyond the outermost draws: predictions that are too narrow need
        many of them, or `VarianceScaling` first.

        Args:
            draws: Draws, shape `(draws, ...)`.

        Returns:
            Draws, shape `(draws, ...)`.

        Raises:
            InputError: If they are not finite or have no dimension of draws.
        """
        check_finite("draws", draws)
        if draws.ndim == 0:
            raise InputError(
                "draws", expected="shape (draws, ...)", got="shape ()", hint="stack the draws first"
            )
        count = len(draws)
        rank = torch.arange(1, count + 1, dtype=self.calibrated.dtype, device=draws.device)
        level = _interpolated(rank / (count + 1), self.calibrated, self.probability)
        place = (level * (count + 1) - 1).clamp(0, count - 1).to(draws.dtype)
        below = place.long().clamp_max(max(count - 2, 0))
        share = (place - below).unsqueeze(-1)

        def of_columns(columns: Tensor) -> Tensor:  # (draws, columns) -> (draws, columns)
            ordered, order = columns.sort(dim=0)
            above = ordered[(below + 1).clamp_max(count - 1)]
            moved = torch.lerp(ordered[below], above, share)
            return torch.empty_like(columns).scatter_(0, order, moved)

        return in_chunks(of_columns, draws.reshape(count, -1)).reshape(draws.shape)


def _check_probabilities(what: str, value: Tensor) -> None:
    check_finite(what, value)
    refuse_where((value < 0) | (value > 1), what, value, "values in [0, 1]")


def _interpolated(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the piecewise linear function through increasing `x` and `y` at places in [0, 1]."""
    at = at.to(x.dtype)
    right = torch.searchsorted(x, at.contiguous()).clamp(1, len(x) - 1)
    share = (at - x[right - 1]) / (x[right] - x[right - 1])
    return torch.lerp(y[right - 1], y[right], share)
