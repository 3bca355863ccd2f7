"""Reliability of predicted probabilities of an event, without bins."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vdn.diagnostics import _checks
from pyro_vdn.diagnostics._checks import check_finite, check_level, refuse_where
from pyro_vdn.diagnostics.calibration.isotonic import isotonic_fit
from pyro_vdn.errors import InputError
from pyro_vdn.nn.shapes import check_positive

_MOST_POINTS = 201
_BINS = 20


@dataclass(frozen=True, eq=False)
class EventReliability:
    """How often an event came, by the probability given to it, and what that says of the score.

    Args:
        probability: Predicted probabilities, rising, at most 201 of those there were, `(points,)`.
        frequency: Calibrated probabilities there: how often the event came, never falling,
            `(points,)`.
        lower: Lower end of the band that holds the frequencies of calibrated predictions, point by
            point, `(points,)`.
        upper: Upper end, `(points,)`.
        level: Share of calibrated predictions that the band holds at each point.
        count: Predictions in 20 equal bins of [0, 1], `(20,)`.
        miscalibration: How much the Brier score would fall by recalibration.
        discrimination: How much better the recalibrated probabilities are than their mean.
        uncertainty: Brier score of the mean frequency: of the events, not of the predictions.

    Example:
        >>> probability, event = torch.tensor([0.2, 0.2, 0.8, 0.8]), torch.tensor([0, 1, 1, 1])
        >>> found = event_reliability(probability, event)
        >>> found.frequency, found.uncertainty
        (tensor([0.5000, 1.0000], dtype=torch.float64), 0.1875)
    """

    probability: Tensor
    frequency: Tensor
    lower: Tensor
    upper: Tensor
    level: float
    count: Tensor
    miscalibration: float
    discrimination: float
    uncertainty: float

    @property
    def brier_score(self) -> float:
        """Mean square of probability less event: miscalibration - discrimination + uncertainty."""
        return self.miscalibration - self.discrimination + self.uncertainty


def event_reliability(
    probability: Tensor,
    event: Tensor,
    *,
    resamples: int = 200,
    level: float = 0.9,
    effective_count: int | None = None,
    seed: int = 0,
) -> EventReliability:
    r"""Compare probabilities of an event with how often it came: CORP reliability.

    .. math:: \hat f = \operatorname{argmin}_{f_1 \le \dots \le f_n} \sum_i (e_i - f_i)^2, \qquad
        \mathrm{MCB} = S(p) - S(\hat f), \quad \mathrm{DSC} = S(\bar e) - S(\hat f), \quad
        \mathrm{UNC} = S(\bar e)

    with predictions in order and S the Brier score: the calibration curve is the isotonic
    regression of events on probabilities, which needs no bins. For the event that a number does
    not exceed a threshold, the probability is ``(draws <= threshold).double().mean(0)``.

    The band resamples predictions with replacement and draws their events from the predicted
    probabilities themselves.

    Args:
        probability: Predicted probabilities :math:`p`, shape `(...)`, in [0, 1].
        event: Whether the event came :math:`e`, bool or 0 and 1, shape `(...)`.
        resamples: Resamples behind the band.
        level: Share of the resamples inside the band at each point.
        effective_count: Number of independent predictions, the size of a resample; the number of
            all by default. Steps of one forecast move together: pass the number of rows.
        seed: Seed of the resamples. The global random state is neither read nor changed.

    Returns:
        Curve, band and decomposition, in float64.

    Raises:
        InputError: If shapes disagree, a probability lies outside [0, 1], an event is neither 0 nor
            1, or a setting makes no sense.

    Source: Dimitriadis, Gneiting and Jordan, *Stable Reliability Diagrams for Probabilistic
    Classifiers*, 2021.
    """
    check_positive(resamples=resamples)
    check_level(level)
    p, e = _checked(probability, event)
    size = len(p) if effective_count is None else effective_count
    check_positive(effective_count=size)
    p, fit, e = _calibrated(p, e)
    fresh = torch.ones_like(p, dtype=torch.bool)
    fresh[1:] = p.diff() > 0
    points = p[fresh]
    every = torch.linspace(0, len(points) - 1, min(len(points), _MOST_POINTS)).round().long()
    points = points[every]
    lower, upper = _band(p, points, size, resamples, level, seed)
    recalibrated = float((fit - e).square().mean())
    uncertainty = float((e.mean() - e).square().mean())
    return EventReliability(
        probability=points,
        frequency=_at(points, p, fit),
        lower=lower,
        upper=upper,
        level=level,
        count=torch.histc(p, _BINS, 0.0, 1.0).long(),
        miscalibration=float((p - e).square().mean()) - recalibrated,
        discrimination=uncertainty - recalibrated,
        uncertainty=uncertainty,
    )


def _calibrated(p: Tensor, e: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities in order, the isotonic fit and events, `(..., n)` each."""
    # Among equal probabilities events come first: a sequence that falls is fitted by one value.
    e, order = e.sort(dim=-1, descending=True)
    p, again = p.gather(-1, order).sort(dim=-1, stable=True)
    e = e.gather(-1, again)
    return p, isotonic_fit(e), e


def _band(
    p: Tensor, points: Tensor, size: int, resamples: int, level: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Return the band of calibrated predictions at each point, `(points,)` each."""
    generator = torch.Generator().manual_seed(seed)
    block = max(1, _checks.CHUNK_ELEMENTS // (4 * size))
    fits = []
    for start in range(0, resamples, block):
        shape = (min(block, resamples - start), size)
        drawn = p[torch.randint(len(p), shape, generator=generator)]
        came = torch.rand(shape, generator=generator, dtype=p.dtype) < drawn
        ordered, fit, _ = _calibrated(drawn, came.to(p.dtype))
        fits.append(_at(points.expand(shape[0], -1), ordered, fit))
    tail = torch.tensor([(1.0 - level) / 2.0, (1.0 + level) / 2.0], dtype=p.dtype)
    lower, upper = torch.cat(fits).quantile(tail, dim=0)
    return lower, upper


def _at(points: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Interpolate `y` over rising `x`, `(..., n)`, at `(..., points)`; flat beyond the ends."""
    last = x.shape[-1] - 1
    right = torch.searchsorted(x, points.contiguous()).clamp(max=last)
    left = (right - 1).clamp(min=0)
    (x0, x1), (y0, y1) = ((v.gather(-1, left), v.gather(-1, right)) for v in (x, y))
    gap = (x1 - x0).clamp(min=torch.finfo(x.dtype).tiny)
    return torch.lerp(y0, y1, ((points - x0) / gap).clamp(0.0, 1.0))


def _checked(probability: Tensor, event: Tensor) -> tuple[Tensor, Tensor]:
    """Return probabilities and events in float64 on the CPU, `(n,)` each."""
    check_finite("probability", probability)
    outside = (probability < 0) | (probability > 1)
    refuse_where(outside, "probability", probability, "values in [0, 1]")
    if event.shape != probability.shape:
        raise InputError(
            "event",
            expected=f"the shape of probability, {tuple(probability.shape)}",
            got=f"shape {tuple(event.shape)}",
            hint="(target <= threshold) for (draws <= threshold).double().mean(0)",
        )
    refuse_where((event != 0) & (event != 1), "event", event, "True or False, 1 or 0")
    flat = (v.detach().double().cpu().reshape(-1) for v in (probability, event))
    p, e = flat
    return p, e
