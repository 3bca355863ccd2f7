from __future__ import annotations

import pytest
import torch

from pyro_vdn.datasets.checks import require_finite, require_varying, unknown_name
from pyro_vdn.errors import InputError


def test_unknown_name_without_a_close_one():
    assert str(unknown_name("unit", "zzzz", ["a", "b"])).endswith("Try: one of the names listed")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_first_offending_place_is_named(value):
    values = torch.zeros(4, 3)
    values[2, 1] = values[3, 0] = value
    with pytest.raises(InputError, match=rf"got {value} at row 2, column 'b'"):
        require_finite("x", values, "abc")
    require_finite("x", torch.zeros(0, 3), "abc")


def test_constant_column_is_named():
    values = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
    with pytest.raises(InputError, match=r"values that vary, got column 'b' with 2.0 in all 2"):
        require_varying("y", values, "ab")
