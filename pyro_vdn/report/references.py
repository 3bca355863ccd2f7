"""References without a network, from the training targets alone: what any model has to beat."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vdn.diagnostics import crps_normal
from pyro_vdn.train.batches import Pair
from pyro_vdn.train.problem import Problem
from pyro_vdn.train.recipes import ForecastingRecipe

_MOST_ROWS = 20_000
_LEAST_SCALE = 1e-6


@dataclass(frozen=True, eq=False)
class RowScores:
    """What a method scored on every test row, in standard units.

    Args:
        nll: Negative log density of each output by itself, in nats, `(rows, outputs)`.
        joint_nll: That of all outputs of a row together, in nats, `(rows,)`.
        crps: Continuous ranked probability score, `(rows, outputs)`.
        pit: Probability integral transforms, `(rows, outputs)`.
        mse: Mean squared error of the mean.
        mae: Mean absolute error of the median.

    Example:
        >>> scores = normal_scores(torch.zeros(2, 1), torch.ones(2, 1), torch.zeros(2, 1))
        >>> scores.pit[0, 0].item(), scores.mse
        (0.5, 0.0)
    """

    nll: Tensor
    joint_nll: Tensor
    crps: Tensor
    pit: Tensor
    mse: float
    mae: float


def normal_scores(loc: Tensor, scale: Tensor, y: Tensor) -> RowScores:
    """Score normal predictions whose outputs are independent.

    Args:
        loc: Means, of the targets' shape.
        scale: Standard deviations.
        y: Targets, `(rows, outputs)`; NaN for those that are missing.

    Returns:
        The scores.
    """
    missing = y.isnan()
    there = y.masked_fill(missing, 0.0)
    z = (there - loc) / scale
    nll = 0.5 * z.square() + scale.log() + 0.5 * math.log(2 * math.pi)
    nll, crps, pit, error = (
        value.masked_fill(missing, math.nan)
        for value in (nll, crps_normal(loc, scale, there), torch.special.ndtr(z), there - loc)
    )
    return RowScores(
        nll=nll,
        joint_nll=nll.flatten(1).nansum(-1),
        crps=crps,
        pit=pit,
        mse=float(error.square().nanmean()),
        mae=float(error.abs().nanmean()),
    )


def climatology(problem: Problem) -> RowScores:
    """Score the normal distribution of each channel's training targets, whatever the input.

    Args:
        problem: The data.
    """
    y = problem.test[1]
    _, targets, column = _training(problem)
    mean, scale = _moments(targets.unsqueeze(-1), column, len(problem.targets.names))
    column = problem.column
    return normal_scores(mean[column].expand_as(y), scale[column].expand_as(y), y)


def persistence(problem: Problem) -> RowScores:
    """Score the last value, kept, with the errors it made at each step on training windows.

    Args:
        problem: Windows of series.
    """
    x, y = problem.test
    inputs, targets, column = _training(problem)
    errors = targets - inputs[:, -1:]
    bias, spread = _moments(errors.unsqueeze(1), column, len(problem.targets.names))
    scale = (bias.square() + spread.square()).sqrt()  # (channels, steps)
    return normal_scores(x[:, -1:].expand_as(y), scale[problem.column], y)


def simple_references(problem: Problem) -> dict[str, RowScores]:
    """Score every reference that fits the task, by its name.

    Args:
        problem: The data.
    """
    found = {"climatology": climatology(problem)}
    if isinstance(problem.recipe, ForecastingRecipe):
        found["persistence"] = persistence(problem)
    return found


class TokenReference(NamedTuple):
    """Scores of tokens by a reference, of the shape of the tokens.

    Args:
        nll: In nats.
        correct: 1 where its most probable token came, else 0.

    Example:
        >>> TokenReference(torch.zeros(2, 3), torch.ones(2, 3)).nll.shape
        torch.Size([2, 3])
    """

    nll: Tensor
    correct: Tensor


def token_references(
    train: Pair, x: Tensor, y: Tensor, vocabulary: int
) -> dict[str, TokenReference]:
    """Score how often tokens came in training: by themselves, and after the token before them.

    Tokens are counted once more than they came, and pairs as if each token had been followed
    `vocabulary / 10` times more by whatever comes (Dirichlet smoothing): none is impossible.

    Args:
        train: Blocks of training tokens and the tokens after theirs, overlapping by all but one.
        x: Tokens read, `(rows, time)`.
        y: Tokens that followed.
        vocabulary: Number of tokens there are.

    Returns:
        Scores by name, ``"token frequencies"`` and ``"pairs of tokens"``.

    Example:
        >>> text = torch.tensor([[0], [1], [0], [1], [0], [1]])
        >>> found = token_references((text[:-1], text[1:]), text[:1], text[1:2], 2)
        >>> [round(scores.nll.exp().item(), 2) for scores in found.values()]
        [1.75, 1.03]
    """
    before, after = train[0][:, 0].long(), train[1][:, 0].long()
    single = torch.bincount(after, minlength=vocabulary).double() + 1.0
    single = single / single.sum()
    pairs = torch.bincount(before * vocabulary + after, minlength=vocabulary**2).double()
    smoothing = vocabulary / 10
    pairs = pairs.reshape(vocabulary, vocabulary) + smoothing * single
    pairs = pairs / pairs.sum(-1, keepdim=True)
    return {
        "token frequencies": TokenReference(
            -single.log()[y], (single.argmax() == y).to(single.dtype)
        ),
        "pairs of tokens": TokenReference(
            -pairs.log()[x, y], (pairs.argmax(-1)[x] == y).to(single.dtype)
        ),
    }


def _training(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs, targets and channels of training rows, evenly spread where there are many."""
    x, y = problem.train
    channels = len(problem.targets.names)
    column = torch.arange(len(x)) % channels  # windows hold all channels, one after the other
    step = channels * max(1, len(x) // (_MOST_ROWS * channels))
    rows = torch.arange(len(x)) // channels % (step // channels) == 0
    return x[rows], y[rows], column[rows]


def _moments(values: Tensor, column: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over rows and steps of each channel.

    Args:
        values: `(rows, pooled, kept)`.
        column: Channel of each row, `(rows,)`.
        channels: Their number.

    Returns:
        Both `(channels, kept)`.
    """
    means, scales = [], []
    for channel in range(channels):
        own = values[column == channel].flatten(0, 1)  # (rows * pooled, kept)
        means.append(own.mean(0))
        scales.append(own.std(0, correction=0).clamp_min(_LEAST_SCALE))
    return torch.stack(means), torch.stack(scales)
