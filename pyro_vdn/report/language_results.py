"""What a report on text is made of: every token of the test part under every method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vdn.diagnostics import UnitStatistics, label_stretches
from pyro_vdn.infer import TokenReading, read_tokens
from pyro_vdn.infer.evaluating import own_noise
from pyro_vdn.report.references import token_references
from pyro_vdn.train.language_problem import LanguageProblem
from pyro_vdn.train.language_task import LanguageScores
from pyro_vdn.train.members import NEURONS, method_label
from pyro_vdn.train.tasks import task_of

Program = Callable[..., Any]
_PASSAGE = 700
_MOST_BLOCKS = 60


@dataclass(frozen=True, eq=False)
class LanguageResults:
    """Scores of every token of the test part, by method.

    Args:
        problem: The text.
        scores: Scores of networks by method, the neurons first.
        tables: Columns `(tokens,)` of all methods, of references without a network ``"nll"`` and
            ``"correct"`` alone.
        labels: What each method is called.
        blocks: Which stretch of text each token is in, from 0, `(tokens,)`.
        counts: How often each token came in training, `(vocabulary,)`.
        passage: The beginning of the test part as the neurons read it.

    Example:
        >>> blocks, none = torch.tensor([0, 0, 1]), torch.zeros(0)
        >>> LanguageResults(None, {}, {}, {}, blocks, none, None).independent
        2
    """

    problem: LanguageProblem
    scores: Mapping[str, LanguageScores]
    tables: Mapping[str, Mapping[str, Tensor]]
    labels: Mapping[str, str]
    blocks: Tensor
    counts: Tensor
    passage: TokenReading

    @property
    def independent(self) -> int:
        """Number of stretches."""
        return int(self.blocks.max()) + 1

    @property
    def layers(self) -> Mapping[str, UnitStatistics]:
        """Statistics of the neurons' units by layer."""
        return self.scores[NEURONS].evaluation.layers


def language_results(
    models: Mapping[str, Sequence[tuple[Program, Program]]],
    problem: LanguageProblem,
    *,
    say: Callable[[str], None],
) -> LanguageResults:
    """Score all methods of a run on its test tokens, and read a passage with the neurons.

    Args:
        models: Programs with their guides by method, the neurons first; an ensemble has several.
        problem: The text.
        say: Told what is going on.

    Returns:
        The results.
    """
    scores, labels = dict[str, LanguageScores](), dict[str, str]()
    for name, fitted in models.items():
        labels[name] = method_label(name, len(fitted))
        say(f"scoring the {labels[name]} on {problem.tested_on}")
        scores[name] = task_of(problem.recipe.task).score(fitted, problem)
    tables: dict[str, Mapping[str, Tensor]] = {
        name: found.evaluation.table for name, found in scores.items()
    }
    for name, columns in _references(problem).items():
        labels[name], tables[name] = name, columns
    say("reading a passage")
    model, guide = models[NEURONS][0]
    with own_noise(0):
        passage = read_tokens(
            model, guide, problem.test[:_PASSAGE], num_samples=problem.recipe.num_samples
        )
    sequence = tables[NEURONS]["sequence"]
    stretches = min(_MOST_BLOCKS, int(sequence.max()) + 1)
    return LanguageResults(
        problem=problem,
        scores=scores,
        tables=tables,
        labels=labels,
        blocks=torch.from_numpy(label_stretches(sequence, stretches)),
        counts=_counts(problem),
        passage=passage,
    )


def _references(problem: LanguageProblem) -> dict[str, dict[str, Tensor]]:
    batches = [(x.reshape(-1).long(), y.reshape(-1).long()) for x, y in problem.test_batches()]
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    found = token_references(problem.train, x, y, problem.tokenizer.vocab_size)
    return {name: scores._asdict() for name, scores in found.items()}


def _counts(problem: LanguageProblem) -> Tensor:
    targets = problem.train[1][:, 0].long()
    return torch.bincount(targets, minlength=problem.tokenizer.vocab_size)
