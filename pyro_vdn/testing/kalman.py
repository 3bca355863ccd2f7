"""Linear-Gaussian chains with exact answers, by the textbook recursions, step by step.

Nothing here is shared with the chains that it judges: no scan, no message, no partial
autocorrelation, but loops over time and dense matrices in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vdn.nn import Moments


class Simulated(NamedTuple):
    """A simulated series.

    Args:
        latent: Values of the units, `(..., time, units)`.
        observed: What was seen of them, `(..., time, outputs)`.

    Example:
        >>> Simulated(torch.zeros(5, 2), torch.zeros(5, 3)).observed.shape
        torch.Size([5, 3])
    """

    latent: Tensor
    observed: Tensor


class _State(NamedTuple):
    """Mean and covariance of `(z_t, ..., z_{t-order+1})` of all units."""

    mean: Tensor
    covariance: Tensor


class _Filtered(NamedTuple):
    """A step of the filter: the state before and after its observation, and the density of that."""

    prediction: _State
    state: _State
    log_prob: Tensor


class LinearGaussianChain:
    r"""Units `z_t ~ Normal(sum_k phi_k z_{t-k}, s^2)`, seen as `y_t ~ Normal(C z_t, r^2)`.

    The chains start stationary. Filter and smoother run over the joint state of all units, with
    `F` its move, `Q` the innovations' covariance and `H` the observed part:
    `m = F m`, `P = F P F^T + Q`; with `K = P H^T (H P H^T + R)^{-1}`: `m += K (y - H m)`,
    `P -= K H P`; and backwards, with `G = P_t F^T (P_{t+1}^-)^{-1}`:
    `m_t += G (m_{t+1} - m_{t+1}^-)`, `P_t += G (P_{t+1} - P_{t+1}^-) G^T`.

    Args:
        phi: Coefficients, `(units,)` or, latest lag first, `(units, order)`; stationary.
        scale: Innovation scale `s`, `(units,)`.
        noise: Observation scale `r`, positive, `(outputs,)`.
        loading: `C`, `(outputs, units)`; by default each unit is seen on its own.

    Example:
        >>> chain = LinearGaussianChain(torch.tensor([0.6]), torch.tensor([0.8]), torch.ones(1))
        >>> chain.log_evidence(torch.zeros(1, 1))  # log Normal(0; 0, 1 + 1)
        tensor(-1.2655, dtype=torch.float64)
        >>> chain.smoothed(torch.ones(1, 1)).mean
        tensor([[0.5000]], dtype=torch.float64)

    Source:
        Durbin, Koopman, *Time Series Analysis by State Space Methods*, 2nd ed. 2012, chapter 4.
    """

    def __init__(
        self, phi: Tensor, scale: Tensor, noise: Tensor, *, loading: Tensor | None = None
    ) -> None:
        phi, self.scale, self.noise = phi.double(), scale.double(), noise.double()
        self.phi = phi.unsqueeze(-1) if phi.dim() == 1 else phi
        units = len(self.phi)
        self.loading = torch.eye(units).double() if loading is None else loading.double()
        moves = [_companion(row) for row in self.phi]
        self.move: Tensor = torch.block_diag(*moves)  # type: ignore[no-untyped-call]
        self.first = torch.kron(torch.eye(units).double(), _first(self.order))  # z_t of the state
        self.innovation = self.first.mT @ self.scale.square().diag() @ self.first
        starts = map(_stationary_covariance, moves, self.scale)
        self.start: Tensor = torch.block_diag(*starts)  # type: ignore[no-untyped-call]

    @property
    def order(self) -> int:
        """Number of lags."""
        return self.phi.shape[-1]

    def log_evidence(self, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the exact `log p(y_1:T)`, in nats over the whole series, `(...)`.

        Args:
            y: Observations, `(..., time, outputs)`.
            mask: Boolean, `(..., time)`: which steps are observed; elsewhere `y` is not read.
        """
        return torch.stack([step.log_prob for step in self._filter(y, mask)]).sum(0)

    def filtered(self, y: Tensor, mask: Tensor | None = None) -> Moments:
        """Return the moments of each `z_t` given `y_1:t`, `(..., time, units)`.

        Trailing steps that are masked hold the forecast.

        Args:
            y: Observations, `(..., time, outputs)`.
            mask: Boolean, `(..., time)`: which steps are observed.
        """
        return self._of_units([step.state for step in self._filter(y, mask)])

    def smoothed(self, y: Tensor, mask: Tensor | None = None) -> Moments:
        """Return the moments of each `z_t` given all of `y_1:T`, `(..., time, units)`.

        Args:
            y: Observations, `(..., time, outputs)`.
            mask: Boolean, `(..., time)`: which steps are observed.
        """
        steps = self._filter(y, mask)
        smoothed = [steps[-1].state]
        for now, following in zip(steps[-2::-1], steps[:0:-1], strict=True):
            (m, p), (predicted, spread) = now.state, following.prediction
            gain = torch.linalg.solve(spread, self.move @ p).mT
            mean = m + _times(gain, smoothed[-1].mean - predicted)
            change = smoothed[-1].covariance - spread
            smoothed.append(_State(mean, p + gain @ change @ gain.mT))
        return self._of_units(smoothed[::-1])

    def sample(self, num_steps: int, sample_shape: Sequence[int] = ()) -> Simulated:
        """Simulate series from a stationary start.

        Args:
            num_steps: Number of steps.
            sample_shape: How many series, `(...)`.
        """
        size = len(self.move)
        state = _times(torch.linalg.cholesky(self.start), _noise(*sample_shape, size))
        states = [state]
        for _ in range(num_steps - 1):
            shocks = self.scale * _noise(*sample_shape, len(self.scale))
            state = _times(self.move, state) + shocks @ self.first
            states.append(state)
        latent = torch.stack(states, -2) @ self.first.mT
        seen = latent @ self.loading.mT
        return Simulated(latent, seen + self.noise * torch.randn_like(seen))

    def _filter(self, y: Tensor, mask: Tensor | None) -> list[_Filtered]:
        """Predict and update, step by step."""
        y = y.double()
        seen = torch.ones(y.shape[:-1], dtype=torch.bool) if mask is None else mask
        seen = seen.expand(y.shape[:-1])
        mean = y.new_zeros(*y.shape[:-2], len(self.move))
        prediction = _State(mean, self.start.expand(*y.shape[:-2], *self.start.shape))
        steps: list[_Filtered] = []
        for time in range(y.shape[-2]):
            if steps:
                m, p = steps[-1].state
                spread = self.move @ p @ self.move.mT + self.innovation
                prediction = _State(_times(self.move, m), spread)
            steps.append(self._update(prediction, y[..., time, :], seen[..., time]))
        return steps

    def _update(self, prediction: _State, y: Tensor, seen: Tensor) -> _Filtered:
        m, p = prediction
        h = self.loading @ self.first
        error = torch.where(seen[..., None], y, 0.0) - _times(h, m)
        spread = h @ p @ h.mT + self.noise.square().diag()
        gain = torch.linalg.solve(spread, h @ p).mT
        distance = (error * torch.linalg.solve(spread, error)).sum(-1)
        constant = torch.logdet(spread) + len(h) * math.log(2 * math.pi)
        updated = _State(m + _times(gain, error), p - gain @ h @ p)
        state = _State(
            torch.where(seen[..., None], updated.mean, m),
            torch.where(seen[..., None, None], updated.covariance, p),
        )
        return _Filtered(prediction, state, torch.where(seen, -0.5 * (distance + constant), 0.0))

    def _of_units(self, states: list[_State]) -> Moments:
        """Return what states say of the units at their own step."""
        means = torch.stack([state.mean for state in states], -2)
        spreads = torch.stack([state.covariance for state in states], -3)
        return Moments(
            means @ self.first.mT,
            (self.first @ spreads @ self.first.mT).diagonal(dim1=-2, dim2=-1),
        )


def _companion(phi: Tensor) -> Tensor:
    """Return the matrix that moves one unit's `(z_{t-1}, ..., z_{t-order})` on by a step."""
    order = len(phi)
    return torch.cat([phi.unsqueeze(0), torch.eye(order, dtype=phi.dtype)[:-1]])


def _first(order: int) -> Tensor:
    """Return the row that reads the latest of `order` values."""
    return torch.eye(order).double()[:1]


def _stationary_covariance(move: Tensor, scale: Tensor) -> Tensor:
    """Solve `P = F P F^T + Q` for one unit, as a linear system in the entries of `P`."""
    order = len(move)
    innovation = torch.zeros(order**2).double()
    innovation[0] = scale.square()
    system = torch.eye(order**2).double() - torch.kron(move, move)
    entries: Tensor = torch.linalg.solve(system, innovation)
    return entries.reshape(order, order)


def _times(matrix: Tensor, vectors: Tensor) -> Tensor:
    return (matrix @ vectors.unsqueeze(-1)).squeeze(-1)


def _noise(*shape: int) -> Tensor:
    return torch.randn(*shape).double()
