"""A weight that keeps the share of memory in the loss near a target."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vdn.control.checks import check_order, check_range
from pyro_vdn.control.controller import Controller, Program, Seen
from pyro_vdn.control.layers import Controlled, like_layer, neuron_layers
from pyro_vdn.control.loss_notes import LossNotes, NotingMessenger
from pyro_vdn.errors import InputError
from pyro_vdn.nn import VariationalNeurons
from pyro_vdn.nn.sequences import links_steps
from pyro_vdn.poutine import Cost, kl_weight, penalize


def share_weight(
    weight: Tensor,
    ratio: Tensor,
    *,
    target: float,
    cap: float,
    rate: float,
    release: float,
    bounds: tuple[float, float],
) -> Tensor:
    r"""Return the weight of the memory's term for the next steps.

    A term of `weight * ratio` times the log-likelihood has the share
    `weight * ratio / (1 + weight * ratio)`; the weight that brings it to the target at once, were
    the ratio to stay, is `w* = target / (1 - target) / ratio`. `log weight` moves by `rate` times
    the way to `log w*`, at most 1; above the cap the weight is `w*` at once. Where not even the
    largest weight would reach the target the term is all but gone, and a larger weight would only
    keep it down: the weight is multiplied by `release` instead.

    Args:
        weight: The weight, positive, a scalar.
        ratio: The term without its weight over the absolute log-likelihood, a scalar; not finite
            where it is not known, which leaves the weight as it is.
        target: Share to be held, in (0, 1).
        cap: Share above which the weight drops at once.
        rate: Step of the log weight per unit of error.
        release: Factor on the weight of a term that is all but gone, in (0, 1].
        bounds: Least and largest weight.

    Returns:
        The new weight, a scalar.

    Example:
        >>> rule = dict(target=0.2, cap=0.3, rate=0.5, release=0.5, bounds=(1e-3, 10.0))
        >>> one = torch.tensor(1.0)
        >>> [round(share_weight(one, one * ratio, **rule).item(), 4) for ratio in (0.25, 0.2, 1.0)]
        [1.0, 1.118, 0.25]
    """
    wanted = _odds(target) / ratio
    moved = weight * (rate * (wanted / weight).log().clamp(-1.0, 1.0)).exp()
    moved = torch.where(weight * ratio > _odds(cap), wanted, moved)
    moved = torch.where(ratio * bounds[1] < _odds(target), weight * release, moved)
    return torch.where(ratio.isfinite(), moved, weight).clamp(*bounds)


def _odds(share: float) -> float:
    return share / (1 - share)


class PersistenceShare(Controller):
    r"""Holds the share of memory in the loss near a target, by one weight for its layers.

    The share is `A / (A + |L|)`: `A` the memory's term as it stands in the loss, weights included,
    and `L` the log-likelihood of the observations, both over the steps observed. The term is the KL
    of layers whose prior is a chain over time; or, given a `cost` between consecutive steps, that
    penalty, for layers with any prior. Where memory has the better of the data units follow their
    own past (they may freeze in time); where it has next to no say, it is none.

    The published quantity is the share of a `cost`. `L` is the expected log-likelihood, as in an
    ELBO: under `PACmELBO`, whose likelihood is averaged inside the logarithm, the share of the loss
    itself (`memory_share`) is larger than the one held.

    ``wrap(model)`` puts the live weight on that KL, or the weighted penalty into the loss. In steps
    to observe it also notes `L`, which costs one more evaluation of the likelihood.

    A share can be out of reach: a KL that is charged more shrinks, and beyond some weight the share
    falls. Then the weight is released, and tries again from below.

    Args:
        model: The model, of which the layers with memory are taken, or layers by path.
        cost: A penalty such as `autoregressive_cost`, in place of the KL.
        target: Share to be held.
        cap: Share above which the weight drops at once.
        rate: Step of the log weight per unit of error, in logarithm of the odds of the share.
        initial_weight: Weight at the start.
        bounds: Least and largest weight.
        release: Factor on the weight at an act where the term is all but gone.
        every: Steps from one act to the next.
        warmup: Steps before the first.
        momentum: Weight of a new observation in the running average of the ratio; one above the cap
            counts alone.

    Raises:
        InputError: For layers without memory and no cost, or numbers outside their range.

    Example:
        >>> from pyro_vdn.testing.sequences import TrackingModel
        >>> model = TrackingModel(torch.tensor([0.9, 0.5]))
        >>> share = PersistenceShare(model, target=0.2, cap=0.3)
        >>> controlled = share.wrap(model)
        >>> share.share is None, share.weight.item()
        (True, 1.0)

    Source:
        Ruffenach, *Exploring the Dimensions of a Variational Neuron*, arXiv:2603.13849 (2026),
        where the share is that of the penalty between windows.
    """

    def __init__(
        self,
        model: Controlled,
        cost: Cost | None = None,
        *,
        target: float = 0.2,
        cap: float = 0.3,
        rate: float = 0.3,
        initial_weight: float = 1.0,
        bounds: tuple[float, float] = (1e-4, 10.0),
        release: float = 0.5,
        every: int = 5,
        warmup: int = 0,
        momentum: float = 0.3,
    ) -> None:
        layers = neuron_layers(model) if cost is not None else _with_memory(model)
        super().__init__(layers, every=every, warmup=warmup, momentum=momentum)
        check_range("target", target, 0.0, above=True)
        check_order("target", target, "cap", cap)
        check_range("cap", cap, 0.0, 0.99)
        check_range("rate", rate, 0.0, above=True)
        check_range("release", release, 0.0, 1.0, above=True)
        check_range("bounds[0]", bounds[0], 0.0, above=True)
        check_order("bounds[0]", bounds[0], "bounds[1]", bounds[1])
        check_range("initial_weight", initial_weight, *bounds)
        self.cost = cost
        self.rule = {"target": target, "cap": cap, "rate": rate, "release": release}
        self.bounds = bounds
        self.notes = LossNotes(penalty=None if cost is None else self.penalty)
        like = like_layer(next(iter(self.layers.values())))
        self.memory = {
            "weight": {"": like.new_tensor(initial_weight)},
            "log_ratio": {"": like.new_tensor(math.nan)},
        }

    #: Last part of the name of the penalty's sites.
    penalty = "memory"

    @property
    def weight(self) -> Tensor:
        """The live weight, a scalar."""
        return self.memory["weight"][""]

    @property
    def share(self) -> float | None:
        """The share of memory at the present weight, or None before it has been observed."""
        log_ratio = self.memory["log_ratio"][""]
        if not bool(log_ratio.isfinite()):
            return None
        return float(torch.sigmoid(log_ratio + self.weight.log()))

    def observe(self, seen: Seen) -> None:
        """Average the ratio of the memory's term, without its weight, to the log-likelihood."""
        kl = {path: record.kl.mean for path, record in self.records(seen)}
        ratio = (self.notes.ratio(kl) / self.weight).to(self.weight)
        # Above the cap an average over better times would only let it last.
        above = bool(ratio * self.weight > _odds(self.rule["cap"]))
        log_ratio = ratio.clamp(min=torch.finfo(ratio.dtype).tiny).log()
        self.average("log_ratio", "", log_ratio, momentum=1.0 if above else None)

    def act(self) -> None:
        """Count a step, forget its notes and, where it is time, move the weight."""
        self.notes.clear()
        super().act()

    def on_time(self) -> None:
        """Move the weight."""
        ratio = self.memory["log_ratio"][""].exp()
        self.weight.copy_(share_weight(self.weight, ratio, **self.rule, bounds=self.bounds))

    def change(self, path: str) -> None:
        """Leave the layer as it is."""

    def wrap(self, model: Program) -> Program:
        """Return the model with the live weight, and notes taken in steps to observe."""
        if self.cost is None:
            weighted: Program = kl_weight(model, dict.fromkeys(self.layers, self.weight))
        else:
            cost = partial(_weighted, cost=self.cost, weight=self.weight)
            weighted = penalize(model, dict.fromkeys(self.layers, cost), name=self.penalty)
        noted: Program = NotingMessenger(self.notes, self)(weighted)
        return noted


def _weighted(
    posterior: dist.Distribution, prior: dist.Distribution, *, cost: Cost, weight: Tensor
) -> Tensor:
    return weight * cost(posterior, prior)


def _with_memory(model: Controlled) -> dict[str, VariationalNeurons]:
    """Return the layers with memory; of layers that are named, each must have it."""
    layers = neuron_layers(model)
    found = {path: layer for path, layer in layers.items() if has_memory(layer)}
    without = [path for path in layers if path not in found]
    if not found or (isinstance(model, Mapping) and without):
        raise InputError(
            "model",
            expected="layers with memory, whose prior is a chain over time",
            got=f"layer '{without[0]}' without",
            hint="VariationalNeurons(..., prior=AutoregressiveNormal(num_units)), or a penalty: "
            "PersistenceShare(model, autoregressive_cost(scale=0.3))",
        )
    return found


def has_memory(layer: VariationalNeurons) -> bool:
    """Say whether the prior of a layer is a chain over time.

    Args:
        layer: A layer of neurons.

    Example:
        >>> has_memory(VariationalNeurons(3, 4))
        False
    """
    return links_steps(layer.prior, like_layer(layer).new_zeros(2, layer.shape.in_features))
