"""Shifts of token sequences: corrupted contexts."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.tokens import check_tokens


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
    check_tokens("tokens", tokens, vocab_size)
    generator = torch.Generator().manual_seed(seed)
    count = tokens.numel()
    # Both are drawn for all places, whatever the share, so that shares are nested.
    places = torch.randperm(count, generator=generator)[: round(share * count)]
    offsets = torch.randint(1, vocab_size, (count,), generator=generator)
    corrupted = tokens.flatten().to("cpu", torch.long, copy=True)
    corrupted[places] = (corrupted[places] + offsets[places]) % vocab_size
    return corrupted.view(tokens.shape).to(tokens)
