from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pyro_vdn.datasets import (
    fetch,
    forecasting_windows,
    load_series,
    read_csv_series,
    read_csv_table,
    uci_split,
)
from pyro_vdn.errors import InputError


@pytest.fixture
def write(tmp_path):
    """Write a file and give its path."""

    def to_file(text):
        path = tmp_path / "mine.v2.csv"
        path.write_text(text)
        return path

    return to_file


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_series_equals_the_loader(dtype):
    mine = read_csv_series(str(fetch("etth1")), dtype=dtype)
    ours = load_series("etth1", dtype=dtype)
    assert torch.equal(mine.values, ours.values)
    assert (mine.names, mine.name, mine.borders) == (ours.names, "ETTh1", None)
    parts = forecasting_windows(mine, channels="OT")
    assert parts.test.target_start[0] == 17420 - 3484


def test_table_from_real_columns():
    table = read_csv_table(fetch("etth1"), "OT", features=["MULL", "HUFL"])
    values = load_series("etth1").values
    assert torch.equal(table.features, values[:, [3, 0]])
    assert torch.equal(table.target, values[:, 6:])
    assert len(uci_split(table, 0).test) == 1742


def test_all_other_columns_by_default(write):
    table = read_csv_table(write("a,y,b\n1,2,3\n4,5,6\n"), "y")
    assert (table.feature_names, table.target_name, table.name) == (("a", "b"), "y", "mine")
    assert table.features.tolist() == [[1, 3], [4, 6]]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators(write, separator):
    text = "a,y\n1,2\n3,4\n".replace(",", separator)
    assert read_csv_table(write(text), "y", separator=separator).target.tolist() == [[2], [4]]
    message = rf"fields separated by ',', got a header with {separator!r}".replace("\\", "\\\\")
    with pytest.raises(InputError, match=message):
        read_csv_table(write(text), "y")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "OTT"}, r"column of .*: expected one of 'date', .*got 'OTT'. Try: 'OT'"),
        ({"target": "OT", "features": ["HUFF"]}, r"got 'HUFF'. Try: 'HUFL'"),
        ({"target": "OT"}, r"numbers in column 'date', got '2016-07-01 00:00:00' at row 0"),
        ({"target": "OT", "features": []}, "at least one column other than the target 'OT'"),
        ({"target": "OT", "features": ["OT"]}, "at least one column other than the target 'OT'"),
    ],
)
def test_columns_of_a_table(arguments, message):
    with pytest.raises(InputError, match=message):
        read_csv_table(fetch("etth1"), **arguments)


def test_constant_target(write):
    with pytest.raises(InputError, match=r"target of .*mine.v2.csv: expected values that vary"):
        read_csv_table(write("a,y\n1,2\n3,2\n"), "y")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "OTT"}, r"got 'OTT'. Try: 'OT'"),
        ({"target": ["OT", "x"]}, r"got 'x'"),
        ({"time": "dates"}, r"got 'dates'. Try: 'date'"),
        ({"target": []}, "expected at least one channel, got none"),
        ({"target": "date"}, "expected numbers in column 'date'"),
        ({"time": "HUFL"}, r"column 'HUFL' of .*: expected times that increase .* at row 1"),
    ],
)
def test_columns_of_a_series(arguments, message):
    with pytest.raises(InputError, match=message):
        read_csv_series(fetch("etth1"), **arguments)


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("a,b\n1,2\n3,4\n", "1 row"),
        ("Date,a\n2020-01-01,1\n2020-01-02,2\n2020-01-03,4\n", "1 days 00:00:00"),
        ("timestamp,a\n1990/1/1 0:00,1\n1990/1/1 6:00,2\n", "0 days 06:00:00"),
        ("time,a\n0,1\n2,2\n4,4\n9,4\n", "2.0"),
    ],
)
def test_step_comes_from_the_time(write, text, step):
    series = read_csv_series(write(text))
    assert series.step == step
    assert series.values.dtype == torch.float32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("date,a\nmonday,1\ntuesday,2\n", r"column 'date' of .*: expected times such as"),
        ("date,a\n2020-01-02,1\n2020-01-01,2\n", "times that increase from row to row"),
        ("date,a\n2020-01-01,1\n2020-01-02,2\n2020-01-02,3\n", "got 2020-01-02 00:00:00 at row 2"),
        ("date,a\n2020-01-01,1\n,2\n", "times that increase .*got NaT at row 1"),
        ("date\n2020-01-01\n2020-01-02\n", "expected at least one channel"),
        ("a,b\n1,2\n3,2\n", r"channels of .*: expected values that vary, got column 'b'"),
        ("a,b\n1,2\n3,nan\n", "got nan at row 1, column 'b'"),
    ],
)
def test_refused_series(write, text, message):
    with pytest.raises(InputError, match=message):
        read_csv_series(write(text))


def test_series_shorter_than_a_window(write):
    series = read_csv_series(write("a\n" + "".join(f"{row}\n" for row in range(100))))
    with pytest.raises(InputError, match=r"at least 432 rows for one window, got 70 of the 100"):
        forecasting_windows(series)


def test_embedded_data_need_no_pandas():
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "from pyro_vdn.datasets import load_series, load_uci\n"
        "load_series('etth1'), load_uci('energy')\n"
    )
    completed = subprocess.run([sys.executable, "-c", code], timeout=120)
    assert completed.returncode == 0
