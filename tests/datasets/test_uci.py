from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_vdn.datasets import DATASETS, UCI_NAMES, load_uci, uci_split, uci_split_rows
from pyro_vdn.errors import InputError


def published(name, file):
    folder = os.environ.get("PYRO_VDN_DATA")
    path = Path(folder or "") / Path(DATASETS[name].file).parent / file
    if not folder or not path.is_file():
        pytest.skip("PYRO_VDN_DATA names no folder with the published index files")
    return np.loadtxt(path, dtype=float, ndmin=1).astype(int).tolist()


@pytest.mark.parametrize("name", UCI_NAMES)
@pytest.mark.parametrize("split", [0, 1, 9])
def test_splits_equal_the_published_index_files(name, split):
    train = published(name, f"index_train_{split}.txt")
    test = published(name, f"index_test_{split}.txt")
    rows = uci_split_rows(len(train) + len(test), split)
    assert rows.train.tolist() == train
    assert rows.test.tolist() == test


@pytest.mark.parametrize("name", UCI_NAMES)
def test_columns_equal_the_published_index_files(name):
    features = published(name, "index_features.txt")
    target = published(name, "index_target.txt")
    table = load_uci(name, accept=DATASETS[name].consent)
    assert [*features, *target] == list(range(len(table.feature_names) + 1))
    size = f"{len(table):,} x {table.features.shape[1] + 1}"
    assert size == DATASETS[name].size


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_energy_is_the_published_table(dtype):
    table = load_uci("energy", dtype=dtype)
    assert table.features.dtype == table.target.dtype == dtype
    expected = torch.tensor([0.98, 514.5, 294, 110.25, 7, 2, 0, 0], dtype=dtype)
    torch.testing.assert_close(table.features[0], expected)
    assert table.target[0].item() == pytest.approx(15.55)


def test_unknown_table():
    with pytest.raises(InputError, match=r"UCI data set: .*got 'concret'. Try: 'concrete'"):
        load_uci("concret")


@pytest.mark.parametrize("validation", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("num_rows", [7, 11, 768])
def test_parts_are_disjoint_and_complete(num_rows, validation):
    parts = uci_split_rows(num_rows, 2, validation=validation)
    if validation == 0:
        assert len(parts.validation) == 0
    assert sorted(torch.cat(parts).tolist()) == list(range(num_rows))


def test_validation_takes_nothing_from_the_test_rows():
    without, with_ = uci_split_rows(768, 4), uci_split_rows(768, 4, validation=0.2)
    assert torch.equal(without.test, with_.test)
    assert torch.equal(without.train, torch.cat([with_.train, with_.validation]))


def test_splits_differ():
    tests = {tuple(uci_split_rows(100, split).test.tolist()) for split in range(20)}
    assert len(tests) == 20


def test_split_takes_the_rows_of_the_table():
    table = load_uci("energy")
    split = uci_split(table, 7, validation=0.1)
    rows = uci_split_rows(len(table), 7, validation=0.1)
    for part, chosen in zip((split.train, split.validation, split.test), rows, strict=True):
        assert torch.equal(part.features, table.features[chosen])
        assert torch.equal(part.target, table.target[chosen])


@pytest.mark.parametrize("split", [-1, 20])
def test_no_such_split(split):
    with pytest.raises(InputError, match=rf"split: expected a number from 0 to 19, got {split}"):
        uci_split_rows(100, split)


@pytest.mark.parametrize("validation", [-0.1, 1.0, float("nan")])
def test_no_such_fraction(validation):
    with pytest.raises(InputError, match=r"validation: expected a fraction .* in \[0, 1\)"):
        uci_split_rows(100, 0, validation=validation)


@pytest.mark.parametrize(("num_rows", "validation"), [(0, 0), (1, 0), (4, 0), (5, 0.1), (5, 0.95)])
def test_too_few_rows(num_rows, validation):
    with pytest.raises(InputError, match=rf"enough rows for every part, got {num_rows} rows"):
        uci_split_rows(num_rows, 0, validation=validation)
