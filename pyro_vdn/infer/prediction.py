"""What a prediction holds, and the densities of mixtures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.nn.shapes import check_shape


@dataclass(frozen=True)
class ClosedForm:
    """The predictive distribution with the last neurons integrated out.

    It is exact or by matched moments.

    Args:
        mean: `(rows, outputs)`.
        variance: `(rows, outputs)`.
        draws: Draws of whole rows from it, `(draws, rows, outputs)`.
        log_prob_per_output: Log density of the targets, output by output, `(rows, outputs)`, or
            None without targets.
        log_prob_joint: Joint log density of each row's targets, `(rows,)`, or None without targets.

    Example:
        >>> ClosedForm(torch.zeros(2, 1), torch.ones(2, 1), torch.zeros(10, 2, 1)).mean.shape
        torch.Size([2, 1])
    """

    mean: Tensor
    variance: Tensor
    draws: Tensor
    log_prob_per_output: Tensor | None = None
    log_prob_joint: Tensor | None = None


@dataclass(frozen=True)
class Prediction:
    r"""Draws from the posterior predictive distribution and what follows from them.

    With S draws `z_s` of the neurons, the predictive density is the mixture
    `p(y) = 1/S sum_s p(y | z_s)`.

    Args:
        draws: Draws of the outcome, `(draws, rows, outputs)`.
        log_prob_per_output: Log mixture density of each output by itself,
            `log 1/S sum_s p(y_j | z_s)`, `(rows, outputs)`; None without targets.
        log_prob_joint: Log mixture density of each row's outputs together,
            `log 1/S sum_s prod_j p(y_j | z_s)`, `(rows,)`; None without targets. With many outputs
            it needs many draws; see `closed_form`.
        closed_form: The predictive distribution with the last neurons integrated out, where the
            model offers it for a single layer of neurons; else None.

    Example:
        >>> prediction = Prediction(torch.zeros(10, 2, 1))
        >>> prediction.mean.shape, prediction.quantiles([0.05, 0.5, 0.95]).shape
        (torch.Size([2, 1]), torch.Size([3, 2, 1]))
    """

    draws: Tensor
    log_prob_per_output: Tensor | None = None
    log_prob_joint: Tensor | None = None
    closed_form: ClosedForm | None = None

    @property
    def mean(self) -> Tensor:
        """Mean of the draws, `(rows, outputs)`."""
        return self._numbers.mean(0)

    @property
    def variance(self) -> Tensor:
        """Variance of the draws, `(rows, outputs)`."""
        return self._numbers.var(0)

    @property
    def _numbers(self) -> Tensor:
        """The draws as floating-point numbers, which classes and counts are not."""
        return self.draws if torch.is_floating_point(self.draws) else self.draws.float()

    def quantiles(self, levels: Sequence[float]) -> Tensor:
        """Return quantiles of the draws at `levels` in [0, 1], `(levels, rows, outputs)`."""
        at = torch.as_tensor(list(levels), dtype=self._numbers.dtype, device=self.draws.device)
        if not bool(((at >= 0) & (at <= 1)).all()):
            raise InputError(
                "levels",
                expected="values in [0, 1]",
                got=str(list(levels)),
                hint="[0.05, 0.5, 0.95]",
            )
        return torch.quantile(self._numbers, at, dim=0)


def joined(batches: list[Prediction]) -> Prediction:
    """Return the prediction of all rows, given those of batches."""
    return Prediction(
        torch.cat([batch.draws for batch in batches], dim=1),
        cat([batch.log_prob_per_output for batch in batches]),
        cat([batch.log_prob_joint for batch in batches]),
        joined_forms([batch.closed_form for batch in batches]),
    )


def joined_forms(forms: list[ClosedForm | None]) -> ClosedForm | None:
    """Return the closed form of all rows, or None where a batch has none."""
    known = [form for form in forms if form is not None]
    if len(known) < len(forms):
        return None
    return ClosedForm(
        torch.cat([form.mean for form in known]),
        torch.cat([form.variance for form in known]),
        torch.cat([form.draws for form in known], dim=1),
        cat([form.log_prob_per_output for form in known]),
        cat([form.log_prob_joint for form in known]),
    )


def cat(values: list[Any]) -> Any:
    """Concatenate tensors, or return None where there are none."""
    return None if values[0] is None else torch.cat(values)


def mixture_log_probs(outcome: dist.Distribution, y: Tensor) -> tuple[Tensor | None, Tensor]:
    r"""Return the log mixture density of targets, output by output and jointly.

    Per output `log 1/S sum_s p(y_j | z_s)`; jointly `log 1/S sum_s prod_j p(y_j | z_s)`.

    Args:
        outcome: The likelihood of all draws, batch shape `(draws, rows, outputs)`, or
            `(draws, rows, 1)` with the outputs as event dimension.
        y: Targets, `(rows, outputs)`.

    Returns:
        Densities `(rows, outputs)` (None where a joint distribution does not know its marginals)
        and `(rows,)`.

    Raises:
        InputError: For targets of another shape.
    """
    expected = outcome.batch_shape[-2:-1] + (outcome.event_shape or outcome.batch_shape[-1:])
    check_density_targets(y, expected)
    log_draws = math.log(outcome.batch_shape[0])
    if outcome.event_dim == 0:
        log_prob = outcome.log_prob(y)
        return log_prob.logsumexp(0) - log_draws, log_prob.sum(-1).logsumexp(0) - log_draws
    target = y.unsqueeze(-2)  # (rows, outputs) -> (rows, 1, outputs)
    joint = outcome.log_prob(target).squeeze(-1).logsumexp(0) - log_draws
    if not hasattr(outcome, "per_output"):
        return None, joint
    return outcome.per_output().log_prob(target).squeeze(-2).logsumexp(0) - log_draws, joint


def check_density_targets(y: Tensor, expected: torch.Size) -> None:
    """Raise `InputError` unless targets have the shape of the outcome.

    Args:
        y: Targets.
        expected: The outcome's shape, `(rows, outputs)`.
    """
    check_shape("y", y, expected, hint="y of shape (rows, outputs)")
