"""The forecaster in closed form that a trained one should beat: ridge on centred windows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RidgeForecaster:
    r"""Ridge regression of the centred horizon on the centred window, with normal residuals.

    `y - x_last = W (x - x_last) + e` with `W` the ridge solution and `e ~ Normal(0, C)`; `C` is the
    residual covariance on the training windows, in full for trajectories, its diagonal per step.

    Args:
        weight: `W`, `(input_length, horizon)`.
        covariance: `C`, `(horizon, horizon)`.

    Example:
        >>> x, y = torch.randn(100, 8), torch.randn(100, 3)
        >>> RidgeForecaster.fit(x, y).mean(x).shape
        torch.Size([100, 3])
    """

    weight: Tensor
    covariance: Tensor

    @classmethod
    def fit(cls, x: Tensor, y: Tensor, *, penalty: float = 1.0) -> RidgeForecaster:
        """Solve the normal equations.

        Args:
            x: Windows, `(rows, input_length)`.
            y: Targets, `(rows, horizon)`.
            penalty: Ridge penalty, in squared units of `x` summed over rows.

        Returns:
            The fitted forecaster, in double precision.
        """
        inputs, targets = _centred(x, x).double(), _centred(x, y).double()
        gram = inputs.mT @ inputs + penalty * torch.eye(x.shape[-1], dtype=torch.float64)
        weight = torch.linalg.solve(gram, inputs.mT @ targets)
        residual = targets - inputs @ weight
        return cls(weight, residual.mT @ residual / len(residual))

    def mean(self, x: Tensor) -> Tensor:
        """Return the forecast of windows `x`, `(rows, input_length)`, as `(rows, horizon)`."""
        forecast = _centred(x, x).double() @ self.weight + x[:, -1:]
        return forecast

    @property
    def scale(self) -> Tensor:
        """Residual standard deviation of each step, `(horizon,)`."""
        return self.covariance.diagonal().sqrt()

    def log_prob_joint(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the log density of whole trajectories under the full covariance, `(rows,)`."""
        residual = y - self.mean(x)
        tril: Tensor = torch.linalg.cholesky(self.covariance)
        solved = torch.linalg.solve_triangular(tril, residual.mT, upper=False)
        log_det = 2 * tril.diagonal().log().sum()
        horizon = y.shape[-1]
        distance: Tensor = solved.square().sum(0)
        return -0.5 * (distance + log_det + horizon * math.log(2 * math.pi))

    def draw(self, x: Tensor, num_samples: int) -> Tensor:
        """Return trajectories, `(draws, rows, horizon)`."""
        tril = torch.linalg.cholesky(self.covariance)
        noise = torch.randn(num_samples, len(x), len(tril), dtype=torch.float64)
        draws: Tensor = self.mean(x) + noise @ tril.mT
        return draws


def _centred(x: Tensor, values: Tensor) -> Tensor:
    return values - x[:, -1:]
