"""The hand-written training loop of the benchmarks that watch training closely."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vdn.control import Controller, watch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.infer.loss import SinglePassLoss

BATCH = 64

Program = Callable[..., Any]
Rows = tuple[Tensor, Tensor]


def train_steps(
    model: nn.Module,
    program: Program,
    loss: SinglePassLoss,
    rows: Rows,
    steps: int,
    *,
    seed: int,
    rate: float,
    clip: float | None = None,
    control: Controller | None = None,
) -> Iterator[int]:
    """Train with Adam, yielding after every step.

    Args:
        model: The bare model.
        program: The same in its effects.
        loss: The objective.
        rows: Inputs and targets.
        steps: Number of steps.
        seed: Seed of the batches.
        rate: Learning rate.
        clip: Largest norm of the gradient; None for no clipping.
        control: What watches, if anything does.

    Yields:
        The number of the step, from 0.
    """
    x, y = rows
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    guide = NeuronGuide(program)
    batches = torch.Generator().manual_seed(seed)
    for step in range(steps):
        chosen = torch.randint(len(x), (BATCH,), generator=batches)
        with nullcontext() if control is None else watch(control):
            optimizer.zero_grad()
            value = loss.differentiable_loss(program, guide, x[chosen], y[chosen])
            (value / y[chosen].numel()).backward()  # type: ignore[no-untyped-call]
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
        yield step
