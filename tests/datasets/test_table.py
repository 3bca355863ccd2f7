from __future__ import annotations

import pytest
import torch

from pyro_vdn.datasets import Table
from pyro_vdn.errors import InputError


@pytest.mark.parametrize(
    ("features", "target"), [((5, 2), (5,)), ((5, 3), (5, 1)), ((5, 2), (4, 1)), ((5,), (5, 1))]
)
def test_shapes_must_agree(features, target):
    with pytest.raises(InputError, match=r"table 't': expected features \(rows, 2\) and target"):
        Table(torch.zeros(features), torch.zeros(target), ("a", "b"), "t")


@pytest.mark.parametrize(("part", "column"), [("features", "b"), ("target", "y")])
def test_values_must_be_finite(part, column):
    parts = {"features": torch.zeros(3, 2), "target": torch.zeros(3, 1)}
    parts[part][2, -1] = torch.nan
    with pytest.raises(InputError, match=rf"{part} of 't': .*nan at row 2, column '{column}'"):
        Table(**parts, feature_names=("a", "b"), name="t", target_name="y")


@pytest.mark.parametrize("rows", [[], [2], [2, 0, 2]])
def test_select_keeps_order_and_names(rows):
    table = Table(torch.arange(6.0).view(3, 2), torch.arange(3.0)[:, None], ("a", "b"), "t", "y")
    chosen = table.select(torch.tensor(rows, dtype=torch.long))
    assert chosen.target.flatten().tolist() == rows
    assert torch.equal(chosen.features[:, 0], 2 * chosen.target[:, 0])
    assert (chosen.feature_names, chosen.name, chosen.target_name) == (("a", "b"), "t", "y")
