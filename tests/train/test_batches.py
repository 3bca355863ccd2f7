from __future__ import annotations

import pytest
import torch

from pyro_vdn.datasets import Windows
from pyro_vdn.train.batches import StepBatches, as_pair
from pyro_vdn.train.task import RowBatches


def batches(rows: int, size: int, **place: int) -> StepBatches:
    data = torch.zeros(rows, 1), torch.zeros(rows, 1)
    return StepBatches(data, size, seed=place.pop("seed", 0), steps=lambda: range(0), **place)


@pytest.mark.parametrize(("rows", "size"), [(12, 4), (13, 4), (4, 4), (5, 5)])
def test_every_pass_holds_each_row_at_most_once(rows: int, size: int) -> None:
    source = batches(rows, size)
    per_pass = rows // size
    for number in range(3):
        seen = torch.cat([source.rows(number * per_pass + i) for i in range(per_pass)])
        assert len(seen.unique()) == len(seen) == per_pass * size


def test_the_batch_of_a_step_does_not_depend_on_the_way_there() -> None:
    forward, direct = batches(20, 4), batches(20, 4)
    for step in range(17):
        last = forward.rows(step)
    assert torch.equal(last, direct.rows(16))
    assert not torch.equal(direct.rows(16), batches(20, 4, seed=1).rows(16))


def test_processes_share_a_pass_without_overlap() -> None:
    parts = [batches(16, 4, rank=rank, world_size=2) for rank in range(2)]
    rows = torch.cat([part.rows(step) for step in range(2) for part in parts])
    assert sorted(rows.tolist()) == list(range(16))


def test_a_batch_larger_than_the_data_takes_all_of_them() -> None:
    assert sorted(batches(3, 8).rows(0).tolist()) == [0, 1, 2]


def test_data_may_hand_out_their_tensors() -> None:
    windows = Windows(torch.randn(20, 2), ("a", "b"), input_length=5, horizon=3)
    x, y = as_pair("train", windows)
    assert x.shape == (26, 5)
    assert y.shape == (26, 3)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_validation_rows_are_seen_once_without_padding(world_size: int) -> None:
    data = torch.arange(10.0)[:, None], torch.arange(10.0)[:, None]
    parts = [RowBatches(data, 3, rank, world_size) for rank in range(world_size)]
    rows = torch.cat([x for part in parts for x, _ in part])
    assert sorted(rows.flatten().tolist()) == list(range(10))
    assert [len(part) for part in parts] == [len(list(part)) for part in parts]
