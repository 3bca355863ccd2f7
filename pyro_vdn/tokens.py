"""Checks of tokens that models and data share."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vdn.errors import InputError


def check_tokens(what: str, tokens: Tensor, vocab_size: int | None = None) -> None:
    """Refuse what is not integers, or not tokens of a vocabulary.

    Args:
        what: The argument.
        tokens: To be integers, of any shape, in 0 to `vocab_size - 1`.
        vocab_size: Number of tokens; None to check the type alone.

    Raises:
        InputError: For numbers that are not integers, or the first token outside.

    Example:
        >>> check_tokens("tokens", torch.tensor([0, 5]), 5)
        Traceback (most recent call last):
            ...
        pyro_vdn.errors.InputError: tokens: expected tokens in 0 to 4, got 5 at (1,). \
Try: the tokenizer that made them, of this vocabulary
    """
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise InputError(
            what,
            expected="integer tokens",
            got=str(tokens.dtype),
            hint="`tokenizer.encode(text)`, or `.long()` on them",
        )
    if vocab_size is None:
        return
    tokens = tokens.long()  # comparisons of some small unsigned types do not exist
    outside = (tokens < 0) | (tokens >= vocab_size)
    if bool(outside.any()):
        place = tuple(outside.nonzero()[0].tolist())
        raise InputError(
            what,
            expected=f"tokens in 0 to {vocab_size - 1}",
            got=f"{int(tokens[place])} at {place}",
            hint="the tokenizer that made them, of this vocabulary",
        )


def check_sequence(what: str, tokens: Tensor, vocab_size: int | None = None) -> None:
    """Refuse what is not one sequence of tokens.

    Args:
        what: The argument.
        tokens: To be integers, `(time,)`.
        vocab_size: Number of tokens; None to check type and shape alone.

    Raises:
        InputError: For another shape, or as for `check_tokens`.

    Example:
        >>> check_sequence("tokens", torch.zeros(2, 3, dtype=torch.long))
        Traceback (most recent call last):
            ...
        pyro_vdn.errors.InputError: tokens: expected one sequence of shape (time,), \
got shape (2, 3). Try: one row at a time
    """
    if tokens.dim() != 1:
        raise InputError(
            what,
            expected="one sequence of shape (time,)",
            got=f"shape {tuple(tokens.shape)}",
            hint="one row at a time",
        )
    check_tokens(what, tokens, vocab_size)


def check_sequences(
    what: str, tokens: Tensor, vocab_size: int, block_size: int, *, like: Tensor | None = None
) -> None:
    """Refuse what is not sequences of tokens of a vocabulary, or is too long.

    Args:
        what: The argument.
        tokens: To be integers in 0 to `vocab_size - 1`, `(..., rows, time)`.
        vocab_size: Number of tokens.
        block_size: Largest number of tokens of a sequence.
        like: Sequences whose shape they must have.

    Raises:
        InputError: For another dtype or shape, or the first token outside of the vocabulary.

    Example:
        >>> check_sequences("tokens", torch.zeros(2, 3, dtype=torch.long), 5, 2)
        Traceback (most recent call last):
            ...
        pyro_vdn.errors.InputError: tokens: expected shape (rows, time) of 1 row or more, with 1 \
to block_size=2 tokens each, got shape (2, 3). Try: `tokens[None, -block_size:]` for the end of \
one sequence
    """
    check_tokens(what, tokens)
    if tokens.dim() < 2 or not 1 <= tokens.shape[-1] <= block_size or not tokens.shape[-2]:
        raise InputError(
            what,
            expected=f"shape (rows, time) of 1 row or more, with 1 to block_size={block_size} "
            "tokens each",
            got=f"shape {tuple(tokens.shape)}",
            hint="`tokens[None, -block_size:]` for the end of one sequence",
        )
    if like is not None and tokens.shape != like.shape:
        raise InputError(
            what,
            expected=f"shape {tuple(like.shape)}",
            got=f"shape {tuple(tokens.shape)}",
            hint="the token after each one, tokens[:, 1:]",
        )
    check_tokens(what, tokens, vocab_size)
