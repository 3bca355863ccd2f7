from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pyro_vdn.datasets import Borders, Series, Windows, forecasting_windows, load_series
from pyro_vdn.errors import InputError


@pytest.fixture(scope="module")
def etth1():
    return load_series("etth1")


def small(num_rows=60, channels=2, dtype=torch.float32):
    values = torch.arange(num_rows * channels, dtype=dtype).view(num_rows, channels)
    return Series(values, tuple("abc"[:channels]), "1 row", "small")


def target_rows(windows):
    return set((windows.target_start[:, None] + torch.arange(windows.horizon)).flatten().tolist())


@pytest.mark.parametrize(
    ("input_length", "horizon", "train", "test"),
    [(336, 96, 8209, 2785), (96, 96, 8449, 2785), (336, 720, 7585, 2161)],
)
def test_etth1_counts(etth1, input_length, horizon, train, test):
    parts = forecasting_windows(etth1, input_length=input_length, horizon=horizon)
    assert [len(part) for part in parts[:3]] == [7 * train, 7 * test, 7 * test]


@pytest.mark.parametrize("stride", [1, 5, 97])
@pytest.mark.parametrize("input_length", [24, 336])
def test_no_target_leaves_its_part(etth1, input_length, stride):
    parts = forecasting_windows(etth1, input_length=input_length, stride=stride, channels="OT")
    train, validation, test = (target_rows(part) for part in parts[:3])
    assert train.isdisjoint(validation)
    assert validation.isdisjoint(test)
    assert min(train) == input_length
    assert max(train) < 8640 == min(validation)
    assert max(validation) < 11520 == min(test)
    assert max(test) < 14400
    if stride == 1:
        assert [len(validation), len(test)] == [2880, 2880]
        assert max(train) == 8639


def test_standardised_with_training_rows(etth1):
    later = Series(etth1.values.clone(), etth1.names, "1 hour", "later", etth1.borders)
    later.values[8640:] += 100
    one, other = forecasting_windows(etth1), forecasting_windows(later)
    assert torch.equal(one.train[:50][0], other.train[:50][0])
    torch.testing.assert_close(one.standardizer.mean, etth1.values[:8640].mean(0))
    x, y = one.test[::7]
    values = torch.cat([x, y], -1) * one.standardizer.scale[0] + one.standardizer.mean[0]
    begin = 11520 - 336
    torch.testing.assert_close(values[3], etth1.values[begin + 3 : begin + 3 + 432, 0])


def test_repeating_the_last_value_scores_as_published(etth1):
    test = forecasting_windows(etth1).test
    total = sum(((y - x[:, -1:]) ** 2).mean(-1).sum() for x, y in test.batches(4096))
    assert total / len(test) == pytest.approx(1.294, abs=1e-3)


def test_rows_are_windows_times_channels():
    series = small()
    parts = forecasting_windows(series, input_length=4, horizon=2, borders=Borders(30, 40, 60))
    test = parts.test
    x, y = test.tensors()
    assert (x.shape, y.shape) == ((38, 4), (38, 2))
    for row in (0, 1, 17, 37):
        channel, start = test.channel[row], test.start[row]
        values = torch.cat([x[row], y[row]])
        values = values * parts.standardizer.scale[channel] + parts.standardizer.mean[channel]
        torch.testing.assert_close(values, series.values[start : start + 6, channel])
    assert torch.equal(test.target_start, test.start + 4)


@pytest.mark.parametrize(
    ("channels", "names"),
    [("all", ("a", "b", "c")), ("b", ("b",)), (["c", "a"], ("c", "a")), (("b",), ("b",))],
)
def test_channels_by_name(channels, names):
    series = small(channels=3)
    parts = forecasting_windows(series, input_length=4, horizon=2, channels=channels)
    assert parts.train.names == names
    columns = [series.names.index(name) for name in names]
    torch.testing.assert_close(parts.standardizer.mean, series.values[:42, columns].mean(0))
    assert parts.train.channel[: len(names)].tolist() == list(range(len(names)))


@pytest.mark.parametrize(
    "index",
    [
        slice(None),
        slice(3, 11, 2),
        [0, 5],
        torch.tensor([7, 2, 2]),
        torch.arange(20) % 3 == 0,
        np.array([1, 4]),
        slice(0, 0),
    ],
    ids=["all", "slice", "list", "tensor", "mask", "numpy", "empty"],
)
def test_every_kind_of_index(index):
    windows = Windows(torch.randn(14, 2), "ab", input_length=3, horizon=2)
    x, y = windows[index]
    rows = torch.arange(20)[index]
    assert (x.shape, y.shape) == ((len(rows), 3), (len(rows), 2))
    for place, row in enumerate(rows.tolist()):
        assert torch.equal(x[place], windows[row][0])
        assert torch.equal(y[place], windows[row][1])
    assert torch.equal(windows[-1][1], windows[19][1])


