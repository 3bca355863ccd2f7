from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from pyro_vdn.diagnostics import UnitStatistics


@pytest.fixture
def double() -> Iterator[None]:
    """Run models in float64; the other tests here choose the dtype of each array."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def table() -> Callable[..., UnitStatistics]:
    """Make statistics by hand: living units, except for what is given."""

    def make(**given: Any) -> UnitStatistics:
        units = max(
            [len(v) for v in given.values() if isinstance(v, (list, np.ndarray))], default=1
        )
        living = {"kl": 0.5, "mu2": 0.4, "scale": 0.6, "information": 0.4, "loc_variance": 0.4}
        living |= {"scale_variation": 0.1, "prior_scale": 1.0, "contraction": 0.64}
        living |= dict.fromkeys(("kl_error", "mu2_error", "scale_error"), 0.01)
        given.setdefault("mu2_about_prior", given.get("mu2", 0.4))
        rows, given = given.pop("rows", 100), {**living, **given}
        arrays = {name: np.broadcast_to(np.array(v, float), units) for name, v in given.items()}
        return UnitStatistics(**arrays, active=arrays["kl"] > 1e-4, rows=rows)  # type: ignore[arg-type]

    return make
