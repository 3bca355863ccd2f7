"""Metrics of predicted tokens, gathered batch by batch."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vdn.diagnostics.tokens.token_scores import TokenScores
from pyro_vdn.diagnostics.tokens.token_summary import TokenSummary, summarise_tokens
from pyro_vdn.errors import InputError


class TokenMetrics:
    """Gather the scores of tokens batch by batch.

    Kept are ten numbers per token, whatever the size of the vocabulary: what is a mean could be had
    from sums, calibration in bins of equal mass and the worst tokens could not.

    Example:
        >>> from pyro_vdn.diagnostics import token_scores
        >>> metrics = TokenMetrics()
        >>> for _ in range(2):
        ...     log_probs = torch.randn(5, 3, 8, 11).log_softmax(-1)
        ...     metrics.update(token_scores(log_probs, torch.zeros(3, 8, dtype=torch.long)))
        >>> metrics.result().tokens, metrics.result().sequences
        (48, 6)
    """

    def __init__(self) -> None:
        self._parts: list[dict[str, Tensor]] = []
        self._sequences = 0

    def update(self, scores: TokenScores) -> None:
        """Take in a batch.

        Args:
            scores: Scores of shape `(..., time)`: the last dimension is a sequence, whose tokens
                depend on each other, and the others count sequences.
        """
        if scores.nll.dim() == 0 or scores.nll.numel() == 0:
            raise InputError(
                "scores",
                expected="at least one token, of shape (..., time)",
                got=f"shape {tuple(scores.nll.shape)}",
                hint="`targets.reshape(1, -1)` for tokens of one sequence; skip empty batches",
            )
        part = score_columns(scores)
        part["sequence"] = self._sequences + sequence_numbers(scores.nll)
        self._parts.append(part)
        self._sequences += scores.nll[..., 0].numel()

    def result(self) -> TokenSummary:
        """Return the metrics of all tokens so far.

        Raises:
            InputError: If there are none.
        """
        return summarise_tokens(joined(self._parts))


def score_columns(scores: TokenScores) -> dict[str, Tensor]:
    """Return scores by name as columns, `(tokens,)`, in single precision on the CPU.

    Args:
        scores: Scores of shape `(..., time)`.

    Example:
        >>> from pyro_vdn.diagnostics import token_scores
        >>> scores = token_scores(torch.zeros(1, 2, 3, 4).log_softmax(-1), torch.zeros(2, 3).long())
        >>> score_columns(scores)["correct"].shape
        torch.Size([6])
    """
    flat = {name: value.detach().reshape(-1).cpu() for name, value in scores._asdict().items()}
    return {k: v if v.dtype == torch.bool else v.float() for k, v in flat.items()}


def sequence_numbers(values: Tensor) -> Tensor:
    """Return which sequence each token of `(..., time)` is in, `(tokens,)`, counted from 0.

    Args:
        values: Anything of that shape.
    """
    return torch.arange(values[..., 0].numel()).repeat_interleave(values.shape[-1])


def joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return columns of several batches one after the other.

    Args:
        parts: The batches' columns, all of the same names.
    """
    if not parts:
        raise InputError(
            "tokens",
            expected="at least one batch",
            got="none",
            hint="check the split or the loader",
        )
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