def test_rows_end():
    windows = Windows(torch.randn(8, 1), "a", input_length=3, horizon=2)
    assert len(list(windows)) == len(windows) == 4
    with pytest.raises(IndexError, match=r"out of bounds|out of range"):
        windows[4]


def test_windows_share_memory_until_indexed():
    values = torch.zeros(1000, 2)
    windows = Windows(values, "ab", input_length=300, horizon=100)
    values[0, 0] = 5
    assert windows[0][0][0] == 5
    x, _ = windows[0:1]
    values[0, 0] = 6
    assert x[0, 0] == 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_type_is_kept(dtype):
    parts = forecasting_windows(small(dtype=dtype), input_length=4, horizon=2)
    assert parts.train[0][0].dtype == parts.standardizer.scale.dtype == dtype


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batches_hold_every_row_once(batch_size):
    windows = Windows(torch.arange(40.0)[:, None], "a", input_length=3, horizon=2)
    plain = torch.cat([x for x, _ in windows.batches(batch_size)])
    assert torch.equal(plain, windows.tensors()[0])
    generator = torch.Generator().manual_seed(1)
    mixed = torch.cat(
        [x for x, _ in windows.batches(batch_size, shuffle=True, generator=generator)]
    )
    again = torch.cat(
        [
            x
            for x, _ in windows.batches(
                batch_size, shuffle=True, generator=generator.manual_seed(1)
            )
        ]
    )
    assert torch.equal(mixed, again)
    assert not torch.equal(mixed, plain)
    assert torch.equal(mixed.sort(0).values, plain)


def test_works_with_a_data_loader():
    windows = Windows(torch.randn(20, 2), "ab", input_length=3, horizon=2)
    x, y = next(iter(DataLoader(windows, batch_size=5)))
    assert torch.equal(x, windows[:5][0])
    assert torch.equal(y, windows[:5][1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": "d"}, r"channel of series 'small': expected one of 'a', 'b', got 'd'"),
        ({"channels": []}, "channels: expected at least one name, each once"),
        ({"channels": ["a", "a"]}, "channels: expected at least one name, each once"),
        ({"input_length": 0}, "input_length: expected at least 1 step, got 0"),
        ({"horizon": -1}, "horizon: expected at least 1 step, got -1"),
        ({"stride": 0}, "stride: expected at least 1 step, got 0"),
        ({"borders": "weekly"}, r"borders: expected 'standard' or Borders.*got 'weekly'"),
        ({"borders": Borders(30, 40, 61)}, "expected 0 < train < validation < test <= 60 rows"),
        ({"borders": Borders(30, 20, 60)}, "expected 0 < train < validation < test <= 60 rows"),
        (
            {"input_length": 41},
            "training part of series 'small': expected at least 43 rows for one window, "
            "got 42 of the 60 rows",
        ),
        ({"horizon": 7}, "validation part of series 'small': expected at least 7 rows"),
        ({"borders": Borders(30, 59, 60)}, "test part of series 'small': expected at least 2"),
    ],
)
def test_refused_arguments(arguments, message):
    arguments = {"input_length": 4, "horizon": 2, **arguments}
    with pytest.raises(InputError, match=message):
        forecasting_windows(small(), **arguments)


def test_constant_channel_is_refused():
    series = small()
    series.values[:42, 1] = 3
    with pytest.raises(InputError, match=r"training rows of series 'small': .*column 'b' with 3.0"):
        forecasting_windows(series, input_length=4, horizon=2)
    assert len(forecasting_windows(series, input_length=4, horizon=2, channels="a").train)


def test_stretch_shorter_than_a_window():
    with pytest.raises(InputError, match="values: expected at least 5 rows for one window, got 4"):
        Windows(torch.zeros(4, 1), "a", input_length=3, horizon=2)


def test_batch_size_must_be_positive():
    windows = Windows(torch.zeros(5, 1), "a", input_length=3, horizon=2)
    with pytest.raises(InputError, match="batch_size: expected at least 1, got 0"):
        windows.batches(0)


def test_a_series_with_gaps_is_refused():
    with pytest.raises(
        InputError, match=r"series 'co2': .*got NaN at 59 of 2284 steps. Try: window_s"
    ):
        forecasting_windows(load_series("co2"))
