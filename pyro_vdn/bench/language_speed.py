"""Benchmark: what distributional units cost a training step of a small GPT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyro_vdn.bench.language_training import BATCH, make_optimizer
from pyro_vdn.bench.timing import median_seconds
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.infer import LocalELBO
from pyro_vdn.models import VariationalGPT
from pyro_vdn.poutine import deterministic, dropout, share_noise

_VOCABULARY, _BLOCK = 65, 64

Step = Callable[[], object]


@dataclass(frozen=True)
class TimedStep:
    """A kind of training step.

    Args:
        name: What tables call it.
        particles: Number of particles.
        effects: Makes the effects in force, the outermost first.
        model: Arguments of `VariationalGPT`.
    """

    name: str
    particles: int = 1
    effects: Callable[[], Sequence[Messenger]] = tuple
    model: dict[str, Any] = field(default_factory=dict)


TWIN = TimedStep("deterministic effect", effects=lambda: [deterministic()])
STEPS = (
    TimedStep("neurons, S = 1"),
    TimedStep("neurons, S = 1, scale relative to the location", model={"scale": "relative"}),
    TimedStep("neurons, S = 1, shared noise", effects=lambda: [share_noise()]),
    TimedStep("MC dropout", effects=lambda: [dropout(p=0.2)]),
    TimedStep("neurons in the last block, S = 4", 4, model={"neuron_layers": (3,)}),
    TimedStep("neurons in all blocks, S = 4", 4),
    TimedStep("neurons in all blocks, S = 4, shared noise", 4, effects=lambda: [share_noise()]),
)
PLAIN = "the twin without Pyro"


def bench_language_speed(*, repeats: int = 60) -> list[dict[str, Any]]:
    """Time training steps on one thread, each beside the step of the deterministic effect.

    A step is loss, gradients, clipping and AdamW on a batch of 12 blocks of 64 characters, with
    learned scales, learned priors and their KL. Every kind alternates with the step of the
    deterministic effect on the same code, in pairs of one run.

    Args:
        repeats: Rounds of which medians are taken.

    Returns:
        By kind: name, median milliseconds, those of the step beside it, and their ratio.
    """
    torch.manual_seed(0)
    tokens = torch.randint(_VOCABULARY, (BATCH, _BLOCK + 1))
    x, y = tokens[:, :-1], tokens[:, 1:]
    steps = {kind.name: _step(kind, x, y) for kind in STEPS} | {PLAIN: _plain_step(x, y)}
    results = []
    for name, step in steps.items():
        seconds = median_seconds(
            {TWIN.name: _step(TWIN, x, y), name: step}, repeats=repeats, warmup=3
        )
        own, twin = 1000 * seconds[name], 1000 * seconds[TWIN.name]
        results.append(
            {"name": name, "milliseconds": own, "twin_milliseconds": twin, "ratio": own / twin}
        )
    return results


def _step(kind: TimedStep, x: Tensor, y: Tensor) -> Step:
    model = VariationalGPT(_VOCABULARY, block_size=_BLOCK, **kind.model).float()
    guide, several = NeuronGuide(model), kind.particles > 1
    loss = LocalELBO(kind.particles, vectorize_particles=several, max_plate_nesting=3)

    def value() -> Tensor:
        with ExitStack() as stack:
            for effect in kind.effects():
                stack.enter_context(effect)
            total = loss.differentiable_loss(model, guide, x, y)
        return torch.as_tensor(total) / y.numel()

    return _updating(model, value)


def _plain_step(x: Tensor, y: Tensor) -> Step:
    """Return a step of the same network called as a plain module, without a Pyro program."""
    model = VariationalGPT(_VOCABULARY, block_size=_BLOCK, neuron_layers=()).float()

    def value() -> Tensor:
        hidden = model.embed(x) + model.embed_position.weight[: x.shape[-1]]
        for block in model.blocks:
            hidden = block(hidden)
        logits = F.linear(model.norm(hidden), model.embed.weight)
        return F.cross_entropy(logits.flatten(0, 1), y.flatten())

    return _updating(model, value)


def _updating(model: nn.Module, value: Callable[[], Tensor]) -> Step:
    optimizer = make_optimizer(list(model.parameters()))

    def step() -> None:
        loss = value()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step
