"""Metrics of predicted tokens over a corpus, from the scores of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor

from pyro_vdn.diagnostics.tokens.token_calibration import (
    CALIBRATION_BINS,
    adaptive_calibration_error,
    expected_calibration_error,
)
from pyro_vdn.diagnostics.tokens.token_scores import TokenScores
from pyro_vdn.errors import InputError

WORST_SHARE = 0.05
"""Share of tokens, those with the largest NLL, that CVaR averages over."""

_WANTED = (*TokenScores._fields, "sequence")


@dataclass(frozen=True)
class TokenSummary:
    r"""Metrics of an averaged predictive distribution over a corpus of N tokens.

    Scores of single tokens are those of :class:`TokenScores`.

    Args:
        nll: Mean NLL, in nats per token.
        perplexity: :math:`e^{\mathrm{nll}}`.
        bits_per_token: :math:`\mathrm{nll} / \log 2`; where tokens are characters, bits per
            character.
        accuracy: Share of tokens whose most probable prediction came true.
        ece: Expected calibration error :math:`\sum_b \frac{n_b}{N} |\mathrm{acc}_b -
            \mathrm{conf}_b|` of the largest probability, over 15 bins of equal width in [0, 1].
        adaptive_ece: The same over 15 bins of (nearly) equal numbers of tokens.
        brier: Mean Brier score over all tokens of the vocabulary, between 0 and 2.
        cvar_nll: Mean NLL of the :math:`\lceil 0.05 N \rceil` tokens with the largest NLL.
        entropy: Mean entropy of the averaged distribution, in nats.
        mutual_information: Mean mutual information of token and draw, in nats.
        expected_entropy: Mean over tokens and draws of the draw's entropy, in nats.
        conditional_variance: Mean variance of a token's probability over draws.
        flip_rate: Mean share of pairs of draws whose most probable tokens differ.
        tokens: Number N of tokens.
        sequences: Number G of sequences that they are in.
        signals: Means of whatever else is known of the tokens, by name, such as the KL of a layer.
        errors: Standard errors of those above that are means over tokens, by name. Tokens of one
            sequence depend on each other and sequences are taken not to, so with
            :math:`u_g = \sum_{t \in g} (x_t - \bar x)` the error is
            :math:`\frac1N \sqrt{\frac{G}{G - 1} \sum_g u_g^2}`; NaN for one sequence. Neighbouring
            stretches of one text are not quite independent either, so it is a little too small.

    Example:
        >>> from pyro_vdn.diagnostics import token_scores
        >>> from pyro_vdn.diagnostics import TokenMetrics
        >>> metrics = TokenMetrics()
        >>> log_probs = torch.tensor([[[[0.5, 0.5], [0.9, 0.1]]]]).log()
        >>> metrics.update(token_scores(log_probs, torch.tensor([[0, 0]])))
        >>> summary = metrics.result()
        >>> round(summary.nll, 4), summary.accuracy, summary.tokens, summary.sequences
        (0.3993, 1.0, 2, 1)

    Source: Guo, Pleiss, Sun and Weinberger, *On Calibration of Modern Neural Networks*, 2017;
    equal-mass bins: Nixon et al., *Measuring Calibration in Deep Learning*, 2019; CVaR: Rockafellar
    and Uryasev, *Optimization of Conditional Value-at-Risk*, 2000; errors by sequence: Liang and
    Zeger, *Longitudinal Data Analysis Using Generalized Linear Models*, 1986.
    """

    nll: float
    perplexity: float
    bits_per_token: float
    accuracy: float
    ece: float
    adaptive_ece: float
    brier: float
    cvar_nll: float
    entropy: float
    mutual_information: float
    expected_entropy: float
    conditional_variance: float
    flip_rate: float
    tokens: int
    sequences: int
    signals: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)

    @property
    def nll_error(self) -> float:
        """Standard error of the NLL, in nats per token."""
        return self.errors["nll"]

    def to_dict(self) -> dict[str, float | int | None]:
        """Return numbers by name for JSON, errors as ``<name>_error``; None if not finite."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        signals, errors = values.pop("signals"), values.pop("errors")
        values |= signals | {f"{name}_error": value for name, value in errors.items()}
        return {name: v if math.isfinite(v) else None for name, v in values.items()}


