"""Training of the methods of the language benchmark, with weights kept in a folder."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pyro_vdn.bench.language_methods import LanguageMethod
from pyro_vdn.control import match_priors
from pyro_vdn.errors import InputError
from pyro_vdn.files import replacing
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.infer import LocalELBO
from pyro_vdn.models import VariationalGPT
from pyro_vdn.poutine import record

STEPS = 2000
BATCH = 12
_RATE, _LEAST, _WARMUP = 1e-3, 0.1, 100
_MATCHED = 32


class Trained(NamedTuple):
    """A network after training.

    Args:
        model: The bare network, in evaluation mode.
        seconds: Processor time of its training.
        parameters: Number of its parameters.
    """

    model: VariationalGPT
    seconds: float
    parameters: int


def train(
    method: LanguageMethod, tokens: Tensor, vocab_size: int, seed: int, *, steps: int = STEPS
) -> Trained:
    """Train a method on a text, with the optimiser of the small CPU setting of nanoGPT.

    AdamW at 1e-3 with moments (0.9, 0.99), decay 0.1 on matrices, 100 steps of warm-up, a cosine
    down to a tenth, gradients clipped at 1. Batches are blocks at random places, the same for all
    methods of a seed.

    Args:
        method: The method.
        tokens: The training text, `(time,)`.
        vocab_size: Number of tokens.
        seed: Seed of weights, batches and noise.
        steps: Common number of steps.

    Returns:
        The network and what it took.
    """
    pyro.set_rng_seed(seed)
    model = method.build(vocab_size)
    learned = method.learned(model)
    optimizer = make_optimizer(learned)
    guide, loss = NeuronGuide(model), LocalELBO()
    places = torch.Generator().manual_seed(seed)
    total = round(steps * method.steps)
    start = time.process_time()
    for step in range(total):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, total)
        x, y = _batch(tokens, model.block_size, places)
        with method.at(step / total):
            value = loss.differentiable_loss(model, guide, x, y) / y.numel()
        model.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
    seconds = time.process_time() - start
    _match_priors(method, model, tokens, places)
    return Trained(model.eval(), seconds, sum(value.numel() for value in model.parameters()))


def _match_priors(
    method: LanguageMethod, model: VariationalGPT, tokens: Tensor, places: torch.Generator
) -> None:
    """Give learned priors the moments of what the neurons do on some of the training text."""
    guide = NeuronGuide(model)
    with torch.no_grad(), record() as seen, method.at(1.0):
        for _ in range(_MATCHED):
            guide(_batch(tokens, model.block_size, places)[0])
    match_priors(model, seen)


def rate(step: int, total: int) -> float:
    """Return the learning rate of a step.

    Args:
        step: The step, from 0.
        total: Number of steps.

    Example:
        >>> [round(rate(step, 2000), 6) for step in (0, 99, 1050, 1999)]
        [1e-05, 0.001, 0.00055, 0.0001]
    """
    if step < _WARMUP:
        return _RATE * (step + 1) / _WARMUP
    progress = (step - _WARMUP) / max(total - _WARMUP, 1)
    return _RATE * (_LEAST + (1 - _LEAST) * 0.5 * (1 + math.cos(math.pi * progress)))


def make_optimizer(learned: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """Return AdamW that decays matrices alone: norms, scales and priors keep their size."""
    matrices = [value for value in learned if value.dim() >= 2]
    others = [value for value in learned if value.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=_RATE, betas=(0.9, 0.99), fused=True)


def _batch(tokens: Tensor, block_size: int, places: torch.Generator) -> tuple[Tensor, Tensor]:
    starts = torch.randint(len(tokens) - block_size, (BATCH, 1), generator=places)
    blocks = tokens[starts + torch.arange(block_size + 1)]
    return blocks[:, :-1], blocks[:, 1:]


def trained(
    method: LanguageMethod,
    name: str,
    tokens: Tensor,
    vocab_size: int,
    seed: int,
    folder: Path,
    *,
    steps: int = STEPS,
) -> Trained:
    """Return a trained method, from a folder where it was trained before.

    Args:
        method: The method.
        name: Name of method and setting, for its files.
        tokens: The training text, `(time,)`.
        vocab_size: Number of tokens.
        seed: Seed of weights, batches and noise.
        folder: Where weights are kept.
        steps: Common number of steps.

    Returns:
        The network and what it took.

    Raises:
        InputError: For weights in the folder that were made otherwise.
    """
    weights, facts = folder / f"{name}-{seed}.safetensors", folder / f"{name}-{seed}.json"
    made_of = fingerprint(method, tokens, steps)
    if facts.exists():
        known = json.loads(facts.read_text())
        _check_same(facts, known["made_of"], made_of)
        model = method.build(vocab_size)
        model.load_state_dict(load_file(weights))
        return Trained(model.eval(), known["seconds"], known["parameters"])
    result = train(method, tokens, vocab_size, seed, steps=steps)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(weights) as place:
        save_file(result.model.state_dict(), place)
    cost = {"seconds": result.seconds, "parameters": result.parameters}
    with replacing(facts) as place:
        place.write_text(json.dumps({"made_of": made_of, **cost}))
    return result


def fingerprint(method: LanguageMethod, tokens: Tensor, steps: int) -> dict[str, Any]:
    """Return what weights were made of, ready for JSON.

    Args:
        method: The method.
        tokens: The training text, `(time,)`.
        steps: Common number of steps.
    """
    text = hashlib.sha256(tokens.numpy().tobytes()).hexdigest()
    made_of: dict[str, Any] = json.loads(json.dumps(asdict(method)))
    return {**made_of, "common_steps": steps, "text": text}


def _check_same(facts: Path, known: dict[str, Any], wanted: dict[str, Any]) -> None:
    differs = [name for name in wanted if known.get(name) != wanted[name]]
    if differs:
        raise InputError(
            str(facts),
            expected=f"weights with {differs[0]} = {wanted[differs[0]]!r}",
            got=repr(known.get(differs[0])),
            hint="--models with a new folder",
        )
