"""Benchmark: every way to die, provoked on chosen units of a healthy layer, recognised and cured.

All experiments train the same small network on Energy Efficiency. A thermostat keeps the layer
healthy; half of its units, the victims, are made ill by one documented cause each. The report is
asked about all units, then the cause is removed, a control is applied, and it is asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_vdn.bench.results import environment
from pyro_vdn.control import Controller, Homeostat, ScaleGuard, Thermostat, compose, watch
from pyro_vdn.control.free_bits import free_bits_cost
from pyro_vdn.datasets import load_uci, standardize, uci_split
from pyro_vdn.diagnostics import CollapseMode, CollapseReport, collapse_report, unit_statistics
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.infer import PACmELBO
from pyro_vdn.models import Regression
from pyro_vdn.poutine import kl_weight, penalize

UNITS = 12
STEPS = 1500
BATCH = 64
PATH = "neurons"

Program = Callable[..., Any]
Rows = tuple[Tensor, Tensor]


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


def _narrow(model: Regression, victims: Tensor) -> None:
    gain = torch.where(victims, 0.05, 1.0)
    model.neurons.posterior.multiply_scale_(gain, gain)


def _wide(model: Regression, victims: Tensor) -> None:
    gain = torch.where(victims, 15.0, 1.0)
    model.neurons.posterior.multiply_scale_(gain, gain)
    with torch.no_grad():
        model.readout.linear.weight[:, victims] = 0.0


def _loud(model: Regression, victims: Tensor) -> None:
    gain = torch.where(victims, 15.0, 1.0)
    model.neurons.posterior.multiply_loc_(gain)
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


def train_rows() -> Rows:
    """Return the standardised training rows of Energy Efficiency, split 0."""
    split = standardize(uci_split(load_uci("energy"), 0))
    return split.train.features.float(), split.train.target.float()


def train_steps(
    model: Regression,
    program: Program,
    controller: Controller | None,
    rows: Rows,
    *,
    seed: int,
    steps: int = STEPS,
) -> None:
    """Train with a hand-written loop.

    Args:
        model: The bare model.
        program: The same in its effects.
        controller: What watches, if anything does.
        rows: Inputs and targets.
        seed: Seed of the batches.
        steps: Number of steps.
    """
    x, y = rows
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    loss, guide = PACmELBO(closed_form=True), NeuronGuide(program)
    batches = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(len(x), (BATCH,), generator=batches)
        with nullcontext() if controller is None else watch(controller):
            optimizer.zero_grad()
            value = loss.differentiable_loss(program, guide, x[chosen], y[chosen]) / BATCH
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def examine(model: Regression, rows: Rows) -> CollapseReport:
    """Return the report on a model's units.

    Args:
        model: The bare model.
        rows: Inputs and targets.
    """
    return collapse_report(unit_statistics(model, NeuronGuide(model), [rows]))


def healthy(seed: int, rows: Rows, steps: int = STEPS) -> CollapseReport:
    """Train a layer too small to spare a unit under the thermostat alone; return its report.

    Args:
        seed: Seed of weights and batches.
        rows: Inputs and targets.
        steps: Steps of training.
    """
    pyro.set_rng_seed(seed)
    model = Regression(rows[0].shape[-1], num_units=UNITS // 3).float()
    keeper = thermostat(model)
    train_steps(model, keeper.wrap(model), keeper, rows, seed=seed, steps=steps)
    return examine(model, rows)


def fall_ill(
    illness: Illness, seed: int, rows: Rows, steps: int = STEPS
) -> tuple[Regression, Tensor]:
    """Train a layer of which half the units have a cause to be ill.

    Args:
        illness: The illness.
        seed: Seed of weights, victims and batches.
        rows: Inputs and targets.
        steps: Steps of training.

    Returns:
        The model and which units are victims, boolean, `(units,)`.
    """
    pyro.set_rng_seed(seed)
    model = Regression(rows[0].shape[-1], num_units=UNITS).float()
    victims = torch.zeros(UNITS, dtype=torch.bool)
    victims[torch.randperm(UNITS)[: UNITS // 2]] = True
    illness.infect(model, victims)
    keeper = thermostat(model)
    program = illness.expose(keeper.wrap(model), victims)

    with _pruned(model, victims) if illness.pruned else nullcontext():
        train_steps(model, program, keeper, rows, seed=seed, steps=steps)
    return model, victims


@contextmanager
def _pruned(model: Regression, victims: Tensor) -> Iterator[None]:
    """Cut the victims off from what reads them."""
    weight = model.readout.linear.weight
    with torch.no_grad():
        weight[:, victims] = 0.0
    hook = weight.register_hook(lambda gradient: gradient.masked_fill(victims, 0.0))
    try:
        yield
    finally:
        hook.remove()


def cure(illness: Illness, model: Regression, seed: int, rows: Rows, steps: int = STEPS) -> None:
    """Remove the cause and train on under the illness's cure.

    Args:
        illness: The illness.
        model: The ill model, changed in place.
        seed: Seed of the batches.
        rows: Inputs and targets.
        steps: Steps of training.
    """
    treatment = illness.treatment(model)
    train_steps(model, treatment.wrap(model), treatment, rows, seed=seed + 1000, steps=steps)


def bench_collapse(
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    steps: int = STEPS,
    on_run: Callable[[dict[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """Provoke, recognise and cure every illness.

    Args:
        seeds: Seeds of weights, victims and batches.
        steps: Steps of each training, and of each cure.
        on_run: Called with all results so far after every run.

    Returns:
        ``environment`` and ``runs``, ready for JSON: per illness and seed the calls of all units,
        which were victims, and the calls after the cure.
    """
    rows = train_rows()
    results: dict[str, Any] = {
        "benchmark": "collapse",
        "environment": environment(),
        "units": UNITS,
        "steps": steps,
        "runs": [],
    }
    for seed in seeds:
        calls = _calls(healthy(seed, rows, steps))
        results["runs"].append({"illness": "none", "seed": seed, "calls": calls})
        on_run(results)
        for illness in ILLNESSES:
            model, victims = fall_ill(illness, seed, rows, steps)
            run: dict[str, Any] = {
                "illness": illness.mode.value,
                "cause": illness.cause,
                "cure": illness.cure,
                "seed": seed,
                "victims": victims.nonzero().squeeze(-1).tolist(),
                "calls": _calls(examine(model, rows)),
            }
            cure(illness, model, seed, rows, steps)
            run["calls_after_cure"] = _calls(examine(model, rows))
            results["runs"].append(run)
            on_run(results)
    return results


def _calls(report: CollapseReport) -> list[str]:
    return [call.mode.value for call in report.calls]
