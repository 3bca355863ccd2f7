from __future__ import annotations

import gzip
import sys

import pytest
import torch

from pyro_vdn.datasets import fetch
from pyro_vdn.datasets.csvfile import numeric_columns, read_frame
from pyro_vdn.errors import InputError


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got an empty file"),
        (b" \n\n", "got an empty file"),
        (b"a,b\n", "at least 2 data rows below the header, got 0"),
        (b"a,b\n1,2\n", "at least 2 data rows below the header, got 1"),
        (b"\xff\xfe\x00\x01", r"got bytes that are not text \(invalid start byte at 0\)"),
        (b"a,b\n1,\x002\n", "got a zero byte at character 6"),
        (b"1,2\n3,4\n5,6\n", "names every column once, got a first row of numbers"),
        (b",a\n0,1\n1,2\n", r"got no name for column 0 \(0 is the first\)"),
        (b"a,b,a\n1,2,3\n4,5,6\n", "got 'a' twice"),
        (b"a,b\n1,2\n3,4,5\n", "expected 2 fields in every row, as in the header"),
        (b"a,b\n1,2,3\n3,4,5\n", "expected 2 fields in every row, as in the header"),
    ],
)
def test_not_a_table(tmp_path, content, message):
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"mine.csv: .*{message}"):
        read_frame(path)


def test_truncated_gzip(tmp_path):
    path = tmp_path / "mine.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 100)[:-9])
    with pytest.raises(InputError, match=r"mine.csv.gz: expected a complete gzip file"):
        read_frame(path)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"mine.csv: expected a file, got nothing"):
        read_frame(tmp_path / "mine.csv")


def test_byte_order_mark_and_spaces_are_no_part_of_names(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes(b"\xef\xbb\xbfa , b\r\n1, 2\r\n3, 4\r\n")
    frame = read_frame(path)
    assert list(frame.columns) == ["a", "b"]
    assert frame["b"].tolist() == [2, 4]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("x", "numbers in column 'b', got 'x' at row 1"),
        ("", "finite values, got nan at row 1, column 'b'"),
        ("inf", "finite values, got inf at row 1, column 'b'"),
        ("1e39", "finite values, got inf at row 1, column 'b'"),
        ("1;5", "numbers in column 'b', got '1;5' at row 1"),
    ],
)
def test_cells_that_are_no_numbers(tmp_path, cell, message):
    path = tmp_path / "mine.csv"
    path.write_text(f"a,b\n1,2\n3,{cell}\n5,6\n")
    with pytest.raises(InputError, match=f"mine: expected {message}"):
        numeric_columns(read_frame(path), ["a", "b"], what="mine", dtype=torch.float32)


def test_pandas_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match=r"expected the package pandas.*pyro-vdn\[train\]"):
        read_frame(fetch("etth1"))
