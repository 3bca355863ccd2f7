"""Metrics of groups of tokens, and the groups that one asks about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_vdn.diagnostics._blocks import check_lengths
from pyro_vdn.diagnostics._checks import as_array
from pyro_vdn.diagnostics.tokens.token_summary import TokenSummary, summarise_tokens
from pyro_vdn.errors import InputError
from pyro_vdn.nn.shapes import check_positive


def by_group(
    table: Mapping[str, Tensor], labels: Tensor | ArrayLike
) -> dict[str | int | float, TokenSummary]:
    """Return the metrics of each group of tokens, with standard errors by sequence.

    Args:
        table: Columns `(tokens,)` by name, as `evaluate_tokens` returns them.
        labels: The group of each token, numbers or strings, `(tokens,)`.

    Returns:
        Metrics by label, labels in ascending order.

    Raises:
        InputError: For another number of labels, or a column that is missing.

    Example:
        >>> from pyro_vdn.diagnostics import TokenScores
        >>> table = dict.fromkeys(TokenScores._fields, torch.tensor([0.2, 0.4, 0.9]))
        >>> table["sequence"] = torch.arange(3)
        >>> found = by_group(table, ["rare", "common", "rare"])
        >>> {label: round(metrics.nll, 2) for label, metrics in found.items()}
        {'common': 0.4, 'rare': 0.55}
    """
    given = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    check_lengths("labels", given, len(next(iter(table.values()), ())))
    names, members = np.unique(given, return_inverse=True)
    found: dict[str | int | float, TokenSummary] = {}
    for at, name in enumerate(names.tolist()):
        chosen = torch.from_numpy(members == at)
        found[name] = summarise_tokens({k: column[chosen] for k, column in table.items()})
    return found


def label_frequency(
    targets: Tensor, counts: Tensor, *, rare_share: float = 0.1
) -> NDArray[np.str_]:
    """Call each target ``"rare"`` or ``"common"`` by how often it came in training.

    Rare are the least frequent tokens of the vocabulary, as many as make up at most `rare_share` of
    the text that was counted; tokens of equal count are called the same.

    Args:
        targets: Tokens, integers, `(...)`.
        counts: How often each token of the vocabulary came, `(vocabulary,)`: of the *training*
            text, ``torch.bincount(train, minlength=vocab_size)``.
        rare_share: Share of the text that rare tokens make up at most, in (0, 1).

    Returns:
        Labels, `(...)`.

    Raises:
        InputError: For a share outside (0, 1), or counts that are negative, all 0 or too few.

    Example:
        >>> label_frequency(torch.tensor([0, 1, 2]), torch.tensor([95, 3, 2]))
        array(['common', 'rare', 'rare'], dtype='<U6')
    """
    if not 0.0 < rare_share < 1.0:
        raise InputError(
            "rare_share", expected="a share in (0, 1)", got=repr(rare_share), hint="rare_share=0.1"
        )
    needed = int(targets.max()) + 1
    if counts.dim() != 1 or len(counts) < needed or bool((counts < 0).any()) or not counts.any():
        raise InputError(
            "counts",
            expected=f"counts of a vocabulary of at least {needed} tokens, some above 0",
            got=f"shape {tuple(counts.shape)}",
            hint="torch.bincount(train, minlength=vocab_size)",
        )
    counts = counts.cpu()
    ordered = counts.sort().values
    # How much of the text is in tokens as rare as each, itself and its equals included.
    mass = ordered.double().cumsum(0)[torch.searchsorted(ordered, counts, right=True) - 1]
    rare = mass <= rare_share * float(counts.sum())
    return np.where(rare[targets.cpu().long()].numpy(), "rare", "common")


def label_ranges(values: Tensor | ArrayLike, edges: Sequence[float]) -> NDArray[np.intp]:
    """Number ranges of values, such as lengths of context: 0 below the first edge, and so on.

    Args:
        values: Values, `(tokens,)`, such as ``table["position"]``.
        edges: Where a range ends and the next begins, rising; a value at an edge is in the next.

    Returns:
        Numbers of ranges, from 0 to `len(edges)`, `(tokens,)`; a dose for `dose_response`.

    Raises:
        InputError: For edges that do not rise.

    Example:
        >>> label_ranges([0, 7, 8, 40], (8, 32))
        array([0, 0, 1, 2])
    """
    borders = as_array("edges", edges, ndim=1, sizes="(edges,)")
    if (np.diff(borders) <= 0).any():
        raise InputError("edges", expected="rising edges", got=str(tuple(edges)), hint="(8, 32)")
    array = as_array("values", values, ndim=1, sizes="(tokens,)")
    return np.searchsorted(borders, array, side="right")


def label_stretches(sequence: Tensor, count: int) -> NDArray[np.intp]:
    """Number stretches of a corpus in its order, such as time: equally many sequences in each.

    Args:
        sequence: Which sequence each token is in, in order, from 0, as ``table["sequence"]``,
            `(tokens,)`.
        count: Number of stretches.

    Returns:
        Numbers of stretches, from 0 to `count - 1`, `(tokens,)`; a dose for `dose_response`.

    Raises:
        InputError: For more stretches than sequences.

    Example:
        >>> label_stretches(torch.tensor([0, 0, 1, 2, 3, 3]), 2)
        array([0, 0, 0, 1, 1, 1])
    """
    check_positive(count=count)
    sequences = int(sequence.max()) + 1
    if count > sequences:
        raise InputError(
            "count", expected=f"at most {sequences}, one sequence each", got=str(count), hint="5"
        )
    numbers: NDArray[np.intp] = sequence.cpu().numpy() * count // sequences
    return numbers
