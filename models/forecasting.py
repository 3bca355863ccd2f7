"""Forecasting with a layer of distributional neurons."""

from __future__ import annotations

import pyro
from pyro.nn import PyroModule
from torch import Tensor

from pyro_vdn.nn import (
    LinearReadout,
    MultivariateStudentTLikelihood,
    NormalPosterior,
    OutputScale,
    TrendSeasonalEncoder,
    VariationalNeurons,
    normalise_window,
)
from pyro_vdn.nn.shapes import check_rows_at, check_targets


class Forecaster(PyroModule):
    r"""Forecasts a window's continuation through random hidden units.

    The window is normalised by its last value and spread, split into trend and seasonal part and
    mapped linearly to `h`; the neurons `z_i ~ p(z_i)` have posterior
    `Normal(mu_i(h), sigma_i(h)^2)` with a low-rank scale; the forecast is
    `y | z ~ t_nu(W z + b, diag(s(h)^2))` over the whole horizon, in the units of the window. Since
    all steps share the neurons, the steps of a forecast are correlated: trajectories are coherent.
    The readout is linear, so its mean and covariance are known in closed form. The twin,
    `deterministic(model)`, is a DLinear-like network.

    Args:
        input_length: Length of the input window, in steps.
        horizon: Number of steps to forecast.
        hidden: Size of `h`.
        num_units: Number of neurons.
        rank: Rank of the scale heads of neurons and likelihood.
        initial_scale: Scale of every neuron at the start.
        kernel_size: Length of the moving average, in steps.

    Shape:
        `x` is `(..., rows, input_length)`, `y` is `(..., rows, horizon)`. Sites: ``neurons.z`` of
        batch shape `(..., rows, num_units)`, and ``y`` of batch shape `(..., rows, 1)` and event
        shape `(horizon,)`.

    Example:
        >>> import torch
        >>> Forecaster(48, 12)(torch.randn(5, 48)).shape
        torch.Size([5, 12])
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
    ) -> None:
        super().__init__()
        self.encoder = TrendSeasonalEncoder(input_length, hidden, kernel_size=kernel_size)
        self.neurons = VariationalNeurons(
            hidden,
            num_units,
            posterior=NormalPosterior("low_rank", rank=rank, initial_scale=initial_scale),
        )
        self.readout = LinearReadout(num_units, horizon)
        self.likelihood = MultivariateStudentTLikelihood(
            OutputScale(horizon, "low_rank", in_features=hidden, rank=rank, initial_scale=0.5)
        )

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Sample or observe the forecast of windows `x`, shape `(..., rows, horizon)`."""
        check_rows_at("x", x, self.encoder.input_length)
        check_targets("y", y, x, self.readout.linear.out_features)
        with pyro.plate("data", x.shape[-2], dim=-2):
            window = normalise_window(x)
            h = self.encoder(window.values)
            z = self.neurons(h)
            loc = window.units.restore(self.readout(z))
            outcome = self.likelihood(loc, h, spread=window.units.spread)
            offer = self.readout.offer(z, self.likelihood, h, units=window.units)
            observed = None if y is None else y.unsqueeze(-2)
            sampled: Tensor = pyro.sample("y", outcome, obs=observed, infer=offer)
        return sampled.squeeze(-2)
