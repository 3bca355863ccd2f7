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
from pyro_vdn.nn.observed import observed_values
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
    `p(y) = 1/S sum_s p(y | z_s)`. Where rows are sequences, read `(rows, time, outputs)` wherever
    `(rows, outputs)` stands.

    Args:
        draws: Draws of the outcome, `(draws, rows, outputs)`.
        log_prob_per_output: Log mixture density of each output (of each step) by itself,
            `log 1/S sum_s p(y_j | z_s)`, `(rows, outputs)`, NaN where the target is missing; None
            without targets.
        log_prob_joint: Log mixture density of all outputs (of all steps) of a row together,
            `log 1/S sum_s prod_j p(y_j | z_s)`, `(rows,)`, missing ones left out; None without
            targets. With many outputs or steps it needs many draws; see `closed_form`.
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

    Per output `log 1/S sum_s p(y_j | z_s)`; jointly `log 1/S sum_s prod_j p(y_j | z_s)`, the
    product over all outputs and, of sequences, all steps that are not missing.

    Args:
        outcome: The likelihood of all draws, as `draw_log_probs` takes it.
        y: Targets, likewise.

    Returns:
        Densities of the shape of the targets, NaN where they are (None where a joint distribution
        does not know its marginals), and `(rows,)`.

    Raises:
        InputError: For targets of another shape.
    """
    per_output, joint = draw_log_probs(outcome, y)
    return None if per_output is None else averaged(per_output), averaged(joint)


def draw_log_probs(outcome: dist.Distribution, y: Tensor) -> tuple[Tensor | None, Tensor]:
    r"""Return the log density of targets given each draw, output by output and jointly.

    Args:
        outcome: The likelihood of all draws, batch shape `(draws, rows, outputs)` or
            `(draws, rows, time, outputs)`, or with 1 in place of outputs that are the event
            dimension.
        y: Targets, `(rows, outputs)` or `(rows, time, outputs)`; NaN where one is missing. Jointly,
            a step whose outputs have one distribution is left out where any of them is missing.

    Returns:
        `log p(y_j | z_s)`, `(draws, *y.shape)`, NaN where a target is (None where a joint
        distribution does not know its marginals), and `sum_j log p(y_j | z_s)`, `(draws, rows)`.

    Raises:
        InputError: For targets of another shape.
    """
    expected = outcome.batch_shape[1:-1] + (outcome.event_shape or outcome.batch_shape[-1:])
    check_density_targets(y, expected)
    seen = observed_values("y", y)
    there = torch.ones_like(y[..., :1], dtype=torch.bool) if seen.mask is None else seen.mask
    if outcome.event_dim == 0:
        log_prob = outcome.log_prob(seen.values)
        return _known(log_prob, there), _of_rows(log_prob, there)
    target = seen.values.unsqueeze(-2)  # (rows, outputs) -> (rows, 1, outputs)
    # A joint density needs all outputs of a step.
    joint = _of_rows(outcome.log_prob(target), there.all(-1, keepdim=True))
    if not hasattr(outcome, "per_output"):
        return None, joint
    return _known(outcome.per_output().log_prob(target).squeeze(-2), there), joint


def averaged(log_prob: Tensor) -> Tensor:
    """Return the log of the mean density of draws.

    Args:
        log_prob: Log densities, `(draws, ...)`.
    """
    return log_prob.logsumexp(0) - math.log(len(log_prob))


def _known(log_prob: Tensor, there: Tensor) -> Tensor:
    return log_prob if bool(there.all()) else log_prob.masked_fill(~there, math.nan)


def _of_rows(log_prob: Tensor, there: Tensor) -> Tensor:
    """Return the log density of all that is there of a row together, `(draws, rows)`."""
    return log_prob.masked_fill(~there, 0.0).flatten(2).sum(-1)


def check_density_targets(y: Tensor, expected: torch.Size) -> None:
    """Raise `InputError` unless targets have the shape of the outcome.

    Args:
        y: Targets.
        expected: The outcome's shape, `(rows, outputs)` or `(rows, time, outputs)`.
    """
    check_shape("y", y, expected, hint="y of the shape that the model's outcome has")


def check_outcome_rows(site: str, outcome: dist.Distribution, rows: int) -> None:
    """Raise `InputError` unless an outcome has draws first, then rows, then outputs.

    Args:
        site: Name of its site.
        outcome: Its distribution, to have batch shape `(draws, rows, outputs)` or `(draws, rows,
            time, outputs)`, or 1 in place of outputs that are its one event dimension.
        rows: Number of rows.
    """
    batch_shape = tuple(outcome.batch_shape)
    if len(batch_shape) < 3 or batch_shape[1] != rows:
        raise InputError(
            f"site '{site}'",
            expected=f"{rows} rows in the outermost plate, outputs or time and outputs after them",
            got=f"batch shape {batch_shape[1:]}",
            hint="rows at dim=-2, or dim=-3 with time at -2",
        )
    if outcome.event_dim > 1:
        raise InputError(
            f"site '{site}'",
            expected="at most one event dimension, that of outputs",
            got=f"event shape {tuple(outcome.event_shape)}",
            hint=".to_event(1) over outputs; time in a plate at dim -2",
        )
