"""Readouts: one distribution out of a frozen bank of draws of a distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from pyro_vdn.diagnostics._checks import check_finite
from pyro_vdn.errors import InputError

TEMPERATURES = (0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0)
"""The temperatures that are tried."""

SHARPNESS = 0.25
"""Entropy in nats, or maximum probability, that changes a draw's weight by a factor of e."""

_ROUNDING = 1e-3


def _mean_probability(log_probs: Tensor) -> Tensor:
    return log_probs.logsumexp(0) - math.log(log_probs.shape[0])


def _mean_logit(log_probs: Tensor) -> Tensor:
    # A draw's logits and log probabilities differ by a number that the softmax takes out again.
    return log_probs.mean(0)


def _median(log_probs: Tensor) -> Tensor:
    draws = log_probs.shape[0]
    ordered = log_probs.sort(0).values  # the logarithm keeps the order
    below, above = ordered[(draws - 1) // 2], ordered[draws // 2]
    return torch.logaddexp(below, above)  # the mean of the two, up to normalisation


def _entropy_weighted(log_probs: Tensor) -> Tensor:
    entropy = -(log_probs.exp() * log_probs).sum(-1, keepdim=True)
    return (log_probs - entropy / SHARPNESS).logsumexp(0)


def _confidence_weighted(log_probs: Tensor) -> Tensor:
    most = log_probs.amax(-1, keepdim=True).exp()
    return (log_probs + most / SHARPNESS).logsumexp(0)


_UNNORMALISED: MappingProxyType[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "mean_probability": _mean_probability,
        "mean_logit": _mean_logit,
        "median": _median,
        "entropy_weighted": _entropy_weighted,
        "confidence_weighted": _confidence_weighted,
    }
)

READOUTS = tuple(_UNNORMALISED)
"""The names of the readouts."""


@dataclass(frozen=True)
class Readout:
    r"""A rule that makes one distribution :math:`q` of a bank of draws :math:`p_s`.

    .. math::
        \text{mean_probability} \quad r(v) &= \textstyle\frac{1}{S} \sum_s p_s(v) \\
        \text{mean_logit} \quad r(v) &\propto
            \exp\big(\textstyle\frac{1}{S} \sum_s \log p_s(v)\big) \\
        \text{median} \quad r(v) &\propto \operatorname{median}_s p_s(v) \\
        \text{entropy_weighted} \quad r(v) &\propto
            \textstyle\sum_s \exp(-H[p_s] / 0.25) \, p_s(v) \\
        \text{confidence_weighted} \quad r(v) &\propto
            \textstyle\sum_s \exp(\max_u p_s(u) / 0.25) \, p_s(v) \\
        q(v) &\propto r(v)^{1/T}

    The temperature :math:`T` acts on the combined distribution, as temperature scaling does, not on
    each draw; for `mean_logit` the two are the same. With one draw and :math:`T = 1` every readout
    is that draw. The median of an even number of draws is the mean of the middle two.

    Args:
        name: One of :data:`READOUTS`.
        temperature: :math:`T`; above 1 flattens, below 1 sharpens.

    Raises:
        InputError: For an unknown name, or a temperature that is not positive and finite.

    Example:
        >>> bank = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()  # two draws over two words
        >>> Readout("mean_probability")(bank).exp()
        tensor([0.7000, 0.3000])
        >>> Readout("mean_logit")(bank).exp()
        tensor([0.7500, 0.2500])

    Source: Ruffenach, *Learning Distributions Inside a Language Model*, doi:10.5281/zenodo.21632472
    (2026); temperature: Guo et al., *On Calibration of Modern Neural Networks*, 2017.
    """

    name: str = "mean_probability"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in READOUTS:
            raise InputError(
                "name",
                expected=f"one of {', '.join(READOUTS)}",
                got=repr(self.name),
                hint="Readout('mean_probability')",
            )
        if not 0.0 < self.temperature < math.inf:
            raise InputError(
                "temperature",
                expected="a positive, finite number",
                got=repr(self.temperature),
                hint="1.0 changes nothing, 1.5 flattens",
            )

    def __call__(self, log_probs: Tensor) -> Tensor:
        """Return the log probabilities of the combined distribution.

        Args:
            log_probs: Log probabilities of every draw in nats, shape `(draws, ..., vocabulary)`.

        Returns:
            Log probabilities that sum to one, shape `(..., vocabulary)`. Differentiable.

        Raises:
            InputError: If the bank is not finite, not normalised, or has no dimension of draws.
        """
        check_bank(log_probs)
        return (combine(log_probs, self.name) / self.temperature).log_softmax(-1)


def combine(log_probs: Tensor, name: str) -> Tensor:
    """Return the readout of a bank that was checked, at temperature 1, `(..., vocabulary)`."""
    return _UNNORMALISED[name](log_probs).log_softmax(-1)


def candidate_readouts(
    names: Iterable[str] = READOUTS, *, temperatures: Iterable[float] = TEMPERATURES
) -> tuple[Readout, ...]:
    """Return every named readout at every temperature.

    Args:
        names: Names among :data:`READOUTS`.
        temperatures: Temperatures, each positive; `(1.0,)` for the plain readouts.

    Returns:
        The readouts, those of one name together, in the order given.

    Raises:
        InputError: For an unknown name or a temperature that is not positive.

    Example:
        >>> [readout.name for readout in candidate_readouts(temperatures=[1.0])][:3]
        ['mean_probability', 'mean_logit', 'median']
    """
    grid = tuple(temperatures)
    return tuple(Readout(name, temperature) for name in names for temperature in grid)


def check_bank(log_probs: Tensor) -> None:
    """Refuse what is not a bank of finite, normalised log probabilities."""
    check_finite("log_probs", log_probs)
    if log_probs.ndim < 2:
        raise InputError(
            "log_probs",
            expected="shape (draws, ..., vocabulary)",
            got=f"shape {tuple(log_probs.shape)}",
            hint="log_probs.unsqueeze(0) makes a bank of one draw",
        )
    off = log_probs.detach().logsumexp(-1).abs()
    if bool((off > _ROUNDING).any()):
        place = tuple(int(index) for index in (off > _ROUNDING).nonzero()[0])
        raise InputError(
            "log_probs",
            expected="log probabilities whose exponentials sum to 1 over the last dimension",
            got=f"a sum of {float(log_probs[place].detach().exp().sum()):.4g} at {place}",
            hint="logits.log_softmax(-1)",
        )
