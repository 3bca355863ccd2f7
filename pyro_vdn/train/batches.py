"""Training batches as a pure function of the step, so that a run continues exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.nn.shapes import check_rows

Pair: TypeAlias = tuple[Tensor, Tensor]


@runtime_checkable
class HasTensors(Protocol):
    """Data that hand out all their rows, such as `pyro_vdn.datasets.Windows`."""

    def tensors(self) -> Pair:
        """Return inputs and targets."""
        ...


Data: TypeAlias = Pair | HasTensors


def as_pair(what: str, data: Data, *, missing_allowed: bool = False) -> Pair:
    """Return inputs and targets of data, checked.

    Args:
        what: What an error should call them.
        data: A pair of tensors with as many rows, or an object with a method ``tensors()``.
        missing_allowed: Whether NaN is let through, for what is missing.

    Returns:
        Inputs `(rows, ...)` and targets `(rows, outputs)` or, of sequences, `(rows, time,
        outputs)`.

    Raises:
        InputError: For another type, no rows, unequal rows, or values that are not finite.

    Example:
        >>> x, y = as_pair("train", (torch.zeros(3, 2), torch.zeros(3, 1)))
    """
    pair = data.tensors() if isinstance(data, HasTensors) else data
    is_pair = isinstance(pair, (tuple, list)) and len(pair) == 2
    if not is_pair or not all(isinstance(value, Tensor) for value in pair):
        raise InputError(
            what,
            expected="a pair (x, y) of tensors, or data with a method tensors()",
            got=type(data).__name__,
            hint=f"{what}=(x, y), with x (rows, features) and y (rows, outputs)",
        )
    x, y = pair
    if y.dim() < 2:
        raise InputError(
            f"targets of {what}",
            expected="shape (rows, outputs)",
            got=f"shape {tuple(y.shape)}",
            hint="y[:, None] for a single output",
        )
    check_rows((x,), y, missing_allowed=missing_allowed)
    return x, y


class StepBatches:
    """Batches of shuffled rows; the batch of a step depends on seed and step alone.

    Every pass over the rows is a permutation drawn by a generator of its own, seeded by the pass.
    Rows that do not fill a batch at the end of a pass are left for the next one. Of several
    processes each takes its own part of a common batch.

    Args:
        data: Inputs and targets.
        batch_size: Rows per batch and process.
        seed: Seed of the permutations.
        steps: A function without arguments that returns the steps of the coming stretch.
        rank: Number of this process.
        world_size: Number of processes.

    Example:
        >>> data = torch.arange(6.0)[:, None], torch.arange(6.0)[:, None]
        >>> batches = StepBatches(data, 4, seed=0, steps=lambda: range(2))
        >>> [tuple(x.shape) for x, y in batches]
        [(4, 1), (4, 1)]
    """

    def __init__(
        self,
        data: Pair,
        batch_size: int,
        *,
        seed: int,
        steps: Callable[[], range],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.data = data
        rows = len(data[0])
        self.batch_size = max(1, min(batch_size, rows // world_size))
        self.seed = seed
        self.steps = steps
        self.rank = rank
        self.world_size = world_size
        self._pass = -1
        self._order = torch.empty(0, dtype=torch.long)

    def __iter__(self) -> Iterator[Pair]:
        """Go through the batches of the coming stretch of steps."""
        x, y = self.data
        for step in self.steps():
            rows = self.rows(step)
            yield x[rows], y[rows]

    def rows(self, step: int) -> Tensor:
        """Return the row indices of a step, `(batch_size,)`."""
        together = self.batch_size * self.world_size
        per_pass = max(1, len(self.data[0]) // together)
        number, place = divmod(step, per_pass)
        if number != self._pass:
            # A large odd factor keeps the passes of neighbouring seeds apart.
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
            self._order = torch.randperm(len(self.data[0]), generator=generator)
            self._pass = number
        begin = place * together + self.rank * self.batch_size
        return self._order[begin : begin + self.batch_size]
