from __future__ import annotations

import pytest
import torch

from pyro_vdn.datasets import ETT_HOURLY, Series, load_series, series
from pyro_vdn.errors import InputError


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_etth1_is_the_published_series(dtype):
    etth1 = load_series("etth1", dtype=dtype)
    assert etth1.names == ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
    assert etth1.values.dtype == dtype
    assert (len(etth1), etth1.borders) == (17420, ETT_HOURLY)
    ends = etth1.values[[0, -1]][:, [0, -1]].double()
    expected = [[5.827000141143799, 30.5310001373291], [10.11400032043457, 9.56700038909912]]
    torch.testing.assert_close(ends, torch.tensor(expected, dtype=torch.float64))


def test_exchange_has_no_header(monkeypatch):
    monkeypatch.setattr(series, "read_dataset", lambda name: b"0.5,0.25\n0.75,1.0\n0.5,2.0\n")
    exchange = load_series("exchange")
    assert exchange.values.tolist() == [[0.5, 0.25], [0.75, 1.0], [0.5, 2.0]]
    assert (exchange.names, exchange.step, exchange.borders) == (("rate0", "rate1"), "1 day", None)


def test_etth2_is_read_like_etth1(monkeypatch):
    text = b"date,A,OT\n2016-07-01 00:00:00,1.5,2\n2016-07-01 01:00:00,3,4\n"
    monkeypatch.setattr(series, "read_dataset", lambda name: text)
    etth2 = load_series("etth2")
    assert (etth2.values.tolist(), etth2.names) == ([[1.5, 2], [3, 4]], ("A", "OT"))


def test_co2_is_the_published_series():
    co2 = load_series("co2")
    missing = co2.values[:, 0].isnan()
    assert (co2.names, co2.step, len(co2)) == (("co2",), "1 week", 2284)
    assert missing.nonzero().flatten()[:4].tolist() == [6, 9, 10, 11]
    assert int(missing.sum()) == 59
    torch.testing.assert_close(
        co2.values[[0, 5, 7, -1], 0],
        torch.tensor([316.1, 316.9, 317.5, 371.5], dtype=torch.float32),
    )


def test_unknown_series():
    with pytest.raises(InputError, match=r"series: expected one of .*got 'energy'"):
        load_series("energy")


@pytest.mark.parametrize("shape", [(5,), (5, 3)])
def test_shapes_must_agree(shape):
    with pytest.raises(InputError, match=r"series 's': expected values \(time, 2\)"):
        Series(torch.zeros(shape), ("a", "b"), "1 hour", "s")


def test_values_must_be_finite():
    values = torch.zeros(5, 2)
    values[3, 1] = torch.inf
    with pytest.raises(InputError, match="inf at row 3, column 'b'"):
        Series(values, ("a", "b"), "1 hour", "s")


def test_gaps_are_nan_and_must_be_declared():
    values = torch.zeros(5, 2)
    values[3, 1] = torch.nan
    assert len(Series(values, ("a", "b"), "1 hour", "s", has_gaps=True)) == 5
    with pytest.raises(InputError, match="nan at row 3, column 'b'"):
        Series(values, ("a", "b"), "1 hour", "s")
    values[2, 0] = torch.inf
    with pytest.raises(InputError, match="inf at row 2, column 'a'"):
        Series(values, ("a", "b"), "1 hour", "s", has_gaps=True)
