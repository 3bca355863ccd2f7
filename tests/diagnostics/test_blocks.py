from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from pyro_vdn.diagnostics._blocks import block_numbers
from pyro_vdn.errors import InputError


@pytest.mark.parametrize("labels", [["x", "a", "x", "m"], torch.tensor([9, -2, 9, 4])])
def test_labels_become_numbers_in_order(labels: object) -> None:
    assert block_numbers(labels, 4).tolist() == [2, 0, 2, 1]


def test_without_labels_each_is_a_block() -> None:
    assert block_numbers(None, 3, least=9).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("labels", "least", "text"),
    [
        ([1, 2], 1, "blocks: expected shape (3,), one for each observation, got shape (2,)"),
        ([[1], [2], [3]], 1, "one for each observation, got shape (3, 1)"),
        ([1, 1, 1], 2, "blocks: expected at least 2 blocks, better 30 or more, got one label"),
        ([1, 2, 1], 3, "blocks: expected at least 3 blocks, better 30 or more, got 2"),
    ],
)
def test_bad_labels_are_refused(labels: object, least: int, text: str) -> None:
    with pytest.raises(InputError, match=re.escape(text)):
        block_numbers(np.array(labels), 3, least=least)
