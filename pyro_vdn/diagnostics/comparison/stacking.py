"""Weights of several fits: of their mixture that predicts best, or by their total density."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_vdn.diagnostics._checks import as_array

Array = NDArray[np.float64]

_BARRIERS = 10.0 ** -np.arange(1.0, 12.0)
_MOST_STEPS = 60


def stacking_weights(log_densities: Tensor | ArrayLike) -> Array:
    r"""Return the weights of the mixture of fits that gives held-out rows the highest density.

    .. math:: \max_w \frac1n \sum_i \log \sum_k w_k\, p_k(y_i),
        \qquad w_k \ge 0, \quad \sum_k w_k = 1

    The problem is convex. It is solved by Newton's method with a logarithmic barrier, to within
    1e-6 nats per row of the optimum. A fit gets weight for what the others lack: the second best
    may have none, and two that are equal share theirs.

    Args:
        log_densities: Held-out log densities :math:`\log p_k(y_i)`, `(rows, fits)`, in nats.

    Returns:
        Weights, `(fits,)`.

    Raises:
        InputError: For another shape, or values that are not finite.

    Example:
        >>> densities = np.array([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1]])
        >>> stacking_weights(np.log(densities)).round(3)
        array([0.708, 0.292])

    Source: Yao, Vehtari, Simpson and Gelman, *Using Stacking to Average Bayesian Predictive
    Distributions*, Bayesian Analysis 2018.
    """
    values = as_array("log_densities", log_densities, ndim=2, sizes="(rows, fits)")
    densities = np.exp(values - values.max(axis=1, keepdims=True))
    weights: Array = np.full(values.shape[1], 1.0 / values.shape[1])
    for barrier in _BARRIERS:
        for _ in range(_MOST_STEPS):
            step, gain = _newton_step(densities, weights, barrier)
            if gain < 1e-3 * barrier:
                break
            weights = _walk(densities, weights, barrier, step, gain)
    weights = np.where(weights < 1e-9, 0.0, weights)
    return _normalised(weights)


def pseudo_bma_weights(log_densities: Tensor | ArrayLike) -> Array:
    r"""Return weights in proportion to the density of all held-out rows together.

    .. math:: w_k \propto \exp \sum_i \log p_k(y_i)

    With many rows the best fit has all the weight, however small its lead.

    Args:
        log_densities: Held-out log densities, `(rows, fits)`, in nats.

    Returns:
        Weights, `(fits,)`.

    Raises:
        InputError: For another shape, or values that are not finite.

    Example:
        >>> pseudo_bma_weights(np.log([[0.9, 0.1], [0.5, 0.5]])).round(3)
        array([0.9, 0.1])

    Source: Yao et al. 2018, section 3.4, "pseudo-BMA".
    """
    values = as_array("log_densities", log_densities, ndim=2, sizes="(rows, fits)").sum(axis=0)
    return _normalised(np.exp(values - values.max()))


def _normalised(weights: Array) -> Array:
    normalised: Array = weights / weights.sum()
    return normalised


def _objective(densities: Array, weights: Array, barrier: float) -> float:
    return float(-np.log(densities @ weights).mean() - barrier * np.log(weights).sum())


def _newton_step(densities: Array, weights: Array, barrier: float) -> tuple[Array, float]:
    """Return the Newton step on the simplex and twice what it would gain."""
    fits = len(weights)
    ratios = densities / (densities @ weights)[:, None]
    gradient = -ratios.mean(axis=0) - barrier / weights
    hessian = ratios.T @ ratios / len(ratios) + np.diag(barrier / np.square(weights))
    # In units of the weights the barrier's part is a multiple of the identity.
    system = np.zeros((fits + 1, fits + 1))
    system[:fits, :fits] = hessian * np.outer(weights, weights)
    system[:fits, fits] = system[fits, :fits] = weights
    solved = np.linalg.solve(system, np.append(-gradient * weights, 0.0))
    step: Array = solved[:fits] * weights
    return step, float(-gradient @ step)


def _walk(densities: Array, weights: Array, barrier: float, step: Array, gain: float) -> Array:
    """Return the weights after as much of the step as stays inside and lowers the objective."""
    here = _objective(densities, weights, barrier)
    shrinking = step < 0
    inside = 0.99 * (weights[shrinking] / -step[shrinking]).min(initial=np.inf)
    length = min(1.0, float(inside))
    while length > 1e-10:
        moved: Array = weights + length * step
        if _objective(densities, moved, barrier) <= here - 0.1 * length * gain:
            return moved
        length *= 0.5
    return weights
