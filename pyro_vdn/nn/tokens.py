"""The check of token sequences."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.nn.shapes import check_shape


def check_tokens(
    what: str, tokens: Tensor, vocab_size: int, block_size: int, *, like: Tensor | None = None
) -> None:
    """Raise `InputError` unless sequences hold tokens of a vocabulary and are not too long.

    Args:
        what: The argument.
        tokens: To be integers in 0 to `vocab_size - 1`, `(..., rows, time)`.
        vocab_size: Number of tokens.
        block_size: Largest number of tokens of a sequence.
        like: Sequences whose shape they must have.

    Raises:
        InputError: For another dtype or shape, or the first token outside of the vocabulary.
    """
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise InputError(
            what,
            expected="integer tokens",
            got=f"{tokens.dtype}",
            hint="`tokenizer.encode(text)`, or `.long()` on them",
        )
    if tokens.dim() < 2 or not 1 <= tokens.shape[-1] <= block_size or not tokens.shape[-2]:
        raise InputError(
            what,
            expected=f"shape (rows, time) of 1 row or more, with 1 to block_size={block_size} "
            "tokens each",
            got=f"shape {tuple(tokens.shape)}",
            hint="`tokens[None, -block_size:]` for the end of one sequence",
        )
    if like is not None:
        check_shape(what, tokens, like.shape, hint="the token after each one, tokens[:, 1:]")
    tokens = tokens.long()  # comparisons of some small unsigned types do not exist
    outside = (tokens < 0) | (tokens >= vocab_size)
    if bool(outside.any()):
        place = tuple(int(i) for i in outside.nonzero()[0])
        raise InputError(
            what,
            expected=f"tokens in 0 to {vocab_size - 1}",
            got=f"{int(tokens[place])} at {place}",
            hint="the tokenizer whose vocabulary the model was made for",
        )
