"""Benchmark: do thermostat and homeostat reach their ranges, and does the loss jump meanwhile?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_vdn.bench.collapse import train_rows
from pyro_vdn.bench.loop import Program, Rows, train_steps
from pyro_vdn.bench.results import environment
from pyro_vdn.control import Homeostat, Thermostat
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.infer import PACmELBO
from pyro_vdn.models import Forecaster, Regression
from pyro_vdn.poutine import LayerRecord, kl_weight, record
from pyro_vdn.train.problem import Source, load_problem
from pyro_vdn.train.recipes import ForecastingRecipe

PATH = "neurons"
#: Range of the thermostat, in nats per unit and row.
LOW, HIGH = 0.1, 1.5
#: KL in nats below which a unit counts as dead at the start.
DEAD = 1e-2
#: Target of the homeostat.
TARGET = 0.3
#: Steps under the KL weight that kills, and of each training on the table.
KILLING_STEPS, TABLE_STEPS = 200, 500

COLUMNS = {
    "dead_before": "dead at the start",
    "in_range_before": "in range at the start",
    "in_range": "in range at the end",
    "oscillating": "units that leave the range at both ends in the second half",
    "leaving": "that leave it twice",
    "jump": "largest jump of the NLL at an act, nats per row",
}


def bench_regulation(
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    steps: int = 1000,
    on_run: Callable[[dict[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """Revive dead forecasters by a thermostat; bring energies into band by a homeostat.

    The thermostat starts from a forecaster of ETTh1 (32 neurons) that a KL weight of 300 has
    killed. The homeostat starts from a regression on Energy Efficiency (50 neurons) trained without
    control. A unit oscillates that leaves the range at both ends in the second half; one that
    presses against an end may leave it there more than once. A jump is the change of the negative
    log-likelihood of fixed rows at an act.

    Args:
        seeds: Seeds of weights, batches and noise.
        steps: Steps under the thermostat.
        on_run: Called with all results so far after every run.

    Returns:
        ``environment`` and ``runs``, ready for JSON.
    """
    recipe = ForecastingRecipe(validation_every=50, test_every=50)
    series = load_problem(Source("etth1"), recipe).train
    table = train_rows()
    results: dict[str, Any] = {
        "benchmark": "regulation",
        "environment": environment(),
        "range": [LOW, HIGH],
        "target": TARGET,
        "runs": [],
    }
    for seed in seeds:
        for method, metrics in (
            (f"Thermostat, ETTh1, {steps} steps", revive(series, seed, steps)),
            (f"Homeostat, Energy, {TABLE_STEPS} steps", regulate(table, seed, compensated=False)),
            ("the same, compensated", regulate(table, seed, compensated=True)),
        ):
            results["runs"].append({"method": method, "seed": seed, "metrics": metrics})
            on_run(results)
    return results


def revive(rows: Rows, seed: int, steps: int) -> dict[str, float]:
    """Kill a forecaster's units, then put them under a thermostat.

    Args:
        rows: Windows and their continuations.
        seed: Seed of weights and batches.
        steps: Steps under the thermostat.

    Returns:
        Share of dead units before, and of units in range and oscillating after.
    """
    pyro.set_rng_seed(seed)
    model = Forecaster(hidden=64, num_units=32, rank=12, initial_scale=0.6).float()
    loss = PACmELBO(closed_form=True, joint_weight=0.05)
    killing = kl_weight(model, 300.0)
    for _ in train_steps(model, killing, loss, rows, KILLING_STEPS, seed=seed, rate=5e-3, clip=1.0):
        pass
    sample = rows[0][:: max(1, len(rows[0]) // 1500)]
    dead = _seen(model, sample).kl.mean < DEAD
    thermostat = Thermostat(model, low=LOW, high=HIGH, margin=1.5)
    program = thermostat.wrap(model)
    passages: list[Tensor] = []
    trained = train_steps(
        model, program, loss, rows, steps, seed=seed, rate=2e-3, clip=1.0, control=thermostat
    )
    for step in trained:
        if step >= steps // 2 and step % thermostat.every == 0:
            passages.append(_seen(model, sample[::10]).kl.mean)
    kl = _seen(model, sample).kl.mean
    seen = torch.stack(passages)
    below, above = (seen < LOW).any(0), (seen > HIGH).any(0)
    inside = (seen >= LOW) & (seen <= HIGH)
    exits = (inside[:-1] & ~inside[1:]).sum(0)
    return {
        "dead_before": _share(dead),
        "in_range": _share((kl >= LOW) & (kl <= HIGH)),
        "oscillating": float((below & above).sum()),
        "leaving": float((exits >= 2).sum()),
        "least_kl": float(kl.min()),
        "largest_kl": float(kl.max()),
    }


def regulate(rows: Rows, seed: int, *, compensated: bool) -> dict[str, float]:
    """Train without control, then as many steps under a homeostat.

    Args:
        rows: Features and target.
        seed: Seed of weights and batches.
        compensated: Whether the readout compensates.

    Returns:
        Share of units in band before and after, and the largest jump at an act.
    """
    pyro.set_rng_seed(seed)
    model = Regression(rows[0].shape[-1]).float()
    loss = PACmELBO(closed_form=True)
    free = kl_weight(model, 0.0)
    for _ in train_steps(model, free, loss, rows, TABLE_STEPS, seed=seed, rate=5e-3, clip=1.0):
        pass
    compensate = {PATH: model.readout} if compensated else None
    homeostat = Homeostat(model, TARGET, compensate=compensate, warmup=0)
    band = homeostat.bands[PATH]

    def in_band() -> float:
        energy = _seen(model, rows[0]).energy.mean
        return _share((energy >= band.low) & (energy <= band.high))

    before = in_band()
    jumps = []
    guide = NeuronGuide(free)
    for _ in train_steps(
        model, free, loss, rows, TABLE_STEPS, seed=seed + 1000, rate=2e-3, clip=1.0
    ):
        # Observing and acting by hand, so that the loss can be read in between.
        if homeostat.due:
            homeostat.observe({PATH: _seen(model, rows[0])})
        acts = (homeostat.step + 1) % homeostat.every == 0
        earlier = _nll(loss, free, guide, rows) if acts else 0.0
        homeostat.act()
        if acts:
            jumps.append(abs(_nll(loss, free, guide, rows) - earlier))
    return {"in_range_before": before, "in_range": in_band(), "jump": max(jumps)}


def _seen(model: Program, x: Tensor) -> LayerRecord:
    """Return what the layer does on rows."""
    with torch.no_grad(), record() as seen:
        NeuronGuide(model)(x)
    layer: LayerRecord = seen[PATH]
    return layer


def _nll(loss: PACmELBO, program: Program, guide: Program, rows: Rows) -> float:
    """Return the negative log-likelihood per row, in closed form."""
    with torch.no_grad():
        terms = loss.terms(program, guide, *rows)
    return -float(terms.log_likelihood["y"].mean())


def _share(units: Tensor) -> float:
    return float(units.double().mean())
