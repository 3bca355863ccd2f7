"""Runs on text: how a language model is trained, scored and drawn."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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
from pyro_vdn.train.members import Units
from pyro_vdn.train.parameters import count_parameters
from pyro_vdn.train.pooled_tokens import evaluate_pooled_tokens
from pyro_vdn.train.prior_matching import MatchPriors
from pyro_vdn.train.row_scores import error_of_ratio
from pyro_vdn.train.tasks import Fitted, Plan, Task

Program = Callable[..., Any]
_EVALUATION_SEED = 7
_COLUMNS = {"nll": "nll", "accuracy": "correct", "brier": "brier"}
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
        standard_errors: Of some of the scores, blocks of text being independent.

    Example:
        >>> LanguageScores(LanguageMetrics(None, 2.5, {}, 100, 1.0), None).metrics.parameters
        100
    """

    metrics: LanguageMetrics
    evaluation: TokenEvaluation
    standard_errors: dict[str, float] = field(default_factory=dict)


def plan(problem: LanguageProblem, seed: int, units: Units) -> Plan:
    """Return what `fit` is to be given for a problem."""
    recipe = problem.recipe
    made = recipe.build_model(problem.tokenizer.vocab_size, seed, units=units)
    options = recipe.options(seed)
    if units == "points":
        options = replace(options, validation_samples=1)
    return Plan(made.program, recipe.loss(units), options, _callbacks(problem, made, units))


def _callbacks(problem: LanguageProblem, made: Annealed, units: Units) -> tuple[Any, ...]:
    """Return what anneals the noise, holds the scales and matches the priors of neurons."""
    recipe, callbacks = problem.recipe, list[Any]()
    if made.noise is not None:
        callbacks.append(Anneal(made.noise, made.number, made.schedule))
    if units != "neurons":
        return tuple(callbacks)
    if not recipe.learn_scales and recipe.neuron_layers != ():
        callbacks.append(Freeze("posterior.raw_scale"))
    if recipe.matches_priors:
        callbacks.append(MatchPriors(problem.train[0], batch_size=recipe.batch_size))
    return tuple(callbacks)


def build(config: LanguageConfig, units: Units, step: int | None) -> Program:
    """Make a fresh model of a run with the noise that it had after some steps."""
    size = config.tokenizer.vocab_size
    return config.recipe.build_model(size, config.seed, units=units, step=step).program


def score(models: Sequence[Fitted], problem: LanguageProblem) -> LanguageScores:
    """Score a model or an ensemble on the test part, with the same noise every time."""
    began = time.perf_counter()
    found = _evaluate(models, problem)
    few = problem.validation[0][:1], problem.validation[1][:1]
    metrics = LanguageMetrics(
        summary=found.metrics,
        bits_per_character=found.metrics.bits_per_token / problem.characters_per_token,
        layers=latent_usage(found.layers) if found.layers else {},
        parameters=sum(count_parameters(*fitted, few) for fitted in models),
        seconds=time.perf_counter() - began,
    )
    return LanguageScores(metrics, found, _standard_errors(found.table, problem))


def _evaluate(models: Sequence[Fitted], problem: LanguageProblem) -> TokenEvaluation:
    batches, samples = problem.test_batches(), problem.recipe.num_samples
    if len(models) == 1:
        return evaluate_tokens(*models[0], batches, num_samples=samples, seed=_EVALUATION_SEED)
    return evaluate_pooled_tokens(models, batches, num_samples=samples, seed=_EVALUATION_SEED)


def _standard_errors(table: dict[str, Tensor], problem: LanguageProblem) -> dict[str, float]:
    """Return standard errors of scores per token, blocks of text being independent."""
    block = table["sequence"]
    counts = torch.bincount(block).double()
    if len(counts) < 2:
        return {}
    errors = {
        name: error_of_ratio(torch.bincount(block, weights=table[column].double()), counts)
        for name, column in _COLUMNS.items()
    }
    per_character = math.log(2) * problem.characters_per_token
    return errors | {"bits_per_character": errors["nll"] / per_character}


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
