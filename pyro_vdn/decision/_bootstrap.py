"""Resampling of whole blocks: tokens of one sequence come or stay away together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_vdn.decision._ordering import Array
from pyro_vdn.diagnostics._blocks import block_numbers
from pyro_vdn.diagnostics._checks import check_level
from pyro_vdn.errors import InputError

_WEIGHTS_AT_ONCE = 2**20
"""Most weights in memory at a time: 8 MiB, small enough to stay near the processor."""


class Estimate(NamedTuple):
    """A number with its interval.

    Args:
        value: The number, from the data as they are.
        lower: Lower end of its bootstrap interval.
        upper: Upper end.

    Example:
        >>> Estimate(0.2, 0.1, 0.3).excludes_zero
        True
    """

    value: float
    lower: float
    upper: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside of the interval."""
        return self.lower > 0.0 or self.upper < 0.0


class Bootstrap(NamedTuple):
    """How often blocks are resampled, and the share that an interval is to hold."""

    block: NDArray[np.intp]
    resamples: int
    level: float
    seed: int

    def weights(self) -> Iterator[NDArray[np.int64]]:
        """Yield how often each case comes in resamples, a few at a time, `(some, cases)`."""
        generator = np.random.default_rng(self.seed)
        blocks = int(self.block.max()) + 1
        some = max(1, _WEIGHTS_AT_ONCE // len(self.block))
        for start in range(0, self.resamples, some):
            size = min(some, self.resamples - start)
            drawn = generator.integers(blocks, size=(size, blocks))
            counts = np.stack([np.bincount(row, minlength=blocks) for row in drawn])
            yield counts[:, self.block].astype(np.int64, copy=False)

    def interval(self, samples: Array) -> tuple[Array, Array]:
        """Return the lower and upper percentile over resamples, `(resamples, ...)`."""
        tail = (1.0 - self.level) / 2.0
        lower, upper = np.quantile(samples, [tail, 1.0 - tail], axis=0)
        return lower, upper

    def estimate(self, value: float, samples: Array) -> Estimate:
        """Return a number with the interval of its resamples, `(resamples,)`."""
        lower, upper = self.interval(samples)
        return Estimate(value, float(lower), float(upper))


def bootstrap(
    blocks: Tensor | ArrayLike | None, cases: int, *, resamples: int, level: float, seed: int
) -> Bootstrap:
    """Check the settings of a bootstrap; without blocks every case is one of its own."""
    check_level(level)
    if resamples < 2:
        raise InputError(
            "resamples", expected="at least 2", got=str(resamples), hint="200, or 2000 to publish"
        )
    return Bootstrap(block_numbers(blocks, cases, least=2), resamples, level, seed)
