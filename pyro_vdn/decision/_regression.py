"""Least squares and logistic regression with a ridge and robust standard errors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pyro_vdn.decision._ordering import Array

_MOST_STEPS = 100
_FLAT = 1e-10
"""Largest slope per standard deviation at which Newton's method is done."""


def linear(
    inputs: Array, risk: Array, block: NDArray[np.intp], ridge: float
) -> tuple[Array, Array]:
    """Return weights and standard errors, `(1 + features,)` each, constant first."""
    count = len(risk)
    curvature = inputs.T @ inputs / count + _penalty(inputs, ridge)
    weights = _solve(curvature, inputs.T @ risk / count)
    return weights, _errors(inputs, risk - inputs @ weights, curvature, block)


def logistic(
    inputs: Array, risk: Array, block: NDArray[np.intp], ridge: float
) -> tuple[Array, Array]:
    """Return weights and standard errors by Newton's method, `(1 + features,)` each."""
    penalty = _penalty(inputs, ridge)

    def loss(weights: Array) -> float:
        eta = inputs @ weights
        fit = np.mean(np.logaddexp(0.0, eta) - risk * eta)
        return float(fit + 0.5 * weights @ penalty @ weights)

    weights = np.zeros(inputs.shape[1])
    for _ in range(_MOST_STEPS):
        chance = sigmoid(inputs @ weights)
        slope = inputs.T @ (chance - risk) / len(risk) + penalty @ weights
        varying = (chance * (1.0 - chance))[:, None] * inputs
        curvature = inputs.T @ varying / len(risk) + penalty
        if np.abs(slope).max() < _FLAT:
            break
        weights = _downhill(loss, weights, _solve(curvature, slope))
    return weights, _errors(inputs, risk - chance, curvature, block)


def sigmoid(eta: Array) -> Array:
    """Return `1 / (1 + exp(-eta))` without overflow."""
    return np.exp(-np.logaddexp(0.0, -eta))


def _downhill(loss: Callable[[Array], float], weights: Array, step: Array) -> Array:
    """Take the Newton step, halved until the loss does not rise."""
    # Where the loss is flat, its rounding must not stop the step.
    before, size = loss(weights) + 1e-12, 1.0
    while loss(weights - size * step) > before and size > 1e-6:
        size /= 2.0
    return weights - size * step


def _solve(curvature: Array, slope: Array) -> Array:
    return np.linalg.solve(curvature, slope).astype(np.float64, copy=False)


def _penalty(inputs: Array, ridge: float) -> Array:
    size = np.full(inputs.shape[1], ridge)
    size[0] = 0.0  # the constant is free
    return np.diag(size)


def _errors(inputs: Array, residual: Array, curvature: Array, block: NDArray[np.intp]) -> Array:
    """Return standard errors that hold for unequal variances and dependence within blocks."""
    blocks = int(block.max()) + 1
    slopes = np.stack([np.bincount(block, column) for column in (inputs * residual[:, None]).T])
    spread = slopes @ slopes.T / len(residual) ** 2 * blocks / (blocks - 1)
    inverse = np.linalg.inv(curvature)
    errors: Array = np.sqrt(np.diag(inverse @ spread @ inverse))
    return errors
