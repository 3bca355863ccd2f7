"""Scores of predicted tokens, one number per token, on the average over draws."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vdn.diagnostics._checks import refuse_where
from pyro_vdn.errors import InputError
from pyro_vdn.nn.categorical import entropy_of, mean_log_probs, mutual_information
from pyro_vdn.nn.unit_measures import precise

_UNNORMALISED = 1e-2
"""How far the log of a sum of probabilities may be from 0 before they are taken for logits."""


class TokenScores(NamedTuple):
    r"""What an averaged predictive distribution says of each token, and how its draws differ.

    With :math:`p_s` the distribution of draw s over V tokens, :math:`\bar p = \frac1S \sum_s p_s`
    their average and :math:`q \propto \bar p^{1/T}` that average at a temperature T (:math:`\bar p`
    itself at T = 1). The first five are of q, the others of the draws as they are, at T = 1.

    Args:
        nll: :math:`-\log q(y)`, in nats, `(...)`.
        entropy: :math:`H(q) = -\sum_c q_c \log q_c`, in nats, `(...)`.
        max_probability: :math:`\max_c q_c`, `(...)`.
        correct: Whether the most probable token is the target, bool, `(...)`.
        brier: :math:`\sum_c (q_c - 1[c = y])^2`, between 0 and 2, `(...)`.
        mutual_information: :math:`H(\bar p) - \frac1S \sum_s H(p_s)`, in nats, at least 0, `(...)`:
            what knowing the draw would tell about the token.
        expected_entropy: :math:`\frac1S \sum_s H(p_s)`, in nats, `(...)`: the uncertainty that
            stays when the draw is known.
        conditional_variance: :math:`\frac1V \sum_c \frac1S \sum_s (p_{sc} - \bar p_c)^2`, `(...)`:
            the variance of a token's probability over draws (divisor S), averaged over the
            vocabulary with equal weights. V times it is the Brier score that averaging saves.
        flip_rate: Share of the :math:`S (S - 1) / 2` pairs of draws whose most probable tokens
            differ, `(...)`; 0 for one draw. Of draws of one distribution it is unbiased for any S.
            Flip rates elsewhere may be another quantity: the share of draws whose most probable
            token is not that of the mean.

    Example:
        >>> log_probs = torch.tensor([[[0.5, 0.5]], [[0.9, 0.1]]]).log()
        >>> scores = token_scores(log_probs, torch.tensor([0]))
        >>> scores.nll, scores.correct
        (tensor([0.3567]), tensor([True]))
    """

    nll: Tensor
    entropy: Tensor
    max_probability: Tensor
    correct: Tensor
    brier: Tensor
    mutual_information: Tensor
    expected_entropy: Tensor
    conditional_variance: Tensor
    flip_rate: Tensor


def token_scores(log_probs: Tensor, targets: Tensor, *, temperature: float = 1.0) -> TokenScores:
    r"""Score the average :math:`\bar p = \frac1S \sum_s p_s` of draws at each token.

    Averages are of probabilities, taken in logarithms, so that nothing underflows: a target that
    every draw gives a probability of 1e-60 has an NLL of 138 nats. Beyond the input, memory of its
    size is needed once, and of one draw's size a few times.

    Args:
        log_probs: :math:`\log p_s`, in nats, `(draws, ..., vocabulary)`; may be :math:`-\infty`.
        targets: The tokens that came, integers, `(...)`.
        temperature: T of :math:`q \propto \bar p^{1/T}`; above 1 it is flatter than the average.

    Returns:
        Scores, `(...)` each, in single precision at least.

    Raises:
        InputError: For log probabilities that are NaN or do not add up to one, targets that are no
            tokens of the vocabulary or of another shape, or a temperature that is not positive.

    Example:
        >>> scores = token_scores(torch.zeros(3, 2, 4).log_softmax(-1), torch.tensor([0, 3]))
        >>> scores.entropy, scores.mutual_information, scores.brier
        (tensor([1.3863, 1.3863]), tensor([0., 0.]), tensor([0.7500, 0.7500]))

    Source: Brier, *Verification of forecasts expressed in terms of probability*, 1950; mutual
    information: Houlsby et al., *Bayesian Active Learning for Classification*, arXiv:1112.5745.
    """
    log_mean = average_log_probs(log_probs, targets)
    log_q = log_mean if check_temperature(temperature) == 1 else tempered(log_mean, temperature)
    of_draws = _of_draws(log_probs, log_mean)
    return TokenScores(*_of_average(log_q, targets), *of_draws)


def average_log_probs(log_probs: Tensor, targets: Tensor | None = None) -> Tensor:
    r"""Return :math:`\log \bar p = \log \frac1S \sum_s p_s`, checked.

    Args:
        log_probs: :math:`\log p_s`, in nats, `(draws, ..., vocabulary)`.
        targets: Where given, tokens that must fit, `(...)`.

    Returns:
        Log probabilities, `(..., vocabulary)`, in single precision at least.

    Raises:
        InputError: As for `token_scores`.

    Example:
        >>> average_log_probs(torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()).exp()
        tensor([0.7000, 0.3000])
    """
    if log_probs.dim() < 2 or log_probs.numel() == 0 or not log_probs.is_floating_point():
        raise InputError(
            "log_probs",
            expected="floating-point values of shape (draws, ..., vocabulary), none of them 0",
            got=f"{log_probs.dtype} of shape {tuple(log_probs.shape)}",
            hint="`log_probs.unsqueeze(0)` for a single draw",
        )
    if targets is not None:
        check_targets(log_probs[0], targets)
    log_mean = mean_log_probs(log_probs)
    check_normalised(log_mean)
    return log_mean


def tempered(log_probs: Tensor, temperature: float) -> Tensor:
    r"""Return :math:`\log q` with :math:`q \propto p^{1/T}`.

    Args:
        log_probs: :math:`\log p`, `(..., vocabulary)`.
        temperature: T, positive.

    Returns:
        Log probabilities, `(..., vocabulary)`.

    Raises:
        InputError: For a temperature that is not positive.

    Example:
        >>> tempered(torch.tensor([0.8, 0.2]).log(), 0.5).exp()
        tensor([0.9412, 0.0588])
    """
    return (log_probs / check_temperature(temperature)).log_softmax(-1)


def check_temperature(temperature: float) -> float:
    """Refuse a temperature that is not a positive number, and return it.

    Args:
        temperature: T.
    """
    if not 0.0 < temperature < math.inf:
        raise InputError(
            "temperature",
            expected="a positive number",
            got=repr(temperature),
            hint="temperature=1.0 changes nothing",
        )
    return temperature


def check_normalised(log_probs: Tensor) -> None:
    """Refuse log probabilities, `(..., vocabulary)`, that are NaN or do not add up to one.

    Args:
        log_probs: Log probabilities.
    """
    total = log_probs.logsumexp(-1)
    off = ~(total.abs() < _UNNORMALISED)  # true of NaN, too
    refuse_where(
        off, "log_probs", total, "log probabilities, the log of whose sum over tokens is 0"
    )


def check_targets(log_probs: Tensor, targets: Tensor) -> None:
    """Refuse targets, `(...)`, that are no tokens of log probabilities `(..., vocabulary)`.

    Args:
        log_probs: Log probabilities.
        targets: The targets.
    """
    vocabulary = log_probs.shape[-1]
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise InputError(
            "targets", expected="integer tokens", got=f"{targets.dtype}", hint="targets.long()"
        )
    if targets.shape != log_probs.shape[:-1]:
        raise InputError(
            "targets",
            expected=f"shape {tuple(log_probs.shape[:-1])}, one token for each distribution",
            got=f"shape {tuple(targets.shape)}",
            hint="log_probs are (draws, ..., vocabulary), targets (...)",
        )
    targets = targets.long()  # comparisons of some small unsigned types do not exist
    outside = (targets < 0) | (targets >= vocabulary)
    refuse_where(outside, "targets", targets, f"tokens in 0 to {vocabulary - 1}")


def _of_average(log_q: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """Return NLL, entropy, largest probability, correctness and Brier score, `(...)` each."""
    targets = targets.long()
    of_target = log_q.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    best = log_q.max(-1)
    q = log_q.exp()
    # sum_c (q_c - 1[c = y])^2 = sum_c q_c^2 - q_y^2 + (1 - q_y)^2, without large terms to cancel.
    others = q.scatter(-1, targets.unsqueeze(-1), 0.0).square().sum(-1)
    brier = others + torch.expm1(of_target).square()
    highest = best.values.exp().clamp_max(1.0)
    # The entropy of one certain token is 0, not -0.
    return -of_target, entropy_of(log_q).clamp_min(0.0), highest, best.indices == targets, brier


def _of_draws(log_probs: Tensor, log_mean: Tensor) -> tuple[Tensor, ...]:
    """Return mutual information, expected entropy, variance and flip rate, `(...)` each."""
    mean = log_mean.exp()
    entropy, variance = torch.zeros_like(mean[..., 0]), torch.zeros_like(mean[..., 0])
    for draw in log_probs:
        log_p = precise(draw)
        entropy += entropy_of(log_p)
        variance += (log_p.exp() - mean).square().mean(-1)
    entropy, variance = entropy / len(log_probs), variance / len(log_probs)
    information = mutual_information(log_mean, entropy)
    return information, entropy.clamp_min(0.0), variance, _flip_rate(log_probs, mean.dtype)


def _flip_rate(log_probs: Tensor, dtype: torch.dtype) -> Tensor:
    best = log_probs.argmax(-1)  # (draws, ..., vocabulary) -> (draws, ...)
    draws = len(best)
    if draws == 1:
        return torch.zeros(best.shape[1:], dtype=dtype, device=best.device)
    differing = torch.stack([(best != one).sum(0) for one in best]).sum(0)
    return differing.to(dtype) / (draws * (draws - 1))
