"""Benchmark: every way to die, provoked on chosen units of a healthy layer, recognised and cured.

All experiments train the same small network on Energy Efficiency. A thermostat keeps the layer
healthy; half of its units, the victims, are made ill by one documented cause each. The report is
asked about all units, then the cause is removed, a control is applied, and it is asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_vdn.bench.illnesses import ILLNESSES, Illness, Program, thermostat
from pyro_vdn.bench.loop import Rows, train_steps
from pyro_vdn.bench.results import environment
from pyro_vdn.control import Controller
from pyro_vdn.datasets import load_uci, standardize, uci_split
from pyro_vdn.diagnostics import CollapseReport, collapse_report, unit_statistics
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.infer import PACmELBO
from pyro_vdn.models import Regression

UNITS = 12
#: Units of a layer that has none to spare.
FEW_UNITS = 4
STEPS = 1500


def train_rows() -> Rows:
    """Return the standardised training rows of Energy Efficiency, split 0."""
    split = standardize(uci_split(load_uci("energy"), 0))
    return split.train.features.float(), split.train.target.float()


def train(
    model: Regression,
    program: Program,
    controller: Controller,
    rows: Rows,
    *,
    seed: int,
    steps: int = STEPS,
) -> None:
    """Train under a controller.

    Args:
        model: The bare model.
        program: The same in its effects.
        controller: What watches.
        rows: Inputs and targets.
        seed: Seed of the batches.
        steps: Number of steps.
    """
    loss = PACmELBO(closed_form=True)
    for _ in train_steps(
        model, program, loss, rows, steps, seed=seed, rate=5e-3, control=controller
    ):
        pass


def examine(model: Regression, rows: Rows) -> CollapseReport:
    """Return the report on a model's units.

    Args:
        model: The bare model.
        rows: Inputs and targets.
    """
    return collapse_report(unit_statistics(model, NeuronGuide(model), [rows]))


def healthy(seed: int, rows: Rows, steps: int = STEPS, num_units: int = UNITS) -> CollapseReport:
    """Train a layer under the thermostat alone and return its report.

    Args:
        seed: Seed of weights and batches.
        rows: Inputs and targets.
        steps: Steps of training.
        num_units: Number of units.
    """
    pyro.set_rng_seed(seed)
    model = Regression(rows[0].shape[-1], num_units=num_units).float()
    keeper = thermostat(model)
    train(model, keeper.wrap(model), keeper, rows, seed=seed, steps=steps)
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
        train(model, program, keeper, rows, seed=seed, steps=steps)
    return model, victims


@contextmanager
def _pruned(model: Regression, victims: Tensor) -> Iterator[None]:
    """Cut the victims off from what reads them."""
    weight = model.readout.linear.weight
    with torch.no_grad():
        weight[:, victims] = 0.0
    hook = weight.register_hook(  # type: ignore[no-untyped-call]
        lambda gradient: gradient.masked_fill(victims, 0.0)
    )
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
    train(model, treatment.wrap(model), treatment, rows, seed=seed + 1000, steps=steps)


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
        for units in (UNITS, FEW_UNITS):
            calls = _calls(healthy(seed, rows, steps, units))
            name = f"none: a healthy layer of {units}"
            results["runs"].append({"illness": name, "seed": seed, "calls": calls})
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
