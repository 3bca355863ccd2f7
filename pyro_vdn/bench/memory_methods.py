"""The methods of the memory benchmark: configurations of one network, and their recipes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pyro
import torch
from torch import nn

from pyro_vdn.bench.memory_data import SETTINGS, Setting
from pyro_vdn.bench.memory_model import SequenceNet
from pyro_vdn.guides import FilteringPosterior
from pyro_vdn.infer.single_pass import Program
from pyro_vdn.nn import AutoregressiveNormal, NormalPosterior, StandardNormal
from pyro_vdn.poutine import deterministic, kl_weight


@dataclass(frozen=True)
class Method:
    """A configuration of the network.

    Args:
        name: What tables call it.
        remembers: Whether the neurons have an autoregressive prior and a filtering posterior.
        masked: Whether neurons follow their prior where a window is missing; else they read the
            window carried forward, with its flag and age.
        deterministic: Whether the neurons are points.
        recurrent: Whether a GRU stands before the neurons.

    Example:
        >>> METHODS[0].name
        'memory on'
    """

    name: str
    remembers: bool = False
    masked: bool = False
    deterministic: bool = False
    recurrent: bool = False


ON = "memory on"
METHODS = (
    Method(ON, remembers=True, masked=True),
    Method("memory on, carried forward", remembers=True),
    Method("memory off", masked=True),
    Method("memory off, carried forward"),
    Method("points, carried forward", deterministic=True),
    Method("GRU before points, carried forward", deterministic=True, recurrent=True),
    Method("GRU before neurons without memory, carried forward", recurrent=True),
    Method("GRU before neurons with memory, carried forward", recurrent=True, remembers=True),
)


@dataclass(frozen=True)
class MemoryRecipe:
    """Hyper-parameters of all methods on a series; chosen by validation scores.

    Args:
        hidden: Size of the encoder's output.
        recurrent_hidden: The same with a GRU, for about as many parameters.
        num_units: Number of neurons.
        decays: Smallest and largest decay per step of the prior's oscillations, at the start.
        periods: Their shortest and longest period at the start, in steps.
        kl: KL weight.
        rate: Largest learning rate.
        decay: Weight decay.
        batch_size: Sequences per step.
        max_steps: Gradient steps.
        evaluations: How often validation scores are taken; the best weights are kept.

    Example:
        >>> MemoryRecipe().with_steps(7).max_steps
        7
    """

    hidden: int = 48
    recurrent_hidden: int = 16
    num_units: int = 16
    decays: tuple[float, float] = (0.7, 0.99)
    periods: tuple[float, float] = (4.0, 80.0)
    kl: float = 1e-3
    rate: float = 1e-2
    decay: float = 1e-4
    batch_size: int = 16
    max_steps: int = 400
    evaluations: int = 5

    def with_steps(self, max_steps: int) -> MemoryRecipe:
        """Return the recipe with another number of steps."""
        return replace(self, max_steps=max_steps)

    def prior(self) -> AutoregressiveNormal:
        """Return the prior of neurons that remember: of order 2, damped oscillations."""
        decays = torch.linspace(*self.decays, self.num_units)
        shortest, longest = (math.log10(period) for period in self.periods)
        periods = torch.logspace(shortest, longest, self.num_units)
        phi = torch.stack([2 * decays * torch.cos(2 * math.pi / periods), -decays.square()], -1)
        return AutoregressiveNormal(self.num_units, phi=phi, order=2)


NAMES = tuple(setting.name for setting in SETTINGS)
RECIPES = {
    "etth1-day": MemoryRecipe(recurrent_hidden=18),
    "etth1-quarter": MemoryRecipe(recurrent_hidden=16),
    "co2": MemoryRecipe(recurrent_hidden=16),
}


def build(
    method: Method, setting: Setting, recipe: MemoryRecipe, seed: int
) -> tuple[SequenceNet, Program]:
    """Return the network of a method, and the program that is trained and scored.

    Args:
        method: The method.
        setting: How the series is cut.
        recipe: Sizes.
        seed: Seed of the weights.
    """
    pyro.set_rng_seed(seed)
    posterior: nn.Module = NormalPosterior("input")
    if method.remembers:
        posterior = FilteringPosterior(NormalPosterior("input"), summary_size=0)
    net = SequenceNet(
        setting.window,
        setting.horizon,
        hidden=recipe.recurrent_hidden if method.recurrent else recipe.hidden,
        num_units=recipe.num_units,
        prior=recipe.prior() if method.remembers else StandardNormal(),
        posterior=posterior,
        masked=method.masked,
        recurrent=method.recurrent,
    ).float()
    return net, deterministic(net) if method.deterministic else kl_weight(net, recipe.kl)
