from __future__ import annotations

import dataclasses
import gzip
import hashlib

import pytest

from pyro_vdn.datasets import dataset_info, fetch
from pyro_vdn.datasets.checksum import read_file, read_verified
from pyro_vdn.errors import InputError


def test_plain_and_gzip_give_the_same_content(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"a,b\n")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a,b\n"))
    assert read_file(tmp_path / "a.csv") == read_file(tmp_path / "a.csv.gz") == b"a,b\n"


@pytest.mark.parametrize("kept", [5, 1000, -1])
def test_truncated_gzip_is_refused(tmp_path, kept):
    path = tmp_path / "ETTh1.csv.gz"
    path.write_bytes(fetch("etth1").read_bytes()[:kept])
    with pytest.raises(InputError, match=r"ETTh1.csv.gz: expected a complete gzip .*truncated"):
        read_file(path)


@pytest.mark.parametrize("content", [b"not a gzip at all", b"\x1f\x8b\x08\x00" + b"\xff" * 40])
def test_damaged_gzip_is_refused(tmp_path, content):
    path = tmp_path / "x.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match="a truncated or damaged one"):
        read_file(path)


def test_missing_and_unreadable_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="nothing at that path"):
        read_file(tmp_path / "none")
    with pytest.raises(InputError, match="expected a readable file"):
        read_file(tmp_path)


@pytest.mark.parametrize("of_the_gzip", [True, False])
def test_checksum_may_be_of_the_file_as_published(tmp_path, of_the_gzip):
    content = b"1,2\n3,4\n"
    raw = gzip.compress(content)
    sha256 = hashlib.sha256(raw if of_the_gzip else content).hexdigest()
    info = dataclasses.replace(dataset_info("exchange"), sha256=sha256)
    path = tmp_path / "exchange_rate.txt.gz"
    path.write_bytes(raw)
    assert read_verified(path, info) == content


def test_other_content_names_file_and_both_checksums(tmp_path):
    info = dataset_info("energy")
    path = tmp_path / "data.txt"
    path.write_bytes(fetch("energy").read_bytes()[:-7])
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    message = rf"data.txt: expected sha256 {info.sha256} .*got sha256 {found}.*fetch it again"
    with pytest.raises(InputError, match=message):
        read_verified(path, info)
