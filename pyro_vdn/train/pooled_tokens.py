"""Scores of the tokens of a corpus under an ensemble of language models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer import TokenDraws
from pyro_vdn.infer.evaluating import evaluating, own_noise
from pyro_vdn.nn.shapes import check_positive
from pyro_vdn.train.evaluate_tokens import (
    MemberDraws,
    TokenBatches,
    TokenEvaluation,
    evaluate_token_draws,
)

Program = Callable[..., Any]


def evaluate_pooled_tokens(
    fitted: Sequence[tuple[Program, Program]],
    batches: TokenBatches,
    *,
    num_samples: int = 16,
    temperature: float = 1.0,
    site: str = "next_token",
    seed: int = 0,
) -> TokenEvaluation:
    r"""Score the averaged predictive distribution of an ensemble at every token of a corpus.

    It is the mixture of its M members' in equal shares, `p(y_t) = 1/M sum_m p_m(y_t)`. The draws of
    all members count as draws of one model, so the mutual information is that of the token and of
    which member and which draw it comes from. Only a batch of draws is held at a time.

    Args:
        fitted: Programs with their guides, at least one, as for `evaluate_tokens`.
        batches: As for `evaluate_tokens`.
        num_samples: Draws per token of all members together, in equal shares; members without
            randomness need one each.
        temperature: As for `evaluate_tokens`.
        site: Name of the categorical site.
        seed: Seed of all draws.

    Returns:
        As `evaluate_tokens`, without statistics of units.

    Raises:
        InputError: As for `evaluate_tokens`, and for no models.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import VariationalGPT
        >>> models = [VariationalGPT(11, block_size=8, num_layers=1, width=16) for _ in range(2)]
        >>> text = torch.randint(11, (5, 9))
        >>> fitted = [(model, NeuronGuide(model)) for model in models]
        >>> evaluate_pooled_tokens(fitted, (text[:, :-1], text[:, 1:])).metrics.tokens
        40
    """
    check_positive(num_samples=num_samples)
    if not fitted:
        raise InputError(
            "fitted", expected="at least one model", got="none", hint="[(model, guide)]"
        )
    each = math.ceil(num_samples / len(fitted))
    members = [MemberDraws(model, guide, each, site) for model, guide in fitted]
    with own_noise(seed), evaluating(*(program for pair in fitted for program in pair)):
        return evaluate_token_draws(
            lambda x: _joined([draw(x).log_probs for draw in members]),
            batches,
            temperature=temperature,
        )


def _joined(log_probs: list[Tensor]) -> TokenDraws:
    """Put the draws of members together, one of many where another has one."""
    most = max(len(draws) for draws in log_probs)
    # A member without randomness has a single draw, which then counts as often as the others'.
    return TokenDraws(torch.cat([draws.expand(most, -1, -1, -1) for draws in log_probs]), {}, {})
