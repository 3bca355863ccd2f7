from __future__ import annotations

import pytest
import torch

from pyro_vdn.datasets import Split, Standardizer, Table, load_uci, standardize, uci_split
from pyro_vdn.errors import InputError


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_there_and_back(dtype):
    values = 100 + 3 * torch.randn(50, 4, dtype=dtype, generator=torch.Generator().manual_seed(0))
    standardizer = Standardizer.fit(values)
    scaled = standardizer.transform(values)
    assert scaled.dtype == dtype
    torch.testing.assert_close(scaled.mean(0), torch.zeros(4, dtype=dtype), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std(0, correction=0), torch.ones(4, dtype=dtype))
    torch.testing.assert_close(standardizer.inverse(scaled), values)


@pytest.mark.parametrize("value", [0.1, 1e6 + 0.3])
def test_constant_column_is_only_shifted(value):
    values = torch.tensor([[value, 1.0], [value, 2.0], [value, 4.0]])
    standardizer = Standardizer.fit(values)
    assert standardizer.scale[0] == 1
    assert standardizer.transform(values)[:, 0].tolist() == [0, 0, 0]


def test_constant_column_is_refused_where_asked():
    with pytest.raises(InputError, match=r"expected values that vary, got column '0' with 2.0"):
        Standardizer.fit(torch.full((3, 1), 2.0), allow_constant=False)


@pytest.mark.parametrize("shape", [(0, 3), (3,), (2, 3, 4)])
def test_rows_are_needed(shape):
    with pytest.raises(InputError, match="at least one row in a tensor"):
        Standardizer.fit(torch.zeros(shape))


def test_infinite_values_are_refused():
    with pytest.raises(InputError, match="inf at row 1, column '0'"):
        Standardizer.fit(torch.tensor([[0.0], [torch.inf]]))


@pytest.mark.parametrize("method", ["transform", "inverse"])
def test_other_columns_are_refused(method):
    standardizer = Standardizer.fit(torch.randn(5, 1))
    with pytest.raises(InputError, match="1 columns, as fitted, got shape"):
        getattr(standardizer, method)(torch.zeros(5, 8))


def test_only_training_rows_count():
    split = uci_split(load_uci("energy"), 0, validation=0.1)
    far = split.test.replace(split.test.features + 1e3, split.test.target - 1e3)
    one = standardize(split)
    other = standardize(Split(split.train, None, far))
    assert torch.equal(one.train.features, other.train.features)
    assert torch.equal(one.target.scale, other.target.scale)
    assert other.validation is None
    assert one.validation is not None
    for table, own in ((one.validation, split.validation), (one.test, split.test)):
        torch.testing.assert_close(one.target.inverse(table.target), own.target)
        torch.testing.assert_close(one.features.inverse(table.features), own.features)


def test_constant_target_is_refused():
    table = Table(torch.randn(6, 2), torch.ones(6, 1), ("a", "b"), "flat", "y")
    with pytest.raises(InputError, match=r"target of 'flat': expected values that vary.*'y'"):
        standardize(uci_split(table, 0))
