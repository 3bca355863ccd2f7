"""Averages and entropies of distributions over tokens, given as log probabilities."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_vdn.nn.unit_measures import precise


def mean_log_probs(log_probs: Tensor) -> Tensor:
    r"""Return :math:`\log \bar p = \log \frac1S \sum_s p_s`, in single precision at least.

    Args:
        log_probs: :math:`\log p_s`, in nats, `(draws, ..., vocabulary)`; may be :math:`-\infty`.

    Returns:
        Log probabilities, `(..., vocabulary)`.

    Example:
        >>> mean_log_probs(torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()).exp()
        tensor([0.7000, 0.3000])
    """
    return precise(log_probs).logsumexp(0) - math.log(len(log_probs))


def entropy_of(log_probs: Tensor) -> Tensor:
    """Return entropies in nats, `(...)`, of log probabilities `(..., vocabulary)`.

    Args:
        log_probs: Log probabilities; those of impossible tokens may be infinite.

    Example:
        >>> entropy_of(torch.tensor([[0.5, 0.5], [1.0, 0.0]]).log())
        tensor([0.6931, -0.0000])
    """
    least = torch.finfo(log_probs.dtype).min  # 0 times it is 0, not NaN
    return -(log_probs.exp() * log_probs.clamp_min(least)).sum(-1)


def mutual_information(log_mean: Tensor, expected_entropy: Tensor) -> Tensor:
    r"""Return :math:`H(\bar p) - \frac1S \sum_s H(p_s)` in nats, `(...)`, at least 0.

    Args:
        log_mean: What `mean_log_probs` returned, `(..., vocabulary)`.
        expected_entropy: Mean entropy of the draws, `(...)`.

    Example:
        >>> log_probs = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).log()
        >>> mutual_information(mean_log_probs(log_probs), entropy_of(log_probs).mean(0))
        tensor(0.6931)
    """
    # At least 0 by Jensen's inequality, up to rounding.
    return (entropy_of(log_mean) - expected_entropy).clamp_min(0.0)
