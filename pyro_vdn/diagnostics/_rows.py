"""Data in batches, for what streams over them more than once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias, TypeGuard

import torch
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.nn.shapes import check_rows

Batches: TypeAlias = Iterable[Any]
"""A re-iterable of batches `(x, y)`, such as a `DataLoader`, or one pair of tensors `(x, y)`."""

_SLICE = 1024


class Rows:
    """Batches of inputs and targets that can be gone through again.

    Args:
        batches: A re-iterable of batches: tuples or lists of tensors with rows first, inputs before
            targets. A tuple of tensors is a whole data set and is cut into batches here.
        targets: Whether there must be targets. Without, a batch or the whole may also be a tensor,
            or a tuple or list of it alone, which is then the input; the last one of several tensors
            is the target still, and is not used.
        missing_allowed: Whether NaN stands for what is missing (`reads_missing`).

    Raises:
        InputError: For an iterator, which is empty after one round, or tensors of unequal length.

    Example:
        >>> rows = Rows((torch.zeros(1500, 3), torch.zeros(1500, 1)))
        >>> [len(batch[0]) for batch in rows]
        [1024, 476]
    """

    def __init__(
        self, batches: Batches, *, targets: bool = True, missing_allowed: bool = False
    ) -> None:
        if isinstance(batches, Tensor) and not targets:
            batches = (batches,)
        if isinstance(batches, (Iterator, Tensor)) or not isinstance(batches, Iterable):
            raise InputError(
                "batches",
                expected="batches (x, y) that can be gone through again, or a tuple (x, y)",
                got=type(batches).__name__,
                hint="pass the DataLoader itself, a list of batches, or the tensors (x, y)",
            )
        if _is_whole(batches):
            _check_lengths(batches)
        self.batches = batches
        self.targets = targets
        self.missing_allowed = missing_allowed

    def __iter__(self) -> Iterator[Sequence[Any]]:
        """Iterate over batches `(x, ..., y)`, each checked; `y` is None where there is none."""
        for given in self._batches():
            batch = given
            if not self.targets:
                batch = (given,) if isinstance(given, Tensor) else given
                batch = (*batch, None) if _is_alone(batch) else batch
            if not isinstance(batch, (tuple, list)) or len(batch) < 2 or not _tensors(batch[:-1]):
                raise self._no_batch(given)
            if not isinstance(batch[-1], Tensor) and (self.targets or batch[-1] is not None):
                raise self._no_batch(given)
            check_rows(batch[:-1], batch[-1], missing_allowed=self.missing_allowed)
            yield batch

    def _no_batch(self, given: object) -> InputError:
        either = "" if self.targets else ", or inputs x alone"
        return InputError(
            "batches",
            expected=f"batches that are pairs of tensors (x, y){either}",
            got=type(given).__name__,
            hint="DataLoader(TensorDataset(x, y), batch_size=1024)",
        )

    def spread(self, most: int) -> tuple[list[Tensor], Tensor]:
        """Return inputs and targets of at most `most` rows, evenly spread over the data."""
        total = self.count()
        wanted = torch.arange(min(most, total)) * total // min(most, total)
        parts, start = [], 0
        for batch in self:
            inside = (wanted >= start) & (wanted < start + len(batch[0]))
            at = wanted[inside] - start
            parts.append([value[at.to(value.device)] for value in batch])
            start += len(batch[0])
        *inputs, y = (torch.cat(values) for values in zip(*parts, strict=True))
        return inputs, y

    def count(self) -> int:
        """Return the number of rows, at least 1."""
        total = sum(len(batch[0]) for batch in self)
        check_total(total)
        return total

    def _batches(self) -> Iterator[Any]:
        whole = self.batches
        if not _is_whole(whole):
            yield from whole
            return
        for start in range(0, len(whole[0]), _SLICE):
            yield tuple(value[start : start + _SLICE] for value in whole)


def check_total(rows: int) -> None:
    """Refuse data without a row."""
    if rows == 0:
        raise InputError(
            "batches", expected="at least one row", got="none", hint="check the loader's data"
        )


def _is_alone(batch: object) -> bool:
    return isinstance(batch, (tuple, list)) and len(batch) == 1 and _tensors(batch)


def _is_whole(batches: Batches) -> TypeGuard[tuple[Tensor, ...]]:
    """Say whether these are the tensors of a whole data set."""
    return isinstance(batches, tuple) and bool(batches) and _tensors(batches)


def _check_lengths(whole: tuple[Tensor, ...]) -> None:
    """Refuse tensors of unequal length before they are cut, which would hide it."""
    lengths = [tuple(value.shape[:1]) for value in whole]
    if len(set(lengths)) > 1 or () in lengths:
        raise InputError(
            "x",
            expected="inputs and targets of one number of rows, at least 1",
            got=f"shapes {[tuple(value.shape) for value in whole]}",
            hint="check the first dimension of each tensor",
        )


def _tensors(values: Sequence[object]) -> bool:
    return all(isinstance(value, Tensor) for value in values)
