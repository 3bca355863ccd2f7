"""Checks of token sequences, shared by tokenisers, blocks and groups."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vdn.errors import InputError


def require_tokens(what: str, tokens: Tensor, vocab_size: int | None = None) -> None:
    """Refuse what is not integers, or not tokens of a vocabulary.

    Args:
        what: The argument.
        tokens: To be integers, of any shape, in 0 to `vocab_size - 1`.
        vocab_size: Number of tokens; None to check the type alone.

    Raises:
        InputError: For numbers that are not integers, or the first token outside.

    Example:
        >>> require_tokens("tokens", torch.tensor([0, 5]), 5)
        Traceback (most recent call last):
            ...
        pyro_vdn.errors.InputError: tokens: expected tokens in 0 to 4, got 5 at (1,). \
Try: the tokenizer that made them
    """
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise InputError(
            what,
            expected="integer tokens",
            got=str(tokens.dtype),
            hint="tokenizer.encode(text), or .long() on them",
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
            hint="the tokenizer that made them",
        )


def require_sequence(what: str, tokens: Tensor, vocab_size: int | None = None) -> None:
    """Refuse what is not one sequence of tokens.

    Args:
        what: The argument.
        tokens: To be integers, `(time,)`.
        vocab_size: Number of tokens; None to check type and shape alone.

    Raises:
        InputError: For another shape, or as for `require_tokens`.

    Example:
        >>> require_sequence("tokens", torch.zeros(2, 3, dtype=torch.long))
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
    require_tokens(what, tokens, vocab_size)