def summarise_tokens(table: Mapping[str, Tensor]) -> TokenSummary:
    """Return the metrics of tokens whose scores are given by name.

    Args:
        table: Columns `(tokens,)` by name, as `evaluate_tokens` returns them: the scores of
            `TokenScores`, and ``"sequence"``, which sequence each token is in. Other columns of
            floating-point numbers are signals.

    Returns:
        The metrics.

    Raises:
        InputError: If a column is missing or there are no tokens.

    Example:
        >>> table = dict.fromkeys(TokenScores._fields, torch.tensor([0.5, 1.0]))
        >>> table["sequence"] = torch.tensor([0, 1])
        >>> summarise_tokens(table).nll, summarise_tokens(table).cvar_nll
        (0.75, 1.0)
    """
    _check_columns(table)
    means = {name: float(table[name].double().mean()) for name in TokenScores._fields}
    accuracy, _ = means.pop("correct"), means.pop("max_probability")
    others = {k: v for k, v in table.items() if k not in _WANTED and v.is_floating_point()}
    averaged = {name: table[name] for name in means} | {"accuracy": table["correct"]} | others
    members = torch.from_numpy(np.unique(table["sequence"].numpy(), return_inverse=True)[1])
    calibrated = table["max_probability"], table["correct"]
    return TokenSummary(
        **means,
        accuracy=accuracy,
        perplexity=_exp(means["nll"]),
        bits_per_token=means["nll"] / math.log(2),
        ece=expected_calibration_error(*calibrated, bins=CALIBRATION_BINS),
        adaptive_ece=adaptive_calibration_error(*calibrated, bins=CALIBRATION_BINS),
        cvar_nll=cvar(table["nll"]),
        tokens=len(members),
        sequences=int(members.max()) + 1,
        signals={name: float(column.double().mean()) for name, column in others.items()},
        errors={name: block_error(column, members) for name, column in averaged.items()},
    )


def cvar(losses: Tensor, *, share: float = WORST_SHARE) -> float:
    r"""Return the mean of the :math:`\lceil \mathrm{share} \cdot N \rceil` largest losses.

    Args:
        losses: Losses, `(tokens,)`.
        share: Share of tokens that are the worst, in (0, 1].

    Returns:
        The mean.

    Raises:
        InputError: For a share outside (0, 1], or no losses.

    Example:
        >>> cvar(torch.arange(100.0))
        97.0
    """
    if not 0.0 < share <= 1.0:
        raise InputError(
            "share", expected="a share in (0, 1]", got=repr(share), hint="share=0.05 is usual"
        )
    if losses.numel() == 0:
        raise InputError("losses", expected="at least one", got="none", hint="check the group")
    # Without the rounding, 7 % of 100 would be 8 of them: 0.07 * 100 is a little more than 7.
    count = math.ceil(round(share * losses.numel(), 9))
    return float(losses.double().reshape(-1).topk(max(1, count)).values.mean())


def block_error(values: Tensor, members: Tensor) -> float:
    r"""Return the standard error of a mean over tokens of which those of one block may depend.

    .. math:: \frac1N \sqrt{\frac{G}{G - 1} \sum_g \Big( \sum_{t \in g} (x_t - \bar x) \Big)^2}

    Args:
        values: Values :math:`x_t`, `(tokens,)`.
        members: Which of G blocks each is in, integers from 0 to G - 1, `(tokens,)`.

    Returns:
        The error; NaN for one block.

    Example:
        >>> values = torch.tensor([1.0, 1.0, 3.0, 3.0])
        >>> round(block_error(values, torch.arange(4)), 4)
        0.5774
        >>> block_error(values, torch.tensor([0, 0, 1, 1]))
        1.0
    """
    blocks = int(members.max()) + 1
    if blocks < 2:
        return math.nan
    away = values.double() - values.double().mean()
    sums = torch.zeros(blocks, dtype=torch.float64).index_add_(0, members, away)
    return math.sqrt(blocks / (blocks - 1) * float(sums.square().sum())) / len(values)


def _check_columns(table: Mapping[str, Tensor]) -> None:
    missing = [name for name in _WANTED if name not in table]
    if missing:
        raise InputError(
            "table",
            expected=f"columns {', '.join(_WANTED)}",
            got=f"none named {missing[0]!r}",
            hint="evaluate_tokens(model, guide, batches).table",
        )
    if table["nll"].numel() == 0:
        raise InputError("table", expected="at least one token", got="none", hint="check the group")


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
