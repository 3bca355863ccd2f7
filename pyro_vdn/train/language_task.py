"""Runs on text: how a language model is trained, scored and drawn."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pyro_vdn.diagnostics import (
    LayerUsage,
    TokenSummary,
    latent_usage,
    plot_contraction,
    plot_reliability,
    plot_unit_activity,
    reliability_curve,
    save,
)
from pyro_vdn.train.anneal import Anneal
from pyro_vdn.train.evaluate_tokens import TokenEvaluation, evaluate_tokens
from pyro_vdn.train.freeze import Freeze
from pyro_vdn.train.language_problem import (
    LanguageConfig,
    LanguageProblem,
    load_language,
    load_language_again,
)
from pyro_vdn.train.language_recipe import Annealed
from pyro_vdn.train.parameters import count_parameters
from pyro_vdn.train.prior_matching import MatchPriors
from pyro_vdn.train.tasks import Plan, Task

Program = Callable[..., Any]
_EVALUATION_SEED = 7
_USAGE = ("units", "kl", "kl_per_unit", "mu2", "scale", "active_share", "contraction")


@dataclass(frozen=True, eq=False)
class LanguageMetrics:
    """Scores of a language model on the test part of a text.

    Args:
        summary: Scores of the averaged predictive distribution, per token.
        bits_per_character: Bits that the text costs per character.
        layers: What the units of every random layer do; empty for the deterministic twin.
        parameters: Number of parameters that take part in the predictive density.
        seconds: Wall time of the evaluation.

    Example:
        >>> LanguageMetrics(None, 2.5, {}, 100, 1.0).bits_per_character
        2.5
    """

    summary: TokenSummary
    bits_per_character: float
    layers: dict[str, LayerUsage]
    parameters: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the scores by name, ready for JSON."""
        units = sum(layer.units for layer in self.layers.values())
        active = sum(layer.active_share * layer.units for layer in self.layers.values())
        return {
            **self.summary.to_dict(),
            "bits_per_character": self.bits_per_character,
            "kl_per_unit": sum(a.kl for a in self.layers.values()) / units if units else None,
            "active_share": active / units if units else None,
            "layers": {path: _usage(layer) for path, layer in self.layers.items()},
            "parameters": self.parameters,
            "seconds": self.seconds,
        }


def _usage(layer: LayerUsage) -> dict[str, Any]:
    """Return what a layer's units do; ``"information"`` is the mean per unit, in nats."""
    information = float(layer.by_unit["information"].mean())
    return {name: getattr(layer, name) for name in _USAGE} | {"information": information}


@dataclass(frozen=True, eq=False)
class LanguageScores:
    """Scores together with what pictures of them need.

    Args:
        metrics: The scores.
        evaluation: Every token of the test part.

    Example:
        >>> LanguageScores(LanguageMetrics(None, 2.5, {}, 100, 1.0), None).metrics.parameters
        100
    """

    metrics: LanguageMetrics
    evaluation: TokenEvaluation


def plan(problem: LanguageProblem, seed: int, twin: bool) -> Plan:
    """Return what `fit` is to be given for a problem."""
    recipe = problem.recipe
    made = recipe.build_model(problem.tokenizer.vocab_size, seed, twin=twin)
    options = recipe.options(seed)
    if twin:
        options = replace(options, validation_samples=1)
    callbacks = () if twin else _callbacks(problem, made)
    return Plan(made.program, recipe.loss(twin=twin), options, callbacks)


def _callbacks(problem: LanguageProblem, made: Annealed) -> tuple[Any, ...]:
    """Return what anneals the noise, holds the scales and matches the priors of neurons."""
    recipe, callbacks = problem.recipe, list[Any]()
    if made.noise is not None:
        callbacks.append(Anneal(made.noise, "amount", recipe.noise))
    if not recipe.learn_scales and recipe.neuron_layers != ():
        callbacks.append(Freeze("posterior.raw_scale"))
    if recipe.matches_priors:
        callbacks.append(MatchPriors(problem.train[0], batch_size=recipe.batch_size))
    return tuple(callbacks)


def build(config: LanguageConfig, twin: bool, step: int | None) -> Program:
    """Make a fresh model of a run with the noise that it had after some steps."""
    size = config.tokenizer.vocab_size
    return config.recipe.build_model(size, config.seed, twin=twin, step=step).program


def score(model: Program, guide: Program, problem: LanguageProblem) -> LanguageScores:
    """Score a model on the test part of a text, with the same noise every time."""
    began = time.perf_counter()
    samples = problem.recipe.num_samples
    batches = problem.test_batches()
    found = evaluate_tokens(model, guide, batches, num_samples=samples, seed=_EVALUATION_SEED)
    few = problem.validation[0][:1], problem.validation[1][:1]
    metrics = LanguageMetrics(
        summary=found.metrics,
        bits_per_character=found.metrics.bits_per_token / problem.characters_per_token,
        layers=latent_usage(found.layers) if found.layers else {},
        parameters=count_parameters(model, guide, few),
        seconds=time.perf_counter() - began,
    )
    return LanguageScores(metrics, found)


def write_pictures(
    folder: Path, model: Program, guide: Program, problem: LanguageProblem, scored: LanguageScores
) -> None:
    """Draw how well probabilities are calibrated and what the units of all layers do."""
    table, layers = scored.evaluation.table, scored.evaluation.layers
    curve = reliability_curve(table["max_probability"], table["correct"])
    figures = {"reliability.png": plot_reliability({problem.source.name: curve})}
    if layers:
        figures["usage.png"] = plot_contraction(layers)
        figures["units.png"] = plot_unit_activity(layers[list(layers)[-1]])
    for name, figure in figures.items():
        save(figure, folder / name)


TASK = Task(
    load=load_language,
    configure=LanguageConfig.of,
    read=LanguageConfig.from_dict,
    load_again=load_language_again,
    plan=plan,
    build=build,
    score=score,
    write=write_pictures,
)
