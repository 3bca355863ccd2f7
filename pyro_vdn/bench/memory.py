"""Benchmark: does memory help on real series, with windows in sequence and windows missing?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pyro_vdn.bench.memory_data import COMPLETE, DROPPED, EITHER, GAP, SETTINGS, Setting
from pyro_vdn.bench.memory_methods import METHODS, NAMES, RECIPES, MemoryRecipe
from pyro_vdn.bench.memory_training import score, train_method
from pyro_vdn.bench.results import environment
from pyro_vdn.datasets import SequenceSplits
from pyro_vdn.datasets.checks import unknown_name


@dataclass(frozen=True)
class Regime:
    """What is missing in training and in test.

    Args:
        name: What tables call it.
        trained: What is missing in training and validation.
        tested: What is missing in test.

    Example:
        >>> len({regime.trained for regime in REGIMES})
        2
    """

    name: str
    trained: str
    tested: str


REGIMES = (
    Regime(COMPLETE, COMPLETE, COMPLETE),
    Regime("30 % dropped at test only", COMPLETE, DROPPED),
    Regime(DROPPED, EITHER, DROPPED),
    Regime(GAP, EITHER, GAP),
)


def bench_memory(
    *,
    data: Sequence[str] = NAMES,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    max_steps: int | None = None,
    on_run: Callable[[dict[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """Train and score one network with memory on and off, complete and with windows missing.

    All methods have the same objective (the joint predictive density of each window's horizon, in
    closed form), batches, missing windows and, within a few per cent, parameters. The windows that
    are missing in test are the same for all methods and seeds.

    Args:
        data: Names of `SETTINGS`.
        seeds: Seeds of weights, batches and of what is missing in training.
        max_steps: Gradient steps in place of the recipes'.
        on_run: Called with all results so far after every training.

    Returns:
        ``environment``, ``settings``, ``recipes`` and ``runs``, ready for JSON.

    Raises:
        InputError: For a name that is not one of `SETTINGS`.
    """
    for name in data:
        if name not in RECIPES:
            raise unknown_name("data", name, NAMES)
    recipes = {
        name: RECIPES[name] if max_steps is None else RECIPES[name].with_steps(max_steps)
        for name in data
    }
    settings = [setting for setting in SETTINGS if setting.name in data]
    results: dict[str, Any] = {
        "benchmark": "memory",
        "environment": environment(),
        "settings": [asdict(setting) for setting in settings],
        "recipes": {name: asdict(recipe) for name, recipe in recipes.items()},
        "runs": [],
    }
    parts = {setting.name: setting.load() for setting in settings}
    for seed in seeds:
        for setting in settings:
            for runs in _runs(setting, parts[setting.name], recipes[setting.name], seed):
                results["runs"] += runs
                on_run(results)
    return results


def _runs(
    setting: Setting, parts: SequenceSplits, recipe: MemoryRecipe, seed: int
) -> Iterator[list[dict[str, Any]]]:
    for method in METHODS:
        for trained in dict.fromkeys(regime.trained for regime in REGIMES):
            program, facts = train_method(method, setting, parts, recipe, trained, seed)
            yield [
                {
                    "method": method.name,
                    "data": setting.name,
                    "regime": regime.name,
                    "seed": seed,
                    "metrics": facts | score(program, parts.test, regime.tested, parts.context),
                }
                for regime in REGIMES
                if regime.trained == trained
            ]
