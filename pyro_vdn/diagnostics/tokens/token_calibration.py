"""Calibration of predicted tokens: does the most probable one come as often as it should?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyro_vdn.diagnostics._checks import check_finite, refuse_where
from pyro_vdn.errors import InputError
from pyro_vdn.nn.shapes import check_positive

CALIBRATION_BINS = 15
"""Bins of a calibration error, as published figures have them."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """How often the most probable token came, by the probability that it was given.

    Args:
        edges: Edges of the bins of that probability, `(bins + 1,)`.
        confidence: Mean probability in each bin, `(bins,)`; NaN where it is empty.
        accuracy: Share of tokens in each bin for which it came, `(bins,)`; NaN where it is empty.
        count: Number of tokens in each bin, `(bins,)`.

    Example:
        >>> reliability_curve(torch.tensor([0.2, 0.9]), torch.tensor([0, 1]), bins=2).count
        tensor([1, 1])
    """

    edges: Tensor
    confidence: Tensor
    accuracy: Tensor
    count: Tensor

    def error(self) -> float:
        """Return the mean distance of accuracy from confidence, weighted by tokens."""
        gaps = (self.accuracy - self.confidence).abs().nan_to_num(0.0)
        return float((gaps * self.count).sum() / self.count.sum())


def reliability_curve(
    max_probability: Tensor, correct: Tensor, *, bins: int = CALIBRATION_BINS
) -> Reliability:
    r"""Compare probabilities of the most probable token with how often it came, in equal bins.

    Bin b holds probabilities in :math:`[b / B, (b + 1) / B)`; the last one holds 1 as well.

    Args:
        max_probability: Probability of the most probable token, `(...)`.
        correct: Whether that token came, bool or 0 and 1, `(...)`.
        bins: Number B of bins.

    Returns:
        The curve, in float64.

    Raises:
        InputError: For probabilities outside [0, 1], or shapes that differ.

    Example:
        >>> highest, correct = torch.tensor([0.6, 0.7, 0.9]), torch.tensor([1, 0, 1])
        >>> curve = reliability_curve(highest, correct, bins=2)
        >>> curve.accuracy, curve.count
        (tensor([   nan, 0.6667], dtype=torch.float64), tensor([0, 3]))
    """
    confidence, hits = _checked(max_probability, correct, bins)
    # Edges in the precision of the probabilities, so that 0.2 in single precision starts a bin.
    inner = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype, device=confidence.device)
    at = torch.bucketize(confidence, inner, right=True).sub(1).clamp_max(bins - 1)
    count = torch.bincount(at, minlength=bins)
    sums = [torch.bincount(at, v.double(), minlength=bins) for v in (confidence, hits)]
    mean_confidence, accuracy = (total / count for total in sums)
    return Reliability(inner.double(), mean_confidence, accuracy, count)


def expected_calibration_error(
    max_probability: Tensor, correct: Tensor, *, bins: int = CALIBRATION_BINS
) -> float:
    r"""Return the expected calibration error over bins of equal width.

    .. math:: \sum_b \frac{n_b}{N} \, |\mathrm{acc}_b - \mathrm{conf}_b|

    It equals that of torchmetrics' ``MulticlassCalibrationError(norm="l1")``, but for probabilities
    of exactly 1, which belong to the last bin here and form one of their own there.

    Args:
        max_probability: Probability of the most probable token, `(...)`.
        correct: Whether that token came, `(...)`.
        bins: Number of bins in [0, 1].

    Returns:
        The error, between 0 and 1.

    Raises:
        InputError: As for `reliability_curve`.

    Example:
        >>> expected_calibration_error(torch.tensor([0.75, 0.75]), torch.tensor([1, 0]))
        0.25

    Source: Guo, Pleiss, Sun and Weinberger, *On Calibration of Modern Neural Networks*, 2017.
    """
    return reliability_curve(max_probability, correct, bins=bins).error()


def adaptive_calibration_error(
    max_probability: Tensor, correct: Tensor, *, bins: int = CALIBRATION_BINS
) -> float:
    r"""Return the expected calibration error over bins of equal mass.

    Tokens in order of their largest probability are cut into bins whose sizes differ by one at
    most. Tokens of one probability count with their common accuracy, so that their order is of no
    consequence.

    Args:
        max_probability: Probability of the most probable token, `(...)`.
        correct: Whether that token came, `(...)`.
        bins: Number of bins; with fewer tokens, one bin each.

    Returns:
        The error, between 0 and 1.

    Raises:
        InputError: As for `reliability_curve`.

    Example:
        >>> confidence = torch.tensor([0.5, 0.5, 0.75, 0.75])
        >>> adaptive_calibration_error(confidence, torch.tensor([1, 0, 1, 1]), bins=2)
        0.125

    Source: Nixon et al., *Measuring Calibration in Deep Learning*, 2019, for the largest
    probability alone.
    """
    confidence, hits = _checked(max_probability, correct, bins)
    values, group, size = np.unique(
        confidence.cpu().numpy(), return_inverse=True, return_counts=True
    )
    accuracy = np.bincount(group, hits.cpu().double().numpy()) / size
    gap = np.repeat(accuracy - values, size)  # in order of probability
    parts = np.array_split(gap, min(bins, len(gap)))
    return float(sum(abs(part.sum()) for part in parts) / len(gap))


def _checked(max_probability: Tensor, correct: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Return probabilities and hits, `(tokens,)` each."""
    check_positive(bins=bins)
    check_finite("max_probability", max_probability)
    outside = (max_probability < 0) | (max_probability > 1)
    refuse_where(outside, "max_probability", max_probability, "probabilities in [0, 1]")
    if correct.shape != max_probability.shape:
        raise InputError(
            "correct",
            expected=f"shape {tuple(max_probability.shape)}, that of max_probability",
            got=f"shape {tuple(correct.shape)}",
            hint="pass the same tokens in both",
        )
    return max_probability.detach().reshape(-1), correct.detach().reshape(-1)
