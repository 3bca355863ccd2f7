"""Shifts of token sequences: corrupted contexts, and targets that are rare or common."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vdn.datasets.token_checks import require_tokens
from pyro_vdn.errors import InputError

FREQUENCY_GROUPS = ("rare", "medium", "common")


def corrupt_tokens(tokens: Tensor, share: float, vocab_size: int, *, seed: int) -> Tensor:
    """Replace a share of tokens by other ones.

    `round(share n)` of the `n` places are drawn without replacement; each gets one of the
    `vocab_size - 1` other tokens, all as likely. With the same seed a larger share keeps every
    replacement of a smaller one and adds some: doses of one treatment.

    Corrupt the **sequence**, once, and read inputs alone from it: targets stay clean, and a token
    is wrong in every context it stands in, overlapping blocks included.

    Args:
        tokens: Tokens of any shape; not written into.
        share: The share of places, from 0 to 1.
        vocab_size: Number of tokens, at least 2.
        seed: Seed of the places and of what is put there.

    Returns:
        The corrupted tokens, of the same shape and type.

    Raises:
        InputError: If the share is not in [0, 1], the vocabulary has no other token, or the tokens
            are not integers of it.

    Example:
        >>> from pyro_vdn.datasets import evaluation_batches
        >>> tokens = torch.arange(10)
        >>> noisy = corrupt_tokens(tokens, 0.3, 10, seed=0)
        >>> int((noisy != tokens).sum())
        3
        >>> (x, y), = evaluation_batches(tokens, 9, 1, inputs=noisy)
        >>> y.tolist()
        [[1, 2, 3, 4, 5, 6, 7, 8, 9]]
    """
    if not 0 <= share <= 1:
        raise InputError(
            "share", expected="a share of the tokens in [0, 1]", got=str(share), hint="share=0.15"
        )
    if vocab_size < 2:
        raise InputError(
            "vocab_size",
            expected="at least 2, a token and another",
            got=str(vocab_size),
            hint="tokenizer.vocab_size",
        )
    require_tokens("tokens", tokens, vocab_size)
    generator = torch.Generator().manual_seed(seed)
    count = tokens.numel()
    # Both are drawn for all places, whatever the share, so that shares are nested.
    places = torch.randperm(count, generator=generator)[: round(share * count)]
    offsets = torch.randint(1, vocab_size, (count,), generator=generator)
    corrupted = tokens.flatten().to("cpu", torch.long, copy=True)
    corrupted[places] = (corrupted[places] + offsets[places]) % vocab_size
    return corrupted.view(tokens.shape).to(tokens)


@dataclass(frozen=True, eq=False)
class TokenGroups:
    """Groups of the tokens of a vocabulary.

    Args:
        labels: The group of every token, int64 `(vocab_size,)`.
        names: The names of the groups, lowest label first.

    Example:
        >>> groups = TokenGroups(torch.tensor([1, 0, 0]), ("rare", "common"))
        >>> groups.of(torch.tensor([[0, 2]]))
        tensor([[1, 0]])
    """

    labels: Tensor
    names: tuple[str, ...]

    def of(self, tokens: Tensor) -> Tensor:
        """Say which group each token belongs to.

        Args:
            tokens: Tokens of any shape.

        Returns:
            The label of each, int64, of the same shape.

        Raises:
            InputError: If they are not tokens of the vocabulary.
        """
        require_tokens("tokens", tokens, len(self.labels))
        return self.labels[tokens.long()]


def rare_tokens(
    train_tokens: Tensor, vocab_size: int, *, rare: float = 0.1, common: float = 0.5
) -> TokenGroups:
    """Divide a vocabulary into rare, medium and common tokens by their frequency in training.

    Let `m(c)` be the share of the training tokens whose own count is at most `c`. A token of count
    `c` is rare if `m(c) <= rare`: rare tokens make up at most that share of the training text, and
    tokens that never occur are rare. It is common if the more frequent ones make up less than
    `common`, `1 - m(c) < common`. Tokens of equal count are in the same group.

    Args:
        train_tokens: The tokens of the training part, of any shape.
        vocab_size: Number of tokens.
        rare: Share of the training text, at most, that rare tokens make up.
        common: Share of the training text that common ones reach.

    Returns:
        Labels 0 rare, 1 medium, 2 common, `(vocab_size,)`.

    Raises:
        InputError: If the tokens are not of the vocabulary or there are none, or the shares are
            not positive with a sum of at most 1.

    Example:
        >>> tokens = torch.tensor([0] * 6 + [1] * 3 + [2])
        >>> rare_tokens(tokens, 4).labels  # token 3 never occurs
        tensor([2, 1, 0, 0])
    """
    if not (rare > 0 and common > 0 and rare + common <= 1):
        raise InputError(
            "shares of the training text",
            expected="rare and common above 0, together at most 1",
            got=f"rare={rare}, common={common}",
            hint="rare=0.1, common=0.5",
        )
    require_tokens("train_tokens", train_tokens, vocab_size)
    if train_tokens.numel() == 0:
        raise InputError(
            "train_tokens", expected="at least one token", got="none", hint="splits.train"
        )
    counts = torch.bincount(train_tokens.flatten().long(), minlength=vocab_size)  # (vocab_size,)
    ordered, _ = counts.sort()
    at_most = torch.searchsorted(ordered, counts, right=True)  # tokens of no larger count
    mass = ordered.cumsum(0)[at_most - 1].double()  # training tokens of such a count or less
    total = train_tokens.numel()
    labels = torch.ones_like(counts)
    labels[total - mass < common * total] = 2
    labels[mass <= rare * total] = 0
    return TokenGroups(labels, FREQUENCY_GROUPS)
