"""The temperature that makes predicted tokens fit best."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_vdn.diagnostics.tokens.token_scores import check_normalised, check_targets
from pyro_vdn.errors import InputError
from pyro_vdn.nn.unit_measures import precise

TEMPERATURES = (0.05, 20.0)
"""Bounds of what is fitted: a model that is always right wants 0, one that is never wants more."""

_LOWEST = -1e4
"""Log probability at which impossible tokens are held: as impossible, and finite."""

_PRECISION = 1e-9
_STEPS = 60
_POINTS = 49


def fit_temperature(log_probs: Tensor, targets: Tensor) -> float:
    r"""Return the temperature T that minimises the NLL of :math:`q \propto p^{1/T}`.

    .. math:: \frac1N \sum_n \Big[ \log \sum_c e^{a \ell_{nc}} - a \ell_{n y_n} \Big],
        \quad a = 1/T, \quad \ell = \log p

    is convex in a: its derivative is the mean of :math:`E_q[\ell] - \ell_y`, its second one that of
    :math:`\mathrm{Var}_q(\ell)`. The root is found by Newton's steps inside a bracket.

    Args:
        log_probs: :math:`\log p` of the averaged predictive distribution, `(..., vocabulary)`.
        targets: The tokens that came, integers, `(...)`.

    Returns:
        The temperature, between 0.05 and 20.

    Raises:
        InputError: For log probabilities that are NaN or do not add up to one, or targets that do
            not fit.

    Example:
        >>> log_probs = torch.tensor([[0.9, 0.1]]).log().expand(4, 2)
        >>> temperature = fit_temperature(log_probs, torch.tensor([0, 0, 0, 1]))
        >>> round(temperature, 4)  # at which 0.9 becomes 3 of 4
        2.0

    Source: Guo, Pleiss, Sun and Weinberger, *On Calibration of Modern Neural Networks*, 2017.
    """
    values = _checked(log_probs, targets)
    low, high = (1.0 / bound for bound in reversed(TEMPERATURES))
    if float(_derivatives(*values, low)[0]) >= 0:
        return TEMPERATURES[1]
    if float(_derivatives(*values, high)[0]) <= 0:
        return TEMPERATURES[0]
    at = 1.0
    for _ in range(_STEPS):
        slope, curvature = (float(term) for term in _derivatives(*values, at))
        low, high = (low, at) if slope > 0 else (at, high)
        step = at - slope / curvature if curvature > 0 else math.inf
        if abs(step - at) <= _PRECISION * at:
            break
        # Outside of the bracket Newton's step knows less than its middle (on a logarithmic scale).
        at = step if low < step < high else math.sqrt(low * high)
    return 1.0 / at


class TemperatureFit:
    r"""Fit a temperature to batches, none of which is kept.

    Slope and curvature of the NLL in :math:`a = 1/T` are summed at 49 values of a, evenly spread in
    :math:`\log a`. The slope grows with a; its root is sought on the cubic through slope and
    curvature at the two values around it, which misses the temperature by less than 1e-4 of itself.

    Example:
        >>> fit = TemperatureFit()
        >>> for target in (0, 0, 0, 1):
        ...     fit.update(torch.tensor([[0.9, 0.1]]).log(), torch.tensor([target]))
        >>> round(fit.result(), 3)
        2.0
    """

    def __init__(self) -> None:
        low, high = (math.log(1.0 / bound) for bound in reversed(TEMPERATURES))
        self._at = torch.linspace(low, high, _POINTS, dtype=torch.float64).exp().tolist()
        self._sums = torch.zeros(_POINTS, 2, dtype=torch.float64)
        self._tokens = 0

    def update(self, log_probs: Tensor, targets: Tensor) -> None:
        """Take in a batch.

        Args:
            log_probs: Log probabilities of the averaged distribution, `(..., vocabulary)`.
            targets: The tokens that came, integers, `(...)`.

        Raises:
            InputError: As for `fit_temperature`.
        """
        values = _checked(log_probs, targets)
        count = targets.numel()
        self._sums += count * torch.stack([torch.stack(_derivatives(*values, a)) for a in self._at])
        self._tokens += count

    def result(self) -> float:
        """Return the temperature, between 0.05 and 20.

        Raises:
            InputError: If there was no batch.
        """
        if self._tokens == 0:
            raise InputError(
                "tokens", expected="at least one batch", got="none", hint="check the loader"
            )
        slopes, curvatures = (self._sums / self._tokens).T.tolist()
        if slopes[0] >= 0 or slopes[-1] <= 0:
            return TEMPERATURES[1] if slopes[0] >= 0 else TEMPERATURES[0]
        right = next(i for i, slope in enumerate(slopes) if slope > 0)
        left = right - 1
        ends = self._at[left], self._at[right]
        return 1.0 / _root(
            ends, (slopes[left], slopes[right]), (curvatures[left], curvatures[right])
        )


def _checked(log_probs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return log probabilities, `(tokens, vocabulary)`, and those of the targets, `(tokens,)`."""
    if log_probs.dim() < 1 or log_probs.numel() == 0 or not log_probs.is_floating_point():
        raise InputError(
            "log_probs",
            expected="floating-point values of shape (..., vocabulary), none of them 0",
            got=f"{log_probs.dtype} of shape {tuple(log_probs.shape)}",
            hint="average_log_probs(draws.log_probs)",
        )
    check_targets(log_probs, targets)
    flat = precise(log_probs.detach()).reshape(-1, log_probs.shape[-1])
    check_normalised(flat)
    flat = flat.clamp_min(_LOWEST)
    return flat, flat.gather(-1, targets.reshape(-1, 1).long()).squeeze(-1)


def _derivatives(values: Tensor, of_target: Tensor, at: float) -> tuple[Tensor, Tensor]:
    """Return slope and curvature of the mean NLL in 1/T, scalars in float64."""
    weights = (values * at).softmax(-1)
    mean = (weights * values).sum(-1)
    variance = (weights * (values - mean.unsqueeze(-1)).square()).sum(-1)
    return (mean - of_target).double().mean().cpu(), variance.double().mean().cpu()


def _root(
    at: tuple[float, float], slopes: tuple[float, float], curvatures: tuple[float, float]
) -> float:
    """Return where the cubic with these values and derivatives at two places is 0, by halving."""
    width = at[1] - at[0]

    def cubic(t: float) -> float:
        value = (1 + 2 * t) * (1 - t) ** 2 * slopes[0] + t**2 * (3 - 2 * t) * slopes[1]
        bend = t * (1 - t) ** 2 * curvatures[0] - t**2 * (1 - t) * curvatures[1]
        return value + width * bend

    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if cubic(middle) > 0 else (middle, high)
    return at[0] + width * 0.5 * (low + high)
