"""Blocks of a token sequence and the tokens that follow: to train on, and to score each once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from pyro_vdn.errors import InputError
from pyro_vdn.tokens import check_sequence


class TokenBlocks(Dataset[tuple[Tensor, Tensor]]):
    """Blocks of `T` tokens, each with the `T` tokens that come next.

    Block `b` starts at `s = b * stride`: its input is `x = tokens[s : s + T]`, its target
    `y = tokens[s + 1 : s + T + 1]`, so `y[t]` is to be predicted from `x[: t + 1]`. Blocks overlap
    in memory: all of them, one per token, cost nothing, and only what is indexed is copied.

    Args:
        tokens: The sequence, integers `(time,)`.
        block_size: Length of a block, `T`.
        stride: Tokens from the start of one block to the next. With 1 every block is there; with
            `block_size` every target is in one block at most.
        inputs: Another sequence to read the inputs from, `(time,)`, such as
            `corrupt_tokens(tokens, ...)`; the targets are those of `tokens`.

    Raises:
        InputError: If the tokens are not one sequence of integers that holds a block, a length is
            below 1, or `inputs` has another shape.

    Example:
        >>> import torch
        >>> blocks = TokenBlocks(torch.arange(6), 3)
        >>> len(blocks), blocks[1]
        (3, (tensor([1, 2, 3]), tensor([2, 3, 4])))
    """

    def __init__(
        self,
        tokens: Tensor,
        block_size: int,
        *,
        stride: int = 1,
        inputs: Tensor | None = None,
    ) -> None:
        """Lay the blocks over the tokens, without copying them."""
        _require_lengths(block_size=block_size, stride=stride)
        inputs = _paired(tokens, inputs)
        if len(tokens) <= block_size:
            raise InputError(
                "tokens",
                expected=f"at least {block_size + 1}, a block and the token after it",
                got=str(len(tokens)),
                hint="a longer text, or a smaller block_size",
            )
        self.block_size = block_size
        self.stride = stride
        self._x = inputs[:-1].unfold(0, block_size, stride)  # (time,) -> (blocks, block_size)
        self._y = tokens[1:].unfold(0, block_size, stride)

    def __len__(self) -> int:
        """Count the blocks."""
        return len(self._x)

    def __getitem__(self, index: Any) -> tuple[Tensor, Tensor]:
        """Give inputs and targets of one block or of several."""
        return self._x[index], self._y[index]

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Give all blocks as views of the sequences, which share memory: do not write into them.

        Returns:
            Inputs and targets, `(blocks, block_size)`.
        """
        return self._x, self._y


def evaluation_batches(
    tokens: Tensor, block_size: int, batch_size: int, *, inputs: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Go through a sequence so that every token but the first is a target exactly once.

    Blocks follow one another without overlap, in the order of the sequence; what is left at the
    end is a shorter block in a batch of its own. A target at place `t` of its block is predicted
    from `t + 1` tokens.

    Args:
        tokens: The sequence, integers `(time,)`, at least two.
        block_size: Length of a block.
        batch_size: Blocks per batch; fewer in the last one or two.
        inputs: Another sequence to read the inputs from, `(time,)`, such as
            `corrupt_tokens(tokens, ...)`; the targets are those of `tokens`.

    Returns:
        An iterator over inputs and targets, `(rows, time)`.

    Raises:
        InputError: If the tokens are not one sequence of at least two integers, a length is below
            1, or `inputs` has another shape.

    Example:
        >>> import torch
        >>> for x, y in evaluation_batches(torch.arange(8), 3, 2):
        ...     print(y.tolist())
        [[1, 2, 3], [4, 5, 6]]
        [[7]]
    """
    _require_lengths(block_size=block_size, batch_size=batch_size)
    inputs = _paired(tokens, inputs)
    if len(tokens) < 2:
        raise InputError(
            "tokens",
            expected="at least 2, one to predict from and one to predict",
            got=str(len(tokens)),
            hint="a longer text",
        )
    return _batches(inputs[:-1], tokens[1:], block_size, batch_size)


def _batches(
    x: Tensor, y: Tensor, block_size: int, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    step = block_size * batch_size
    whole = len(x) // block_size * block_size
    for begin in range(0, whole, step):
        rows = slice(begin, min(begin + step, whole))
        yield x[rows].view(-1, block_size), y[rows].view(-1, block_size)  # (rows, block_size)
    if whole < len(x):
        yield x[whole:][None], y[whole:][None]  # (1, rest)


def _paired(tokens: Tensor, inputs: Tensor | None) -> Tensor:
    check_sequence("tokens", tokens)
    if inputs is None:
        return tokens
    check_sequence("inputs", inputs)
    if inputs.shape != tokens.shape:
        raise InputError(
            "inputs",
            expected=f"as many as tokens, {len(tokens)}",
            got=str(len(inputs)),
            hint="corrupt_tokens(tokens, ...), which keeps the length",
        )
    return inputs


def _require_lengths(**lengths: int) -> None:
    for name, length in lengths.items():
        if length < 1:
            raise InputError(name, expected="at least 1", got=str(length), hint=f"{name}=64")
