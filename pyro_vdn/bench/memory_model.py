"""The one network of which every method of the memory benchmark is a configuration."""

from __future__ import annotations

from contextlib import nullcontext

import pyro
import pyro.poutine
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_vdn.nn import (
    LinearReadout,
    MLPEncoder,
    MultivariateNormalLikelihood,
    OutputScale,
    VariationalNeurons,
)
from pyro_vdn.nn.observed import observed_steps
from pyro_vdn.nn.sequences import carried_forward, sample_over_time


class SequenceNet(PyroModule):
    r"""Forecasts after every window of a sequence through random hidden units.

    Whatever the method, the encoder reads the same of each step: the last window that was there,
    whether it is missing at this step, and the log of the steps since. Then `y_t | z_t ~
    Normal(W z_t + b, L L^T + diag(s(h_t)^2))` jointly over the horizon: without neurons, too, the
    steps of a forecast are correlated and their scale depends on the input.

    Args:
        window: Length of a window.
        horizon: Length of the target after each window.
        hidden: Size of `h`.
        num_units: Number of neurons.
        prior: Prior of the neurons, which says whether they remember.
        posterior: Their posterior.
        masked: Whether neurons follow their prior where the window is missing, instead of reading
            the one carried forward.
        recurrent: Whether a GRU stands between encoder and neurons.

    Shape:
        `x` is `(rows, steps, window)`, `y` is `(rows, steps, horizon)`; NaN says what is missing.

    Example:
        >>> from pyro_vdn.nn import NormalPosterior, StandardNormal
        >>> net = SequenceNet(
        ...     4, 8, hidden=6, num_units=3, prior=StandardNormal(), posterior=NormalPosterior()
        ... )
        >>> x = torch.zeros(5, 10, 4)
        >>> x[:, 6] = torch.nan
        >>> net(x).shape
        torch.Size([5, 10, 8])
    """

    reads_missing = True

    def __init__(
        self,
        window: int,
        horizon: int,
        *,
        hidden: int,
        num_units: int,
        prior: nn.Module,
        posterior: nn.Module,
        masked: bool = False,
        recurrent: bool = False,
        covariance_rank: int = 4,
        scale_rank: int = 8,
    ) -> None:
        super().__init__()
        self.masked = masked
        self.encoder = MLPEncoder(window + 2, [hidden])
        self.recurrence = nn.GRU(hidden, hidden, batch_first=True) if recurrent else None
        self.neurons = VariationalNeurons(hidden, num_units, prior=prior, posterior=posterior)
        self.readout = LinearReadout(num_units, horizon)
        scale = OutputScale(
            horizon, "low_rank", in_features=hidden, rank=scale_rank, initial_scale=0.5
        )
        self.likelihood = MultivariateNormalLikelihood(scale, covariance_rank=covariance_rank)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Sample or observe what follows each window, `(rows, steps, horizon)`."""
        windows = observed_steps("x", x)
        targets = None if y is None else observed_steps("y", y)
        h = self.encoder(step_features(windows.values, windows.mask))
        if self.recurrence is not None:
            h = self.recurrence(h)[0]
        seen = None if targets is None else targets.mask
        observed = nullcontext() if seen is None else pyro.poutine.mask(mask=seen.unsqueeze(-1))
        with pyro.plate("data", x.shape[-3], dim=-3):
            z = sample_over_time(self.neurons, h, windows.mask if self.masked else None)
            with pyro.plate("time", x.shape[-2], dim=-2), observed:
                outcome = self.likelihood(self.readout(z), h)
                offer = self.readout.offer(z, self.likelihood, h)
                obs = None if targets is None else targets.values.unsqueeze(-2)
                sampled: Tensor = pyro.sample("y", outcome, obs=obs, infer=offer)
        return sampled.squeeze(-2)


def step_features(windows: Tensor, mask: Tensor | None) -> Tensor:
    """Return the last window that was there, whether this one is missing, and its log age.

    Args:
        windows: `(rows, steps, window)`; what it holds at missing steps is not read.
        mask: Boolean, `(rows, steps)`: which windows are there; None for all.

    Returns:
        Features `(rows, steps, window + 2)`; the age is `log(1 + steps since)`.

    Example:
        >>> windows = torch.tensor([[[3.0], [5.0], [0.0]]])
        >>> step_features(windows, torch.tensor([[True, True, False]]))[0, 2]
        tensor([5.0000, 1.0000, 0.6931])
    """
    if mask is None:
        mask = torch.ones(windows.shape[:-1], dtype=torch.bool, device=windows.device)
    steps = torch.arange(windows.shape[-2], device=windows.device)
    last = steps.where(mask, -1).cummax(-1).values
    age = torch.log1p((steps - last).to(windows.dtype))
    missing = (~mask).to(windows.dtype)
    carried = carried_forward(windows, mask)
    return torch.cat([carried, missing.unsqueeze(-1), age.unsqueeze(-1)], -1)
