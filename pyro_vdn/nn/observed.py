"""What is missing: NaN in sequences, split into values to compute with and a mask."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import pyro.poutine
from torch import Tensor

from pyro_vdn.nn.shapes import check_not_infinite


class Observed(NamedTuple):
    """Values without NaN, and where there were any.

    Args:
        values: The values, 0 where one is missing.
        mask: Boolean, True where there is a value; None where nothing is missing.

    Example:
        >>> import torch
        >>> Observed(torch.zeros(3), None).mask is None
        True
    """

    values: Tensor
    mask: Tensor | None


def reads_missing(program: Callable[..., Any]) -> bool:
    """Say whether a model takes NaN for a missing value, which it says by ``reads_missing = True``.

    Args:
        program: A Pyro program, bare or wrapped in effects.

    Example:
        >>> from pyro_vdn.models import Regression, StateSpace
        >>> reads_missing(Regression(3)), reads_missing(StateSpace(3))
        (False, True)
    """
    return bool(getattr(pyro.poutine.unwrap(program), "reads_missing", False))


def count_observed(y: Tensor) -> int:
    """Return how many values are not missing, at least 1, to divide by.

    Args:
        y: Values of any shape and dtype.

    Example:
        >>> import torch
        >>> count_observed(torch.tensor([1.0, torch.nan, 2.0]))
        2
    """
    return max(1, int((~y.isnan()).sum()))


def observed_steps(what: str, x: Tensor) -> Observed:
    """Return the steps of sequences that have input: a step with any NaN has none.

    Args:
        what: What an error calls the sequences.
        x: Sequences, `(..., time, features)`.

    Returns:
        Values `(..., time, features)`, 0 at missing steps, and a mask `(..., time)`.

    Raises:
        InputError: For an infinity.

    Example:
        >>> import torch
        >>> steps = observed_steps("x", torch.tensor([[1.0, 2.0], [3.0, torch.nan]]))
        >>> steps.values.tolist(), steps.mask.tolist()
        ([[1.0, 2.0], [0.0, 0.0]], [True, False])
    """
    check_not_infinite(what, x)
    there = ~x.isnan().any(-1)
    if bool(there.all()):
        return Observed(x, None)
    return Observed(x.masked_fill(~there.unsqueeze(-1), 0.0), there)


def observed_values(what: str, y: Tensor) -> Observed:
    """Return the values that were observed; NaN says that one was not.

    Where the outputs of a step are all there or all missing, the mask has one column for them: a
    joint density of the outputs can then be masked too.

    Args:
        what: What an error calls the values.
        y: Values, `(..., outputs)`.

    Returns:
        Values `(..., outputs)`, 0 where one is missing, and a mask `(..., outputs)` or `(..., 1)`.

    Raises:
        InputError: For an infinity.

    Example:
        >>> import torch
        >>> values = observed_values("y", torch.tensor([[1.0, 2.0], [torch.nan, torch.nan]]))
        >>> values.values.tolist(), values.mask.tolist()
        ([[1.0, 2.0], [0.0, 0.0]], [[True], [False]])
    """
    check_not_infinite(what, y)
    there = ~y.isnan()
    if bool(there.all()):
        return Observed(y, None)
    values = y.masked_fill(~there, 0.0)
    whole = there.any(-1, keepdim=True)
    return Observed(values, whole if bool((there == whole).all()) else there)


def observed_only(targets: Observed | None, *, event_dim: int = 0) -> AbstractContextManager[Any]:
    """Return the context in which a likelihood leaves out what was not observed.

    Args:
        targets: What was observed; None where nothing is given.
        event_dim: Event dimensions of the likelihood, of which the mask has one column.

    Example:
        >>> import torch
        >>> with observed_only(observed_values("y", torch.tensor([[0.0], [torch.nan]]))):
        ...     pass
    """
    if targets is None or targets.mask is None:
        return nullcontext()
    mask = targets.mask.reshape(targets.mask.shape + (1,) * event_dim)
    context: AbstractContextManager[Any] = pyro.poutine.mask(mask=mask)
    return context
