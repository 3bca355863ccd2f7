"""Sequences through neurons that remember: a state-space model."""

from __future__ import annotations

from typing import Literal, get_args

import pyro
import pyro.poutine
from pyro.nn import PyroModule
from pyro_vdn.guides.markov import FilteringPosterior
from torch import Tensor, nn

from pyro_vdn.nn import (
    AutoregressiveNormal,
    LinearReadout,
    MLPEncoder,
    NegativeBinomialLikelihood,
    NormalLikelihood,
    NormalPosterior,
    OutputScale,
    StudentTLikelihood,
    VariationalNeurons,
)
from pyro_vdn.nn.observed import Observed, observed_only, observed_steps, observed_values
from pyro_vdn.nn.sequences import hyperparameters_drawn, sample_over_time
from pyro_vdn.nn.shapes import check_choice, check_counts, check_sequences_at, check_targets

Observation = Literal["student_t", "normal", "negative_binomial"]


class StateSpace(PyroModule):
    r"""A state-space model of neurons: they remember, and every step's outputs read them.

    The state of a unit follows its prior chain, `z_t ~ Normal(phi z_{t-1}, s^2)`, its posterior is
    amortized in `h_t = encoder(x_t)`, and `y_t | z_t ~ likelihood(W z_t + b)`. What the inputs say
    reaches the outputs through the neurons alone, so that the state is all that a forecast needs.

    NaN says what is missing. A step of `x` with any NaN has no input: there the state follows its
    prior, given the past, at no cost of KL. A NaN in `y` is a value that was not observed. Shorter
    sequences of a batch are filled up with NaN.

    Args:
        num_features: Number of features of a step.
        num_outputs: Number of outputs of a step.
        num_units: Number of neurons.
        hidden: Size of `h`.
        observation: ``"student_t"``, ``"normal"``, or ``"negative_binomial"`` for counts.
        prior: Prior of the neurons; default `AutoregressiveNormal(num_units)`. With one without
            memory, such as `StandardNormal()`, the steps are independent.
        posterior: Their posterior; default `FilteringPosterior()`, which no later step changes, or
            `NormalPosterior()` beside a prior of another kind.

    Shape:
        `x` is `(..., rows, time, num_features)`, `y` is `(..., rows, time, num_outputs)`, counts as
        floats. Sites: ``neurons.z`` of batch shape `(..., rows, time, num_units)`, and ``y`` of
        batch shape `(..., rows, time, num_outputs)`, in the plates ``data`` at -3 and ``time`` at
        -2.

    Raises:
        InputError: For an unknown observation, sequences of another shape, infinities, or counts
            that are negative or no integers.

    Example:
        >>> import torch
        >>> x = torch.zeros(5, 10, 3)
        >>> x[:, 6:8] = torch.nan  # a gap
        >>> StateSpace(3, 2)(x).shape
        torch.Size([5, 10, 2])
    """

    #: NaN in inputs and targets stands for what is missing.
    reads_missing = True

    def __init__(
        self,
        num_features: int,
        num_outputs: int = 1,
        *,
        num_units: int = 16,
        hidden: int = 64,
        observation: Observation = "student_t",
        prior: nn.Module | None = None,
        posterior: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_choice("observation", observation, get_args(Observation))
        self.observation = observation
        self.encoder = MLPEncoder(num_features, [hidden])
        prior = AutoregressiveNormal(num_units) if prior is None else prior
        if posterior is None:
            remembers = isinstance(prior, AutoregressiveNormal)
            posterior = FilteringPosterior() if remembers else NormalPosterior()
        self.neurons = VariationalNeurons(hidden, num_units, prior=prior, posterior=posterior)
        self.readout = LinearReadout(num_units, num_outputs)
        self.likelihood = _likelihood(observation, num_outputs)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Sample or observe the outputs of sequences `x`, `(..., rows, time, num_outputs)`."""
        check_sequences_at("x", x, self.encoder.in_features)
        check_targets("y", y, x, self.readout.linear.out_features)
        inputs, targets = observed_steps("x", x), self._observed(y)
        h = self.encoder(inputs.values)
        prior = self.neurons.prior
        with hyperparameters_drawn(prior), pyro.plate("data", x.shape[-3], dim=-3):
            z = sample_over_time(self.neurons, h, inputs.mask)
            with pyro.plate("time", x.shape[-2], dim=-2), observed_only(targets):
                return self._sampled(z, targets)

    def _sampled(self, z: Tensor, targets: Observed | None) -> Tensor:
        outcome = self.likelihood(self.readout(z))
        obs = None if targets is None else targets.values
        offer = None
        if not isinstance(self.likelihood, NegativeBinomialLikelihood):
            offer = self.readout.offer(z, self.likelihood)
        sampled: Tensor = pyro.sample("y", outcome, obs=obs, infer=offer)
        return sampled

    def _observed(self, y: Tensor | None) -> Observed | None:
        if y is None:
            return None
        targets = observed_values("y", y)
        if self.observation == "negative_binomial":
            check_counts("y", targets.values)
        return targets


def _likelihood(
    observation: Observation, num_outputs: int
) -> StudentTLikelihood | NormalLikelihood | NegativeBinomialLikelihood:
    scale = OutputScale(num_outputs, initial_scale=0.5)
    if observation == "normal":
        return NormalLikelihood(scale)
    if observation == "negative_binomial":
        return NegativeBinomialLikelihood(scale)
    return StudentTLikelihood(scale)
