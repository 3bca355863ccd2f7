"""How the benchmarks train a model of a problem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyro_vdn.train import FitResult, fit
from pyro_vdn.train.problem import Problem


def train(
    problem: Problem, model: Any, seed: int, label: str, callbacks: Sequence[Any] = ()
) -> FitResult:
    """Fit a model by the recipe of its problem.

    Args:
        problem: The rows, and the recipe.
        model: The program, with its effects.
        seed: Seed of batches and noise.
        label: What the progress bar says.
        callbacks: Further Lightning callbacks.

    Returns:
        What `fit` returned; the model holds the best weights.

    Raises:
        KeyboardInterrupt: After Ctrl-C, so that half a training is never scored.
    """
    result = fit(
        model,
        problem.train,
        problem.validation,
        loss=problem.recipe.loss(),
        options=problem.recipe.options(seed),
        progress=label,
        callbacks=callbacks,
    )
    if result.interrupted:
        raise KeyboardInterrupt
    return result
