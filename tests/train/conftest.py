from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro_vdn.models import Regression
from torch import Tensor

from pyro_vdn.train import FitOptions

Pair = tuple[Tensor, Tensor]


@pytest.fixture
def data() -> tuple[Pair, Pair]:
    x = torch.randn(120, 3)
    y = x[:, :1] + 0.1 * torch.randn(120, 1)
    return (x[:80], y[:80]), (x[80:], y[80:])


@pytest.fixture
def options() -> Callable[..., FitOptions]:
    def make(**changes: Any) -> FitOptions:
        small = {"max_steps": 20, "batch_size": 16, "evaluate_every": 5, "warmup_steps": 2}
        return FitOptions(**{**small, "accelerator": "cpu", **changes})

    return make


@pytest.fixture
def make_model() -> Callable[[], Regression]:
    def make() -> Regression:
        pyro.set_rng_seed(11)
        return Regression(3, num_units=5)

    return make
