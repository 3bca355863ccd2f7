"""The choice of a readout, on validation data only, by the published scores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from pyro_vdn.decision.readout_scores import Combined, ReadoutScore, SelectionScore, score
from pyro_vdn.decision.readouts import Readout, candidate_readouts, check_bank, combine
from pyro_vdn.diagnostics.tokens.token_scores import check_targets
from pyro_vdn.errors import InputError

_ELEMENTS_AT_ONCE = 2**21
"""Largest slice of a bank that is read at a time: 8 MiB in float32."""


@dataclass(frozen=True)
class ReadoutChoice:
    """The best readout by one score, and what all candidates had.

    Args:
        readout: The best one.
        by: The score it is best by.
        table: Every candidate, in the order given.

    Example:
        >>> bank = torch.randn(4, 50, 9).log_softmax(-1)
        >>> choice = choose_readout(bank, torch.zeros(50, dtype=torch.long), by="tail")
        >>> min(row.tail for row in choice.table) == choice.score.tail
        True
    """

    readout: Readout
    by: SelectionScore
    table: tuple[ReadoutScore, ...]

    @property
    def score(self) -> ReadoutScore:
        """What the chosen readout had."""
        return next(row for row in self.table if row.readout == self.readout)


class ReadoutScores:
    """Scores of many readouts, gathered batch by batch.

    Holds two numbers per candidate and token, never anything of the vocabulary's size.

    Args:
        candidates: The readouts; every name at every temperature by default.

    Raises:
        InputError: Without any candidate.

    Example:
        >>> scores = ReadoutScores(candidate_readouts(temperatures=[1.0]))
        >>> for _ in range(3):
        ...     targets = torch.randint(9, (2, 8))
        ...     scores.update(torch.randn(4, 2, 8, 9).log_softmax(-1), targets)
        >>> len(scores.table())
        5
    """

    def __init__(self, candidates: Iterable[Readout] | None = None) -> None:
        self.candidates = tuple(candidate_readouts() if candidates is None else candidates)
        if not self.candidates:
            raise InputError(
                "candidates",
                expected="at least one readout",
                got="none",
                hint="candidates=candidate_readouts()",
            )
        self._nll: list[Tensor] = []
        self._confidence: list[Tensor] = []
        self._correct: list[Tensor] = []

    def update(self, log_probs: Tensor, targets: Tensor) -> None:
        """Add the tokens of one batch.

        Args:
            log_probs: Log probabilities of every draw in nats, shape `(draws, ..., vocabulary)`.
            targets: What came, integers, shape `(...)`.

        Raises:
            InputError: If the bank is not finite or not normalised, or the targets do not fit it.
        """
        _check_targets(log_probs, targets)
        draws, *_, vocabulary = log_probs.shape
        bank = log_probs.detach().reshape(draws, -1, vocabulary)
        tokens = targets.reshape(-1).long()
        size = max(1, _ELEMENTS_AT_ONCE // (draws * vocabulary))
        for start in range(0, len(tokens), size):
            self._add(bank[:, start : start + size], tokens[start : start + size])

    def _add(self, bank: Tensor, targets: Tensor) -> None:
        check_bank(bank)
        combined = {
            name: Combined.of(combine(bank, name), targets)
            for name in dict.fromkeys(readout.name for readout in self.candidates)
        }
        seen = [combined[readout.name].at(readout.temperature) for readout in self.candidates]
        nll, confidence = (torch.stack(column) for column in zip(*seen, strict=True))
        self._nll.append(nll)
        self._confidence.append(confidence)
        self._correct.append(torch.stack([combined[r.name].correct for r in self.candidates]))

    def table(self) -> tuple[ReadoutScore, ...]:
        """Return the scores of every candidate, in the order given.

        Raises:
            InputError: Before the first token.
        """
        if not self._nll:
            raise InputError(
                "scores",
                expected="at least one token",
                got="none",
                hint="scores.update(log_probs, targets)",
            )
        nll, confidence, correct = (
            torch.cat(parts, 1) for parts in (self._nll, self._confidence, self._correct)
        )
        return tuple(
            score(readout, nll[i], confidence[i], correct[i])
            for i, readout in enumerate(self.candidates)
        )

    def choose(self, *, by: SelectionScore = "balanced") -> ReadoutChoice:
        """Return the best readout by one of the three scores; of equals, the first.

        Args:
            by: `"calibration"`, `"tail"` or `"balanced"`, as :class:`ReadoutScore` defines them.

        Returns:
            The choice with the scores of all candidates.

        Raises:
            InputError: For an unknown score, or before the first token.
        """
        if by not in get_args(SelectionScore):
            raise InputError(
                "by",
                expected=f"one of {', '.join(get_args(SelectionScore))}",
                got=repr(by),
                hint="by='balanced'",
            )
        table = self.table()
        best: ReadoutScore = min(table, key=lambda row: float(getattr(row, by)))
        return ReadoutChoice(best.readout, by, table)


def choose_readout(
    log_probs: Tensor,
    targets: Tensor,
    *,
    by: SelectionScore = "balanced",
    candidates: Iterable[Readout] | None = None,
) -> ReadoutChoice:
    """Choose a readout of a frozen bank of draws on validation tokens.

    The score of the choice is optimistic: it is the best of many. Report the chosen readout on
    other tokens. A corpus whose bank does not fit in memory goes through :class:`ReadoutScores`.

    Args:
        log_probs: Log probabilities of every draw in nats, shape `(draws, ..., vocabulary)`.
        targets: What came, integers, shape `(...)`.
        by: `"calibration"`, `"tail"` or `"balanced"`, as :class:`ReadoutScore` defines them.
        candidates: The readouts; every name at every temperature by default.

    Returns:
        The choice with the scores of all candidates.

    Raises:
        InputError: If the bank is not finite or not normalised, the targets do not fit it, the
            score is unknown, or there is no candidate.

    Example:
        >>> sure = torch.tensor([[4.0, 0.0]]).log_softmax(-1).expand(1, 10, 2)  # 98 %
        >>> came = torch.tensor([0, 0, 0, 0, 0, 0, 0, 1, 1, 1])                 # 70 %
        >>> choose_readout(sure, came).readout.temperature
        3.0
    """
    scores = ReadoutScores(candidates)
    scores.update(log_probs, targets)
    return scores.choose(by=by)


def _check_targets(log_probs: Tensor, targets: Tensor) -> None:
    if log_probs.ndim < 2 or targets.shape != log_probs.shape[1:-1]:
        raise InputError(
            "targets",
            expected="shape (...) for log_probs of shape (draws, ..., vocabulary)",
            got=f"shape {tuple(targets.shape)} for {tuple(log_probs.shape)}",
            hint="one target per distribution",
        )
    check_targets(log_probs[0], targets)
