"""What a report on numbers, tables and series, is made of: scores of all methods, and draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pyro_vdn.infer import predict
from pyro_vdn.infer.evaluating import own_noise
from pyro_vdn.report.coverage_findings import Stretch
from pyro_vdn.report.estimates import share_of
from pyro_vdn.report.references import RowScores, simple_references
from pyro_vdn.train.evaluate import Evaluation, predictive
from pyro_vdn.train.members import NEURONS, method_label
from pyro_vdn.train.problem import Problem
from pyro_vdn.train.recipes import ForecastingRecipe
from pyro_vdn.train.tasks import task_of

Program = Callable[..., Any]
Fitted = tuple[Program, Program]
LEVELS = (0.5, 0.9)
"""Levels of the central intervals that tables show."""

_STRETCHES = 8
_MOST_DRAWN = 12_000_000
_MOST_ROWS = 2_000


@dataclass(frozen=True, eq=False)
class Drawn:
    """Draws of the neurons' predictive distribution for some test rows, in standard units.

    Args:
        rows: Which test rows, as far from each other as they are independent, `(rows,)`.
        draws: Draws of whole rows, `(draws, rows, outputs)`.
        targets: What came, `(rows, outputs)`.

    Example:
        >>> Drawn(torch.arange(2), torch.zeros(19, 2, 1), torch.zeros(2, 1)).draws.shape
        torch.Size([19, 2, 1])
    """

    rows: Tensor
    draws: Tensor
    targets: Tensor


@dataclass(frozen=True, eq=False)
class NumberResults:
    """Scores of the neurons and of all they are compared with, row by row.

    Args:
        problem: The data.
        scores: Scores by method, the neurons first.
        labels: What each method is called.
        blocks: Which block each test row is in, from 0, `(rows,)`; rows of one block overlap.
        drawn: Draws of the neurons.

    Example:
        >>> NumberResults(None, {}, {}, torch.arange(3), None).blocks
        tensor([0, 1, 2])
    """

    problem: Problem
    scores: Mapping[str, RowScores]
    labels: Mapping[str, str]
    blocks: Tensor
    drawn: Drawn

    @property
    def independent(self) -> int:
        """Number of blocks."""
        return int(self.blocks.max()) + 1


def number_results(
    models: Mapping[str, Sequence[Fitted]],
    problem: Problem,
    *,
    num_draws: int,
    say: Callable[[str], None],
) -> NumberResults:
    """Score all methods of a run on its test rows, and draw from the neurons.

    Args:
        models: Programs with their guides by method, the neurons first; an ensemble has several.
        problem: The data.
        num_draws: Draws per row for pictures and predictive checks.
        say: Told what is going on.

    Returns:
        The results.
    """
    score = task_of(problem.recipe.task).score
    scores, labels = dict[str, RowScores](), dict[str, str]()
    for name, fitted in models.items():
        labels[name] = method_label(name, len(fitted))
        say(f"scoring the {labels[name]} on {problem.tested_on}")
        scores[name] = _row_scores(score(fitted, problem))
    for name, found in simple_references(problem).items():
        labels[name], scores[name] = name, found
    say("drawing from the neurons")
    drawn = draw_rows(*models[NEURONS][0], problem, num_draws)
    return NumberResults(problem, scores, labels, problem.blocks, drawn)


def draw_rows(model: Program, guide: Program, problem: Problem, num_draws: int) -> Drawn:
    """Draw from a model for test rows that do not overlap, as many as there is room for.

    Args:
        model: The program.
        guide: Its guide.
        problem: The data.
        num_draws: Draws per row.

    Returns:
        The draws; the same every time.
    """
    x, y = problem.test
    blocks = problem.blocks
    channels = len(problem.targets.names) if isinstance(problem.recipe, ForecastingRecipe) else 1
    begins = torch.cat([torch.ones(1, dtype=torch.bool), blocks[1:] != blocks[:-1]])
    first = torch.nonzero(begins).squeeze(-1)
    most = min(_MOST_ROWS, max(1, _MOST_DRAWN // (num_draws * y[0].numel()))) // channels
    if len(first) > most:
        first = first[torch.linspace(0, len(first) - 1, max(1, most)).long()]
    rows = (first.unsqueeze(-1) + torch.arange(channels)).reshape(-1)
    with own_noise(0):
        found = predictive(predict(model, guide, x[rows], num_samples=num_draws, batch_size=128))
    return Drawn(rows, found.draws, y[rows])


def inside(pit: Tensor, level: float) -> Tensor:
    """Return 1 where a target is inside the central interval, 0 where not, NaN where missing.

    Args:
        pit: Probability integral transforms.
        level: Level of the interval.
    """
    held = ((pit - 0.5).abs() <= level / 2).to(pit.dtype)
    return held.masked_fill(pit.isnan(), torch.nan)


def stretches(pit: Tensor, level: float, blocks: Tensor) -> list[Stretch]:
    """Return the coverage of intervals along the horizon, in at most eight stretches.

    Args:
        pit: Probability integral transforms, `(rows, steps)`.
        level: Level of the interval.
        blocks: Which block each row is in, `(rows,)`.

    Returns:
        Stretches in order.

    Example:
        >>> pit = torch.tensor([[0.5, 0.5, 0.99], [0.5, 0.5, 0.98]])
        >>> [(part.last, part.share.value) for part in stretches(pit, 0.9, torch.arange(2))]
        [(1, 1.0), (2, 1.0), (3, 0.0)]
    """
    held = inside(pit.flatten(1), level)
    steps = held.shape[1]
    edges = [round(steps * part / _STRETCHES) for part in range(_STRETCHES + 1)]
    edges = sorted({0, *edges})
    return [
        Stretch(first + 1, last, share_of(held[:, first:last], blocks, level))
        for first, last in pairwise(edges)
    ]


def _row_scores(found: Evaluation) -> RowScores:
    rows, metrics = found.rows, found.metrics
    return RowScores(
        nll=rows["nll"],
        joint_nll=rows["joint_nll"],
        crps=rows["crps"],
        pit=found.pit,
        mse=metrics.mse,
        mae=metrics.mae,
    )
