from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from pyro_vdn.control import Controller
from pyro_vdn.poutine import LayerRecord
from pyro_vdn.testing import NeuronStack, randomise

Seen = dict[str, LayerRecord]


@pytest.fixture
def stack() -> Callable[..., NeuronStack]:
    """Make a stack of layers `layers.0`, `layers.1`, ..., three units each, at no special place."""

    def make(**kwargs: object) -> NeuronStack:
        torch.manual_seed(11)
        model = NeuronStack(**kwargs)  # type: ignore[arg-type]
        randomise(model)
        return model

    return make


@pytest.fixture
def see() -> Callable[..., Seen]:
    """Make by hand what `record` would have seen of one layer."""

    def make(path: str = "layers.0", **quantities: Sequence[float]) -> Seen:
        layer = LayerRecord()
        for name in ("energy", "kl", "scale", "prior_variance"):
            values = quantities.get(name, (1.0, 1.0, 1.0))
            getattr(layer, name).update(torch.tensor([values]))
        return {path: layer}

    return make


@pytest.fixture
def drive() -> Callable[..., None]:
    """Let a controller live through steps that all look the same."""

    def run(controller: Controller, seen: Seen, steps: int = 1) -> None:
        for _ in range(steps):
            if controller.due:
                controller.observe(seen)
            controller.act()

    return run
