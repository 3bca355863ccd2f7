"""Runs of a model with units held at their mean, and the variances that follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from pyro.distributions import MaskedDistribution
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyro_vdn.diagnostics.comparison._steady_noise import SteadyNoise
from pyro_vdn.errors import InputError
from pyro_vdn.infer.joint_draws import Look, draw_jointly
from pyro_vdn.poutine import clamp

Program = Callable[..., Any]
Holds = dict[str, Any]


class BatchVariances(NamedTuple):
    """The variances of a layer in one batch of rows, as in `LayerVariances`.

    Args:
        lost: `(units, rows)`.
        alone: `(units, rows)`.
        layer_lost: `(rows,)`.
        layer_alone: `(rows,)`.

    Example:
        >>> BatchVariances(*torch.zeros(2, 3, 5), *torch.zeros(2, 5)).lost.shape
        torch.Size([3, 5])
    """

    lost: Tensor
    alone: Tensor
    layer_lost: Tensor
    layer_alone: Tensor


@dataclass(frozen=True)
class Interventions:
    """A model on a batch of rows, to be run with the same noise again and again.

    Args:
        model: The program.
        guide: Its guide.
        inputs: Inputs, each `(rows, ...)`.
        num_samples: Draws per row.
        site: Name of the outcome's site.
        look: What `look_at` showed of the model.
        seed: Seed of the noise.
        output: The one output to look at, or None for all.
        sizes: Number of units of every layer that runs.
        noise: What `SteadyNoise` keeps from run to run.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.infer.joint_draws import look_at
        >>> from pyro_vdn.models import Regression
        >>> model, x = Regression(3, num_units=4), (torch.zeros(5, 3),)
        >>> look, sizes = look_at(model, x), {"neurons": 4}
        >>> runs = Interventions(model, NeuronGuide(model), x, 7, "y", look, 0, None, sizes)
        >>> runs.expect({"neurons": {0: "mean"}}).shape
        torch.Size([7, 5, 1])
    """

    model: Program
    guide: Program
    inputs: Sequence[Tensor]
    num_samples: int
    site: str
    look: Look
    seed: int
    output: int | None
    sizes: dict[str, int]
    noise: dict[str, Tensor] = field(default_factory=dict)

    def expect(self, held: Holds | None = None, turned: dict[str, Tensor] | None = None) -> Tensor:
        """Return the outcome's expectation under every draw, `(draws, rows, outputs and steps)`.

        Args:
            held: What `clamp` holds.
            turned: Which units take their noise with the other sign.
        """
        torch.manual_seed(self.seed)  # for latent sites that are no neurons
        steady = SteadyNoise(self.seed, turned, self.noise)
        with steady, clamp(units=held) if held else nullcontext():
            drawn = draw_jointly(
                self.model,
                self.guide,
                self.inputs,
                self.num_samples,
                site=self.site,
                shared=Trace(),
                look=self.look,
            )
        return _expectation(drawn.outcome["fn"], self.output)

    def all_but(self, path: str, unit: int | None = None) -> Holds:
        """Return holds of everything but a layer, or but one unit of it."""
        held: Holds = {other: "mean" for other in self.sizes if other != path}
        if unit is not None and self.sizes[path] > 1:
            held[path] = {at: "mean" for at in range(self.sizes[path]) if at != unit}
        return held

    def turned(self, path: str, unit: int | None = None) -> dict[str, Tensor]:
        """Return signs that are turned for a layer, or one unit of it."""
        size, device = self.sizes[path], self.inputs[0].device
        every = torch.arange(size, device=device)
        return {path: every == unit if unit is not None else torch.ones_like(every).bool()}


def variances_of_batch(
    runs: Interventions, chosen: dict[str, tuple[int, ...]]
) -> tuple[Tensor, dict[str, BatchVariances]]:
    """Return the variance between draws, `(rows,)`, and where it comes from, by layer.

    Args:
        runs: Runs of the model on the batch.
        chosen: By layer path, which units to measure.
    """
    whole = runs.expect()
    nothing = runs.expect(dict.fromkeys(runs.sizes, "mean"))
    total = _Sum.nothing(whole)
    layers = {}
    for path, units in chosen.items():
        layers[path], within = _of_layer(runs, path, units, whole, nothing)
        total = total.plus(within)
    return total.steadied(whole, _variance(whole)), layers


def _of_layer(
    runs: Interventions, path: str, units: tuple[int, ...], whole: Tensor, nothing: Tensor
) -> tuple[BatchVariances, _Sum]:
    lost, alone = whole.new_zeros(2, len(units), whole.shape[1])
    within = _Sum.nothing(whole)
    for at, unit in enumerate(units):
        without = runs.expect({path: {unit: "mean"}})
        lost[at] = _lost(whole, without, runs.expect(turned=runs.turned(path, unit)))
        by_itself = runs.expect(runs.all_but(path, unit)) - nothing
        alone[at] = _variance(by_itself)
        within = within.plus(_Sum(by_itself, alone[at]))
    without = runs.expect({path: "mean"})
    layer_lost = _lost(whole, without, runs.expect(turned=runs.turned(path)))
    layer_lost = within.steadied(whole - without, layer_lost)
    by_itself = runs.expect(runs.all_but(path)) - nothing
    layer_alone = within.steadied(by_itself, _variance(by_itself))
    return BatchVariances(lost, alone, layer_lost, layer_alone), within


class _Sum(NamedTuple):
    """What units add by themselves: the sum of it, and the sum of the variances.

    Units are independent, so that the variance of the sum differs from the sum of the variances by
    chance alone.
    """

    values: Tensor
    variance: Tensor

    @classmethod
    def nothing(cls, like: Tensor) -> _Sum:
        return cls(torch.zeros_like(like), like.new_zeros(like.shape[1]))

    def plus(self, other: _Sum) -> _Sum:
        return _Sum(self.values + other.values, self.variance + other.variance)

    def steadied(self, values: Tensor, variance: Tensor) -> Tensor:
        """Return an estimated variance of values `(draws, rows, ...)` without that chance part.

        As much of it is taken out as these values go along with the sum.
        """
        by_chance = _variance(self.values)
        scale = float(by_chance.sum())
        if scale == 0.0:
            return variance
        slope = float(_covariance(values, self.values).sum()) / scale
        return variance + slope**2 * (self.variance - by_chance)


def _lost(whole: Tensor, without: Tensor, turned: Tensor) -> Tensor:
    """Return the variance lost when something is held, `(rows,)`; see `unit_shares`."""
    even = 0.5 * (whole + turned) - without
    return _variance(whole - without) + 2 * _covariance(even, without)


def _variance(values: Tensor) -> Tensor:
    return values.var(0).sum(-1)


def _covariance(first: Tensor, second: Tensor) -> Tensor:
    centred = (first - first.mean(0)) * (second - second.mean(0))
    return centred.sum((0, -1)) / (len(first) - 1)


def _expectation(outcome: Any, output: int | None) -> Tensor:
    """Return the mean of an outcome, of classes their probabilities, its steps flattened."""
    while isinstance(outcome, MaskedDistribution):
        outcome = outcome.base_dist
    is_class = isinstance(outcome, dist.Categorical)
    mean: Tensor = outcome.probs if is_class else outcome.mean
    if is_class or outcome.event_dim:  # (draws, rows, ..., 1, outputs) -> (..., outputs)
        mean = mean.squeeze(-2)
    if output is not None:
        if not -mean.shape[-1] <= output < mean.shape[-1]:
            raise InputError(
                "output",
                expected=f"one of {mean.shape[-1]} outputs, counted from 0",
                got=str(output),
                hint="output=None for all of them",
            )
        mean = mean[..., output]
        if mean.dim() == 2:
            mean = mean.unsqueeze(-1)
    return mean.flatten(2)
