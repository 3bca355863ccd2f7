"""Costs of cases that a policy was not chosen on: each fold by what the others choose."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from pyro_vdn.decision._ordering import Array
from pyro_vdn.decision.costs import PolicyCases
from pyro_vdn.diagnostics._blocks import block_numbers
from pyro_vdn.errors import InputError


def held_out_cost(
    cases: PolicyCases,
    paid: Callable[[PolicyCases, PolicyCases], Array],
    *,
    folds: int,
    blocks: Tensor | ArrayLike | None,
    seed: int,
) -> float:
    """Return the mean cost over folds of cases, each paid by what was chosen on the others.

    Args:
        cases: All cases.
        paid: From the cases to choose on, and those held out, to what each of the latter pays.
        folds: Number of folds.
        blocks: Labels of blocks that stay in one fold, `(cases,)`; each case is one without.
        seed: Seed of the division.

    Raises:
        InputError: For fewer than two folds, or more than there are blocks.
    """
    block = block_numbers(blocks, len(cases))
    count = int(block.max()) + 1
    if not 2 <= folds <= count:
        raise InputError(
            "folds",
            expected=f"0 for none, or between 2 and {count}, the number of cases or blocks",
            got=str(folds),
            hint="try 5",
        )
    fold = np.random.default_rng(seed).permutation(count)[block] % folds
    total = sum(
        float(paid(cases.take(fold != number), cases.take(fold == number)).sum())
        for number in range(folds)
    )
    return total / len(cases)
