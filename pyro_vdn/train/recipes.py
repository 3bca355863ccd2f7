"""Recipes: every hyper-parameter of a ready-made run in one frozen place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pyro
from torch import nn

from pyro_vdn.infer import PACmELBO
from pyro_vdn.models import Forecaster, Regression
from pyro_vdn.poutine import deterministic, dropout, kl_weight
from pyro_vdn.train.members import Compared, Units

Program = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class _Recipe(Compared):
    """What every recipe holds: objective, optimiser and budget.

    Args:
        references: What is trained beside the neurons; see `Compared`.
        dropout: Probability of dropping a unit in MC dropout.
        ensemble_size: Number of networks of the ensemble.
        num_units: Number of neurons.
        initial_scale: Scale of every neuron at the start.
        joint_weight: Weight of the joint density of a row's outputs in the objective.
        inflation: Share by which the objective enlarges the neurons' variance.
        variance_weight: Exponent of the beta-NLL weighting.
        kl: Weight of the KL.
        max_steps: Gradient steps.
        batch_size: Rows per step.
        learning_rate: Peak rate.
        betas: Decay rates of AdamW's moments.
        weight_decay: Decoupled weight decay.
        warmup_steps: Steps of warm-up before the cosine decay.
        clip: Largest norm of the gradient.
        evaluate_every: Steps between evaluations.
        patience: Evaluations without progress before training stops; None for never.
        num_samples: Draws per row at evaluation.
    """

    num_units: int
    initial_scale: float = 0.3
    joint_weight: float = 0.05
    inflation: float = 0.0
    variance_weight: float = 0.0
    kl: float = 1e-2
    max_steps: int = 3000
    batch_size: int = 128
    learning_rate: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    warmup_steps: int = 100
    clip: float = 1.0
    evaluate_every: int = 250
    patience: int | None = None
    num_samples: int = 100

    def loss(self) -> PACmELBO:
        """Return the objective: the predictive density with the neurons integrated out."""
        return PACmELBO(
            closed_form=True,
            joint_weight=self.joint_weight,
            inflation=self.inflation,
            variance_weight=self.variance_weight,
        )

    def _effects(self, model: nn.Module, units: Units) -> Program:
        """Wrap a model as it is trained: with the weighted KL, or as one of its twins."""
        model.float()  # data sets come in single precision, whatever torch's default is
        program: Program
        if units == "neurons":
            program = kl_weight(model, self.kl)
        elif units == "points":
            program = deterministic(model)
        else:
            program = dropout(model, self.dropout)
        return program


@dataclass(frozen=True, kw_only=True)
class ForecastingRecipe(_Recipe):
    """The recipe of `pyro_vdn.models.Forecaster`, for windows in standard units.

    Args:
        input_length: Steps to look back on.
        horizon: Steps to forecast.
        hidden: Size of the encoding.
        rank: Rank of the scale heads of neurons and likelihood.
        kernel_size: Length of the moving average, odd.
        validation_every: Choose by every n-th validation window.
        test_every: Report on every n-th test window.

    Example:
        >>> recipe = ForecastingRecipe.demo()
        >>> recipe.horizon, recipe.max_steps, recipe.test_every
        (96, 1800, 7)
    """

    task: ClassVar[str] = "forecasting"
    num_units: int = 48
    input_length: int = 336
    horizon: int = 96
    hidden: int = 128
    rank: int = 24
    kernel_size: int = 25
    validation_every: int = 4
    test_every: int = 1
    dropout: float = 0.02

    @classmethod
    def demo(cls) -> ForecastingRecipe:
        """Return the recipe with the budget of the demonstration: minutes on two cores."""
        return cls(max_steps=1800, evaluate_every=300, validation_every=7, test_every=7)

    def build_model(self, seed: int = 0, *, units: Units = "neurons") -> Program:
        """Make a fresh model, wrapped as it is trained; twins start from the same weights.

        Args:
            seed: Seed of the initial weights; the global random state is set.
            units: What the hidden units are.

        Returns:
            A program called as ``model(x, y)``, `x` `(rows, input_length)`, `y` `(rows, horizon)`.
        """
        pyro.set_rng_seed(seed)
        model = Forecaster(
            self.input_length,
            self.horizon,
            hidden=self.hidden,
            num_units=self.num_units,
            rank=self.rank,
            initial_scale=self.initial_scale,
            kernel_size=self.kernel_size,
        )
        return self._effects(model, units)


@dataclass(frozen=True, kw_only=True)
class RegressionRecipe(_Recipe):
    """The recipe of `pyro_vdn.models.Regression`, for features and target in standard units.

    Args:
        validation: Share of the training rows, the last ones, by which the checkpoint is chosen.

    Example:
        >>> recipe = RegressionRecipe()
        >>> recipe.batch_size, recipe.learning_rate, recipe.variance_weight
        (32, 0.01, 0.5)
    """

    task: ClassVar[str] = "regression"
    num_units: int = 50
    joint_weight: float = 0.0
    variance_weight: float = 0.5
    kl: float = 0.0
    batch_size: int = 32
    learning_rate: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.03
    clip: float = 5.0
    evaluate_every: int = 100
    num_samples: int = 200
    dropout: float = 0.005
    validation: float = 0.1

    @classmethod
    def demo(cls) -> RegressionRecipe:
        """Return the recipe with the budget of the demonstration."""
        return cls(max_steps=1000)

    def build_model(self, num_features: int, seed: int = 0, *, units: Units = "neurons") -> Program:
        """Make a fresh model, wrapped as it is trained; twins start from the same weights.

        Args:
            num_features: Number of features.
            seed: Seed of the initial weights; the global random state is set.
            units: What the hidden units are.

        Returns:
            A program called as ``model(x, y)``, `x` `(rows, num_features)`, `y` `(rows, 1)`.
        """
        pyro.set_rng_seed(seed)
        model = Regression(num_features, num_units=self.num_units, initial_scale=self.initial_scale)
        return self._effects(model, units)
