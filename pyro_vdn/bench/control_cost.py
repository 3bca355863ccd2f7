"""Benchmark: what controllers add to a training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vdn.bench.results import environment
from pyro_vdn.bench.speed import SIZES, SpeedModel
from pyro_vdn.bench.timing import Step, median_seconds
from pyro_vdn.control import (
    BandCalibration,
    Controller,
    EnergyBand,
    FreeBits,
    Homeostat,
    KLSchedule,
    Projection,
    ScaleGuard,
    Thermostat,
    compose,
    linear_warmup,
    watch,
)
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.infer import LocalELBO, PACmELBO
from pyro_vdn.infer.loss import SinglePassLoss
from pyro_vdn.models import Forecaster, Regression

#: Steps that are timed together. Every controller acts once in them, some more often than they
#: would in training, so that no act falls outside of most blocks.
BLOCK = 10
ALONE: dict[str, Callable[[nn.Module], Controller]] = {
    "Thermostat": Thermostat,
    "EnergyBand": EnergyBand,
    "FreeBits": FreeBits,
    "KLSchedule": lambda model: KLSchedule(model, partial(linear_warmup, steps=100)),
    "Homeostat": Homeostat,
    "Projection": lambda model: Projection(model, BLOCK),
    "ScaleGuard": ScaleGuard,
}
TOGETHER = "all together"


@dataclass(frozen=True)
class Cost:
    """What control adds to a training step.

    Args:
        step: The training step.
        control: The controllers.
        milliseconds: Median time of a step without control.
        relative: Time with control relative to that, less one.

    Example:
        >>> Cost("forecaster", "Thermostat", 20.0, 0.01).relative
        0.01
    """

    step: str
    control: str
    milliseconds: float
    relative: float


def everything(model: nn.Module) -> Controller:
    """Return all controllers that go together, a homeostat rather than a projection among them.

    Args:
        model: The bare model.
    """
    band = EnergyBand(model)
    return compose(
        KLSchedule(model, partial(linear_warmup, steps=100)),
        Thermostat(model),
        band,
        BandCalibration(model, band, every=BLOCK),
        FreeBits(model, 0.01),
        Homeostat(model, band),
        ScaleGuard(model),
    )


def bench_control_cost(*, repeats: int = 60) -> dict[str, Any]:
    """Time training steps (loss, gradients, Adam) with and without control, on one thread.

    Blocks of ten steps alternate; medians of blocks are compared, so that observing and acting,
    which happen every tenth step, count in full. Without control, the model has no effect at all.

    Args:
        repeats: Blocks of each.

    Returns:
        ``environment`` and ``results``, ready for JSON.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        costs = [
            cost for name, make in _training_steps().items() for cost in _costs(name, make, repeats)
        ]
    finally:
        torch.set_num_threads(threads)
    return {
        "benchmark": "control_cost",
        "environment": environment() | {"threads": 1},
        "block": BLOCK,
        "repeats": repeats,
        "results": [asdict(cost) for cost in costs],
    }


Maker = Callable[[Callable[[nn.Module], Controller] | None], Step]


def _training_steps() -> Mapping[str, Maker]:
    closed_form = PACmELBO(closed_form=True, joint_weight=0.05, max_plate_nesting=2)
    marginal = PACmELBO(closed_form=True, joint_weight=0.0, max_plate_nesting=2)
    return {
        "Forecaster, 336 → 96, 128 windows": partial(
            _block, Forecaster, closed_form, _rows(128, 336), _rows(128, 96)
        ),
        "1,024 neurons, 336 → 96, 256 rows": partial(
            _block,
            SpeedModel,
            LocalELBO(max_plate_nesting=2),
            _rows(256, SIZES[0]),
            _rows(256, SIZES[-1]),
        ),
        "Regression, 50 neurons, 32 rows": partial(
            _block, partial(Regression, 8), marginal, _rows(32, 8), _rows(32, 1)
        ),
    }


def _rows(*size: int) -> Tensor:
    return torch.randn(*size, dtype=torch.float32)


def _costs(name: str, make: Maker, repeats: int) -> list[Cost]:
    kinds = {TOGETHER: everything, **ALONE}
    costs = []
    for control, build in kinds.items():
        seconds = median_seconds({"off": make(None), "on": make(build)}, repeats=repeats, warmup=2)
        milliseconds = 1e3 * seconds["off"] / BLOCK
        costs.append(Cost(name, control, milliseconds, seconds["on"] / seconds["off"] - 1))
    return costs


def _block(
    make: Callable[[], nn.Module],
    loss: SinglePassLoss,
    x: Tensor,
    y: Tensor,
    build: Callable[[nn.Module], Controller] | None,
) -> Step:
    torch.manual_seed(0)
    model = make().float()
    controller = None if build is None else build(model)
    program = model if controller is None else controller.wrap(model)
    guide = NeuronGuide(program)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        loss.differentiable_loss(program, guide, x, y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def block() -> None:
        for _ in range(BLOCK):
            if controller is None:
                step()
                continue
            with watch(controller):
                step()

    return block
