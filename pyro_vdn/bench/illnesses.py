"""Ways to make chosen units ill, each with its cause and its cure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vdn.control import Controller, Homeostat, ScaleGuard, Thermostat, compose, free_bits_cost
from pyro_vdn.diagnostics import CollapseMode
from pyro_vdn.models import Regression
from pyro_vdn.nn import NormalPosterior
from pyro_vdn.poutine import kl_weight, penalize

PATH = "neurons"

Program = Callable[..., Any]


@dataclass(frozen=True)
class Illness:
    """One way to make units ill, and its cure.

    Args:
        mode: What the report should call the victims.
        cause: The cause, in words.
        cure: The cure, in words.
        infect: Changes the fresh model's victims in place.
        expose: Wraps the controlled model in what makes its victims ill while it trains.
        pruned: Whether the readout's columns of the victims are zero, and stay so while it trains.
        treatment: From the ill model to the controllers that cure it.
    """

    mode: CollapseMode
    cause: str
    cure: str
    infect: Callable[[Regression, Tensor], None]
    expose: Callable[[Program, Tensor], Program]
    treatment: Callable[[Regression], Controller]
    pruned: bool = False


def thermostat(model: Regression) -> Thermostat:
    """Return the thermostat that keeps a layer of these experiments healthy.

    Args:
        model: The model.
    """
    return Thermostat(model, low=0.2, high=2.0)


def _nothing(model: Regression, victims: Tensor) -> None:
    """Leave the fresh model as it is."""


def _weighted(program: Program, victims: Tensor, weight: float) -> Program:
    """Multiply the victims' KL weights by a number, whatever the thermostat sets."""
    wrapped: Program = kl_weight(program, {PATH: torch.where(victims, weight, 1.0)})
    return wrapped


def _without_kl(program: Program, victims: Tensor) -> Program:
    return _weighted(program, victims, 0.0)


def _posterior(model: Regression) -> NormalPosterior:
    posterior = model.neurons.posterior
    assert isinstance(posterior, NormalPosterior)
    return posterior


def _narrow(model: Regression, victims: Tensor) -> None:
    gain = torch.where(victims, 0.05, 1.0)
    _posterior(model).multiply_scale_(gain, gain)


def _wide(model: Regression, victims: Tensor) -> None:
    gain = torch.where(victims, 15.0, 1.0)
    _posterior(model).multiply_scale_(gain, gain)
    with torch.no_grad():
        model.readout.linear.weight[:, victims] = 0.0


def _loud(model: Regression, victims: Tensor) -> None:
    gain = torch.where(victims, 15.0, 1.0)
    _posterior(model).multiply_loc_(gain)
    with torch.no_grad():
        model.readout.linear.weight.div_(gain)


def _must_tell(program: Program, victims: Tensor) -> Program:
    def cost(posterior: Any, prior: Any) -> Tensor:
        return torch.where(victims, free_bits_cost(posterior, prior, bits=8.0), 0.0)

    wrapped: Program = penalize(_without_kl(program, victims), {PATH: cost}, name="must_tell")
    return wrapped


ILLNESSES = (
    Illness(
        CollapseMode.POSTERIOR_COLLAPSE,
        "a KL weight of at least 10 on each victim",
        "Thermostat",
        _nothing,
        lambda program, victims: _weighted(program, victims, 1e7),
        thermostat,
    ),
    Illness(
        CollapseMode.DETERMINISTIC_COLLAPSE,
        "scales that start at 0.015 and no KL to widen them",
        "ScaleGuard(floor=0.15) and Thermostat",
        _narrow,
        _without_kl,
        lambda model: compose(thermostat(model), ScaleGuard(model, floor=0.15)),
    ),
    Illness(
        CollapseMode.ENERGY_BLOW_UP,
        "locations that start 15 times too large and no KL to quieten them",
        "Homeostat(0.5) and Thermostat",
        _loud,
        _without_kl,
        lambda model: compose(thermostat(model), Homeostat(model, 0.5, warmup=0)),
    ),
    Illness(
        CollapseMode.VARIANCE_BLOW_UP,
        "scales that start at 4.5 and 8 free nats that are paid with noise",
        "ScaleGuard(ceiling=1) and Thermostat",
        _wide,
        _must_tell,
        lambda model: compose(thermostat(model), ScaleGuard(model, ceiling=1.0)),
    ),
    Illness(
        CollapseMode.IGNORED,
        "a readout that has pruned them, and no KL that would silence them",
        "Thermostat",
        _nothing,
        _without_kl,
        thermostat,
        pruned=True,
    ),
)
