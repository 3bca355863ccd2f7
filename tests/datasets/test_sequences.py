from __future__ import annotations

import pytest
import torch

from pyro_vdn.datasets import Borders, Series, load_series, window_sequences
from pyro_vdn.errors import InputError


def steps_of_time(num_rows=200, channels=2, gaps=()):
    """Return a series whose values say where they stand: row + 1,000 per channel, squared."""
    values = torch.arange(float(num_rows))[:, None].expand(-1, channels).clone()
    values = values.square() + 1000.0 * torch.arange(channels)
    values[list(gaps)] = torch.nan
    return Series(values, tuple("abc"[:channels]), "1 row", "small", has_gaps=bool(gaps))


def cut(series, **changes):
    lengths = {"window": 3, "horizon": 4, "steps": 5, "context": 2, **changes}
    return window_sequences(series, **lengths)


@pytest.mark.parametrize("horizon", [1, 3, 7])
@pytest.mark.parametrize("part", [0, 1, 2])
def test_rows_are_the_windows_of_a_channel(horizon, part):
    series = steps_of_time()
    parts = cut(series, horizon=horizon)
    begin = (0, 140 - 6, 160 - 6)[part]
    x, y = parts[part]
    scale = _scale(series, 140, 15 + horizon)
    for row, start, channel in ((0, begin, 0), (1, begin, 1), (4, begin + 2, 0)):
        values = series.values[start : start + 15 + horizon, channel]
        values = (values - values[:6].mean()) / scale[channel]
        torch.testing.assert_close(x[row].flatten(), values[:15])
        for step in range(5):
            after = 3 * (step + 1)
            torch.testing.assert_close(y[row, step], values[after : after + horizon])


def _scale(series, end, length):
    starts = torch.arange(end - length + 1)
    rows = torch.stack([series.values[s : s + length] for s in starts])
    rows = rows - rows[:, :6].mean(1, keepdim=True)
    return rows.square().mean((0, 1)).sqrt()


def test_scored_targets_stay_in_their_part():
    series = steps_of_time(channels=1)
    parts = cut(series, borders=Borders(60, 90, 120))
    scale = _scale(series, 60, 19)
    for (begin, end), (x, y) in zip(((60, 90), (90, 120)), parts[1:3], strict=True):
        first, last = series.values[begin - 6 : begin].mean(), series.values[end - 19 : end - 13]
        # The first target that is scored follows the first window behind the context.
        values = y[0, 2] * scale + first
        torch.testing.assert_close(values, series.values[begin + 3 : begin + 7, 0])
        assert values[0] ** 0.5 >= begin
        values = y[-1, -1] * scale + last.mean()
        torch.testing.assert_close(values, series.values[end - 4 : end, 0])
        assert len(x) == end - begin + 6 - 19 + 1


def test_strides():
    series = steps_of_time()
    every, some = cut(series), cut(series, strides=(4, 3))
    # The scale is another one, from fewer sequences.
    for part, row, stride in ((0, 2, 4), (1, 2, 3), (2, 4, 3)):
        ratio = some[part].x[row] / every[part].x[row * stride]
        torch.testing.assert_close(ratio, ratio[:1, :1].expand_as(ratio))
    assert [len(part.x) for part in some[:3]] == [2 * 31, 2 * 3, 2 * 10]


def test_gaps_stay_where_they_are_and_change_nothing_else():
    whole = steps_of_time(channels=1)
    gapped = steps_of_time(channels=1, gaps=(180,))
    x, y = cut(gapped).test
    expected = cut(whole).test
    gone = x.isnan()
    starts = torch.arange(154, 182)
    assert torch.equal(gone.sum((1, 2)), ((starts <= 180) & (starts + 15 > 180)).long())
    same = ~gone & ~((starts <= 180) & (starts + 6 > 180))[:, None, None]  # not in the context
    torch.testing.assert_close(x[same], expected.x[same])
    assert torch.equal(y.isnan().any(-1).any(-1), (starts + 3 <= 180) & (starts + 19 > 180))


def test_the_centre_is_that_of_what_was_measured():
    x, _ = cut(steps_of_time(channels=1, gaps=(156,))).test
    context = x[0, :2].flatten()
    assert context.isnan().sum() == 1
    torch.testing.assert_close(context.nanmean(), torch.tensor(0.0), atol=1e-6, rtol=0.0)


def test_units_are_those_of_training():
    parts = window_sequences(load_series("co2"), window=4, horizon=8, steps=39, context=13)
    every = torch.cat([parts.train.x.flatten(1), parts.train.y[:, -1]], 1)
    torch.testing.assert_close(
        every.square().nanmean(), torch.tensor(1.0, dtype=torch.float32), atol=0.02, rtol=0.0
    )


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"window": 0}, "window: expected at least 1, got 0"),
        ({"strides": (1, 0)}, "stride: expected at least 1, got 0"),
        ({"context": 5}, r"context: expected fewer than steps=5 windows, got 5. Try: context=1"),
        ({"steps": 20}, r"part of series 'small': expected at least 64 rows .*got 26 rows"),
    ],
)
def test_refusals(changes, match):
    with pytest.raises(InputError, match=match):
        cut(steps_of_time(), **changes)


def test_a_constant_channel_has_no_units():
    series = steps_of_time()
    series.values[:, 1] = 3.0
    with pytest.raises(InputError, match=r"channel 'b' of series 'small': .*got a spread of 0.0"):
        cut(series)
