"""Forecasting with a layer of distributional neurons."""

from __future__ import annotations

import pyro
import pyro.poutine
from pyro.nn import PyroModule
from pyro_vdn.guides.markov import FilteringPosterior
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.nn import (
    AutoregressiveNormal,
    LinearReadout,
    MultivariateStudentTLikelihood,
    NormalPosterior,
    OutputScale,
    TrendSeasonalEncoder,
    Units,
    VariationalNeurons,
    Window,
    normalise_window,
)
from pyro_vdn.nn.observed import Observed, observed_only, observed_steps
from pyro_vdn.nn.sequences import (
    any_so_far,
    carried_forward,
    hyperparameters_drawn,
    of_last_steps,
    sample_over_time,
)
from pyro_vdn.nn.shapes import check_positive, check_rows_at, check_sequences_at, check_targets
from pyro_vdn.nn.sites import MARGINAL


class Forecaster(PyroModule):
    r"""Forecasts a window's continuation through random hidden units.

    The window is normalised by its last value and spread, split into trend and seasonal part and
    mapped linearly to `h`; the neurons `z_i ~ p(z_i)` have posterior
    `Normal(mu_i(h), sigma_i(h)^2)` with a low-rank scale; the forecast is
    `y | z ~ t_nu(W z + b, diag(s(h)^2))` over the whole horizon, in the units of the window. Since
    all steps share the neurons, the steps of a forecast are correlated: trajectories are coherent.
    The readout is linear, so its mean and covariance are known in closed form. The twin,
    `deterministic(model)`, is a DLinear-like network.

    With `memory`, a prior over windows in sequence, a neuron remembers what it was at the windows
    before: `z_t ~ Normal(phi z_{t-1}, s^2)`. NaN says what is missing. A window with any NaN tells
    the neurons nothing, so they follow their prior; its forecast starts from the last window that
    was there, before the first from a series in standard units. A target with any NaN was not
    observed.

    Args:
        input_length: Length of the input window, in steps.
        horizon: Number of steps to forecast.
        hidden: Size of `h`.
        num_units: Number of neurons.
        rank: Rank of the scale heads of neurons and likelihood.
        initial_scale: Scale of every neuron at the start.
        kernel_size: Length of the moving average, in steps.
        memory: Prior of the neurons over windows in sequence, such as
            ``AutoregressiveNormal(num_units, phi=0.95)``. One without memory, `StandardNormal()`,
            gives the same model of the same sequences with memory off. None for single windows.
        posterior: Posterior of the neurons; by default a `NormalPosterior` of the scale above, and
            beside an `AutoregressiveNormal` a `FilteringPosterior` with it as potential. That one
            has no summary: a long window tells of the past itself, and with memory on or off the
            parameters are the same but for `phi` and `s`.
        scored_steps: Number of windows, the last of a sequence, that have forecasts and targets;
            None for all. The windows before them cost encoder and posterior, never the readout.
            Two windows of which one is scored are the window form of the source, with its penalty
            by `penalize` and `autoregressive_cost`, or as a prior by `memory`.

    Shape:
        `x` is `(..., rows, input_length)`, `y` is `(..., rows, horizon)`. Sites: ``neurons.z`` of
        batch shape `(..., rows, num_units)`, and ``y`` of batch shape `(..., rows, 1)` and event
        shape `(horizon,)`, in the plate ``data`` at -2.

        With `memory`, `x` is `(..., rows, time, input_length)` and `y` is
        `(..., rows, scored_steps or time, horizon)`; the sites have time after rows, in the plates
        ``data`` at -3 and, at -2, ``neurons.time`` and ``time``.

    Raises:
        InputError: For `scored_steps` without `memory` or beyond a sequence, infinities, or inputs
            and targets of another shape.

    Example:
        >>> import torch
        >>> Forecaster(48, 12)(torch.randn(5, 48)).shape
        torch.Size([5, 12])
        >>> memory = AutoregressiveNormal(16, phi=0.95)
        >>> model = Forecaster(48, 12, num_units=16, memory=memory, scored_steps=1)
        >>> model(torch.randn(5, 2, 48)).shape  # a window and the one before it
        torch.Size([5, 1, 12])

    Source:
        Ruffenach, *Variational Distributional Neuron*, arXiv:2602.18250 (2026), for neurons of
        windows in sequence.
    """

    def __init__(
        self,
        input_length: int = 336,
        horizon: int = 96,
        *,
        hidden: int = 128,
        num_units: int = 48,
        rank: int = 24,
        initial_scale: float = 0.3,
        kernel_size: int = 25,
        memory: nn.Module | None = None,
        posterior: nn.Module | None = None,
        scored_steps: int | None = None,
    ) -> None:
        super().__init__()
        _check_scored_steps(scored_steps, memory)
        self.scored_steps = scored_steps
        #: Whether `x` holds windows in sequence, NaN in place of what is missing.
        self.reads_missing = memory is not None
        self.encoder = TrendSeasonalEncoder(input_length, hidden, kernel_size=kernel_size)
        if posterior is None:
            normal = NormalPosterior("low_rank", rank=rank, initial_scale=initial_scale)
            posterior = normal
            if isinstance(memory, AutoregressiveNormal):
                posterior = FilteringPosterior(normal, summary_size=0)
        self.neurons = VariationalNeurons(hidden, num_units, prior=memory, posterior=posterior)
        self.readout = LinearReadout(num_units, horizon)
        self.likelihood = MultivariateStudentTLikelihood(
            OutputScale(horizon, "low_rank", in_features=hidden, rank=rank, initial_scale=0.5)
        )

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Sample or observe the forecasts of windows `x`.

        Args:
            x: Windows, `(..., rows, input_length)`, or in sequence,
                `(..., rows, time, input_length)`.
            y: What followed them, or None to sample it.

        Returns:
            Forecasts, `(..., rows, horizon)` or `(..., rows, scored_steps or time, horizon)`.
        """
        return self._of_sequences(x, y) if self.reads_missing else self._of_rows(x, y)

    def _of_rows(self, x: Tensor, y: Tensor | None) -> Tensor:
        check_rows_at("x", x, self.encoder.input_length)
        check_targets("y", y, x, self.readout.linear.out_features)
        with pyro.plate("data", x.shape[-2], dim=-2):
            window = normalise_window(x)
            h = self.encoder(window.values)
            return self._sampled(self.neurons(h), h, window.units, y)

    def _of_sequences(self, x: Tensor, y: Tensor | None) -> Tensor:
        check_sequences_at("x", x, self.encoder.input_length)
        steps = self._checked_steps(x.shape[-2])
        check_targets("y", y, x[..., -steps:, :], self.readout.linear.out_features)
        inputs, targets = observed_steps("x", x), None if y is None else observed_steps("y", y)
        with (
            hyperparameters_drawn(self.neurons.prior),
            pyro.plate("data", x.shape[-3], dim=-3),
        ):
            window = _normalised(inputs)
            h = self.encoder(window.values)
            z = sample_over_time(self.neurons, h, inputs.mask)
            shift, spread = (value[..., -steps:, :] for value in window.units)
            with pyro.plate("time", steps, dim=-2), observed_only(targets, event_dim=1):
                obs = None if targets is None else targets.values
                return self._sampled(z, h[..., -steps:, :], Units(shift, spread), obs)

    def _sampled(self, z: Tensor, h: Tensor, units: Units, y: Tensor | None) -> Tensor:
        """Sample or observe what follows the windows `h`, the last ones of the neurons `z`."""
        steps = h.shape[-2]
        loc = units.restore(self.readout(z[..., -steps:, :]))
        outcome = self.likelihood(loc, h, spread=units.spread)
        offer = self.readout.offer(z, self.likelihood, h, units=units)
        if steps < z.shape[-2]:
            offer = {MARGINAL: of_last_steps(offer[MARGINAL], steps)}
        observed = None if y is None else y.unsqueeze(-2)
        sampled: Tensor = pyro.sample("y", outcome, obs=observed, infer=offer)
        return sampled.squeeze(-2)

    def _checked_steps(self, time: int) -> int:
        """Return the number of windows that are scored, in sequences of a length."""
        if self.scored_steps is not None and self.scored_steps > time:
            raise InputError(
                "x",
                expected=f"at least scored_steps={self.scored_steps} windows in sequence",
                got=f"{time}",
                hint=f"longer sequences, or scored_steps={time}",
            )
        return time if self.scored_steps is None else self.scored_steps


def _check_scored_steps(scored_steps: int | None, memory: nn.Module | None) -> None:
    if scored_steps is None:
        return
    check_positive(scored_steps=scored_steps)
    if memory is None:
        raise InputError(
            "scored_steps",
            expected="None without a prior over windows in sequence",
            got=repr(scored_steps),
            hint="memory=AutoregressiveNormal(num_units), or memory=StandardNormal()",
        )


def _normalised(inputs: Observed) -> Window:
    """Normalise windows; one that is missing is forecast as the last one that was there."""
    window = normalise_window(carried_forward(inputs.values, inputs.mask))
    if inputs.mask is None:
        return window
    unknown = ~any_so_far(inputs.mask).unsqueeze(-1)
    spread = window.units.spread.masked_fill(unknown, 1.0)
    return window._replace(units=Units(window.units.shift, spread))
