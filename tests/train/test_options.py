from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from pyro_vdn.errors import InputError
from pyro_vdn.train import FitOptions


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_steps", 0),
        ("batch_size", 0),
        ("evaluate_every", 0),
        ("devices", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("weight_decay", -1.0),
        ("warmup_steps", -1),
        ("seed", -1),
        ("clip", 0.0),
        ("patience", 0),
        ("betas", (0.9, 1.0)),
    ],
)
def test_numbers_outside_their_range_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{name}: expected .* Try: {name}="):
        FitOptions(**{name: value})


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    options = FitOptions(max_steps=100, warmup_steps=10, learning_rate=1.0)
    rates = [options.rate(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == max(rates[8:12])
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[100] == 0.0
    assert FitOptions(warmup_steps=0).rate(0) == FitOptions().learning_rate
