"""What adaptive intervals remember: levels, recent scores, intervals whose truth is awaited."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(eq=False)
class ScoreWindow:
    """A ring of scores for each entry, which fill at different times.

    Args:
        scores: Scores in any order, infinite where none has come yet, `(window, ...)`.
        seen: How many have come to each entry, `(...)`.
    """

    scores: Tensor
    seen: Tensor

    @classmethod
    def empty(cls, window: int, like: Tensor) -> ScoreWindow:
        """Return a window without scores for entries of the shape of `like`."""
        scores = like.new_full((window, *like.shape), math.inf)
        return cls(scores, torch.zeros_like(like, dtype=torch.long))

    def quantile(self, share: Tensor) -> Tensor:
        """Return the score of rank `ceil((n + 1) share)`, infinite where there is none such.

        Args:
            share: Shares wanted, of any size, `(...)`.

        Returns:
            Scores, `(...)`: infinity above the highest, minus infinity below the lowest.
        """
        count = self.seen.clamp_max(len(self.scores))
        # As for a single margin, the slack forgives the rounding of whole products.
        rank = ((count + 1) * share - 1e-9).ceil().long()
        ordered = self.scores.sort(dim=0).values
        at = (rank - 1).clamp(0, len(ordered) - 1)
        value = ordered.gather(0, at[None])[0]
        value = value.masked_fill(rank > count, math.inf)
        return value.masked_fill(rank < 1, -math.inf)

    def add(self, score: Tensor, known: Tensor) -> None:
        """Put scores in place of the oldest ones, where they are known.

        Args:
            score: New scores, `(...)`.
            known: Where there is one, bool, `(...)`.
        """
        place = (self.seen % len(self.scores))[None]
        kept = torch.where(known, score, self.scores.gather(0, place)[0])
        self.scores = self.scores.scatter(0, place, kept[None])
        self.seen = self.seen + known


@dataclass(eq=False)
class AdaptiveState:
    """Levels and scores of all entries, and what was issued at the times that may still count.

    Args:
        alpha: Miss rates asked for, float64, `(...)`.
        window: Recent scores.
        issued: Bounds and scale as predicted and bounds as issued, `(delay, 5, ...)`, the latest
            last; NaN where none was.
    """

    alpha: Tensor
    window: ScoreWindow
    issued: Tensor

    @classmethod
    def start(cls, like: Tensor, alpha: float, *, window: int, longest: int) -> AdaptiveState:
        """Return the state before the first time, for entries of the shape of `like`."""
        return cls(
            torch.full_like(like, alpha, dtype=torch.float64),
            ScoreWindow.empty(window, like),
            like.new_full((longest, 5, *like.shape), math.nan),
        )

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> AdaptiveState:
        """Return the state whose `tensors` were given."""
        copy = {name: value.clone() for name, value in tensors.items()}
        return cls(copy["alpha"], ScoreWindow(copy["scores"], copy["seen"]), copy["issued"])

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that is remembered, by name."""
        parts = {"alpha": self.alpha, "issued": self.issued}
        parts |= {"scores": self.window.scores, "seen": self.window.seen}
        return {name: value.clone() for name, value in parts.items()}

    def push(self, issued: Tensor | None) -> None:
        """Put what was issued, `(5, ...)` or nothing, in place of what no longer counts."""
        latest = torch.full_like(self.issued[0], math.nan) if issued is None else issued.detach()
        self.issued = torch.cat([self.issued[1:], latest[None]])

    def issued_before(self, delays: Tensor) -> Tensor:
        """Return what was issued `delays` times ago, `(5, ...)`; 1 is the latest."""
        at = (len(self.issued) - delays).expand(self.issued.shape[1:])
        return self.issued.gather(0, at[None])[0]
