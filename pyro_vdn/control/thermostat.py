"""A KL weight per unit that holds each unit's KL in a range."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from pyro_vdn.control.checks import check_order, check_range
from pyro_vdn.control.controller import Controller, Program, Seen
from pyro_vdn.control.layers import Controlled, initial_scale_cost, like_layer
from pyro_vdn.errors import InputError
from pyro_vdn.poutine import kl_weight


def range_error(kl: Tensor, low: float, high: float) -> Tensor:
    r"""Return how far each KL lies outside `[low, high]`, in logarithm and at most 1 either way.

    `log(KL_i / high)` above, `log(KL_i / low)` below, 0 inside.

    Args:
        kl: KLs in nats, `(num_units,)`.
        low: Lower bound, positive.
        high: Upper bound.

    Returns:
        Errors in [-1, 1], `(num_units,)`.

    Example:
        >>> range_error(torch.tensor([0.05, 0.1, 0.2, 0.4]), 0.1, 0.2)
        tensor([-0.6931,  0.0000,  0.0000,  0.6931])
    """
    log_kl = kl.clamp(min=torch.finfo(kl.dtype).tiny).log()
    above, below = (log_kl - math.log(high)).clamp(min=0), (log_kl - math.log(low)).clamp(max=0)
    return (above + below).clamp(-1.0, 1.0)


def regulated_weight(
    weight: Tensor,
    kl: Tensor,
    *,
    low: float,
    high: float,
    rate: float,
    dead: float,
    release: float,
    bounds: tuple[float, float],
    ratio: tuple[float, float],
) -> Tensor:
    r"""Return the KL weights of the next steps.

    `log beta_i` moves by `rate * range_error(KL_i)`; the weight of a dead unit is multiplied by
    `release` instead; that of a unit whose KL is not known stays. Then every weight is kept within
    `bounds`, and within `ratio` times the mean weight, which does not lead out of them.

    Args:
        weight: Weights `beta`, `(num_units,)`.
        kl: KLs in nats, `(num_units,)`.
        low: Lower bound of the KL.
        high: Upper bound of the KL.
        rate: Step of `log beta` per unit of error.
        dead: KL below which a unit is dead.
        release: Factor on the weight of a dead unit, in (0, 1].
        bounds: Least and largest weight.
        ratio: Least and largest weight as multiples of the mean weight.

    Returns:
        The new weights, `(num_units,)`.

    Example:
        >>> rule = dict(low=0.1, high=0.2, rate=0.5, dead=1e-4, release=0.5)
        >>> kl = torch.tensor([0.15, 0.0])
        >>> new = regulated_weight(torch.ones(2), kl, **rule, bounds=(0.1, 2.0), ratio=(0.25, 4.0))
        >>> new
        tensor([1.0000, 0.5000])
    """
    moved = weight * (rate * range_error(kl, low, high)).exp()
    moved = torch.where(kl < dead, weight * release, moved)
    moved = torch.where(moved.isnan(), weight, moved).clamp(*bounds)
    mean = moved.mean()
    return moved.clamp(ratio[0] * mean, ratio[1] * mean)


class Thermostat(Controller):
    r"""Holds each unit's KL in `[low, high]` by a KL weight of its own.

    The weights (`regulated_weight`) rise where a unit tells more than `high` and fall where it
    tells less than `low`, in steps that are a fraction of the error in logarithm, so that they do
    not depend on the size of the KL. (The published rule moves by the distance in nats, which is
    slow below a small `low`.) A dead unit is released at once.

    A weight can hold a unit back, and let it go; it cannot make a unit tell what the likelihood
    does not pay for. In a layer with more units than the data need, some stay below `low` at the
    least weight: take fewer units.

    ``wrap(model)`` is ``kl_weight(model, thermostat.weights)``; the weights are live tensors.

    Args:
        model: The model, or its layers by path.
        low: Least KL of a unit, in nats per row, positive.
        high: Largest KL of a unit; by default 1.5, four times `low`, or twice what the initial
            scale costs alone in the costliest layer, whichever is most.
        margin: Factor by which it steers inside the range, at least 1: it aims at
            `[low * margin, high / margin]`, so that a unit that presses against an end stays in it.
        rate: Step of `log beta` per unit of error.
        initial_weight: Weight at the start.
        bounds: Least and largest weight.
        ratio: Least and largest weight as multiples of the layer's mean weight.
        dead: KL in nats below which a unit is dead.
        release: Factor on a dead unit's weight at every act, in (0, 1].
        every: Steps from one act to the next.
        warmup: Steps before the first.
        momentum: Weight of a new observation in the running average of the KL.

    Raises:
        InputError: For numbers outside their range, or that contradict each other: a `high` below
            what the layer's initial scale alone costs would drive every scale to the prior's.

    Example:
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3, initial_scale=0.6)
        >>> thermostat = Thermostat(model, low=0.05, high=0.5, initial_weight=1e-2)
        >>> thermostat.weights["neurons"][:2]
        tensor([0.0100, 0.0100])

    Source:
        Ruffenach, *Exploring the Dimensions of a Variational Neuron*, arXiv:2603.13849 (2026).
    """

    def __init__(
        self,
        model: Controlled,
        *,
        low: float = 0.05,
        high: float | None = None,
        margin: float = 1.25,
        rate: float = 0.2,
        initial_weight: float = 1e-2,
        bounds: tuple[float, float] = (1e-6, 10.0),
        ratio: tuple[float, float] = (0.001, 1000.0),
        dead: float = 1e-4,
        release: float = 0.5,
        every: int = 10,
        warmup: int = 0,
        momentum: float = 0.3,
    ) -> None:
        super().__init__(model, every=every, warmup=warmup, momentum=momentum)
        check_range("low", low, 0.0, above=True)
        costs = {path: initial_scale_cost(layer) for path, layer in self.layers.items()}
        high = max(4 * low, _default_ceiling(costs.values())) if high is None else high
        check_order("low", low, "high", high)
        check_order("dead", dead, "low", low)
        check_range("margin", margin, 1.0)
        _check_margin(margin, low, high)
        check_range("rate", rate, 0.0, above=True)
        check_range("release", release, 0.0, 1.0, above=True)
        for name, (least, most) in (("bounds", bounds), ("ratio", ratio)):
            check_range(f"{name}[0]", least, 0.0, above=True)
            check_order(f"{name}[0]", least, f"{name}[1]", most)
        check_range("ratio[0]", ratio[0], 0.0, 1.0, above=True)
        check_range("ratio[1]", ratio[1], 1.0)
        check_range("initial_weight", initial_weight, *bounds)
        for path, cost in costs.items():
            _check_ceiling(path, cost, high)
        self.low, self.high = low, high
        self.rule = {
            "low": low * margin,
            "high": high / margin,
            "rate": rate,
            "dead": dead,
            "release": release,
            "bounds": bounds,
            "ratio": ratio,
        }
        #: Live KL weights by layer path, `(num_units,)` each.
        self.weights: dict[str, Tensor] = {
            path: like_layer(layer).new_full((layer.shape.num_units,), initial_weight)
            for path, layer in self.layers.items()
        }
        self.memory = {"weight": self.weights}

    def observe(self, seen: Seen) -> None:
        """Average each unit's KL."""
        for path, record in self.records(seen):
            self.average("kl", path, record.kl.mean)

    def change(self, path: str) -> None:
        """Move the layer's weights."""
        kl = self.recall("kl", path)
        if kl is not None:
            weight = self.weights[path]
            weight.copy_(regulated_weight(weight, kl, **self.rule))  # type: ignore[arg-type]

    def wrap(self, model: Program) -> Program:
        """Return the model with the live weights on its KL."""
        wrapped: Program = kl_weight(model, self.weights)
        return wrapped


def _default_ceiling(costs: Iterable[tuple[float, float] | None]) -> float:
    return max([1.5, *(2 * cost[1] for cost in costs if cost is not None)])


def _check_margin(margin: float, low: float, high: float) -> None:
    largest = (high / low) ** 0.5
    if margin <= largest * (1 + 1e-9):
        return
    raise InputError(
        "margin",
        expected=f"at most {largest:.4g}, which leaves no room between low = {low:g} and "
        f"high = {high:g}",
        got=f"{margin:g}",
        hint=f"margin={largest**0.5:.3g}, or a wider range",
    )


def _check_ceiling(path: str, cost: tuple[float, float] | None, high: float) -> None:
    if cost is None or cost[1] <= high:
        return
    scale, alone = cost
    raise InputError(
        "high",
        expected=f"at least {alone:.3f} nats, what the initial scale {scale:g} of layer '{path}' "
        "costs alone: (s^2 - 1) / 2 - log s, in units of the prior's scale",
        got=f"{high:g}",
        hint=f"high={1.5 * alone:.2g}, or an initial_scale nearer to the prior's",
    )
