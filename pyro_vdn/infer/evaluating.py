"""Evaluation mode, and noise of its own, for the length of a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro.poutine
import torch
from torch import nn


@contextmanager
def evaluating(*programs: Callable[..., Any]) -> Iterator[None]:
    """Put programs into evaluation mode, and give every part its own mode back.

    Args:
        *programs: Pyro programs, bare or wrapped in effects; those that are no modules have no
            mode.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))
        >>> with evaluating(model):
        ...     model[1].training
        False
        >>> model[1].training
        True
    """
    bare = [pyro.poutine.unwrap(program) for program in programs]
    modules = [module for module in bare if isinstance(module, nn.Module)]
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def own_noise(seed: int) -> Iterator[None]:
    """Seed torch for the length of a block, and leave the caller's random state untouched.

    Args:
        seed: The seed, on all devices.

    Example:
        >>> with own_noise(3):
        ...     first = torch.randn(2)
        >>> with own_noise(3):
        ...     torch.equal(torch.randn(2), first)
        True
    """
    with kept_noise():
        torch.manual_seed(seed)
        yield


@contextmanager
def kept_noise() -> Iterator[None]:
    """Leave the caller's random state untouched for the length of a block.

    GPUs that nothing has been asked of yet have no state to keep, and are not started for it.

    Example:
        >>> state = torch.random.get_rng_state()
        >>> with kept_noise():
        ...     _ = torch.randn(2)
        >>> torch.equal(torch.random.get_rng_state(), state)
        True
    """
    known = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if known else ()
    with torch.random.fork_rng(devices=devices):
        yield
