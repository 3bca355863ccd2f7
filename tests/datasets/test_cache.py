from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import os
from pathlib import Path
from urllib.error import URLError

import pytest

from pyro_vdn.datasets import DATASETS, cache_folder, describe, download, fetch, read_dataset
from pyro_vdn.errors import InputError

CONTENT = b"1 2 3\n4 5 6\n"


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path):
    """Start from an empty cache, no data folder and no net."""

    def urlopen(url, timeout):
        raise URLError("offline")

    monkeypatch.setattr(download, "urlopen", urlopen)
    monkeypatch.setenv("PYRO_VDN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PYRO_VDN_DATA", raising=False)
    return tmp_path


@pytest.fixture
def yacht(monkeypatch):
    """Let a small file be the published yacht table."""
    info = dataclasses.replace(DATASETS["yacht"], sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(DATASETS, "yacht", info)


def put(folder, content=CONTENT, name="data.txt"):
    path = folder / "uci/yacht" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def status(name):
    return next(row.status for row in describe() if row.name == name)


@pytest.mark.parametrize("name", ["etth1", "energy", "co2"])
def test_embedded_files_need_neither_net_nor_folder(name):
    assert fetch(name).is_file()
    assert status(name) == "embedded"
    assert (fetch(name).parent / "LICENSE.txt").read_text().count(DATASETS[name].sha256) == 1


@pytest.mark.parametrize("name", ["data.txt", "data.txt.gz"])
def test_data_folder_before_cache_before_net(yacht, monkeypatch, folders, name):
    assert status("yacht") == "available"
    monkeypatch.setattr(download, "urlopen", lambda url, timeout: io.BytesIO(CONTENT))
    cached = fetch("yacht")
    assert cached == folders / "cache/uci/yacht/data.txt"
    assert status("yacht") == "cached"
    content = gzip.compress(CONTENT) if name.endswith("gz") else CONTENT
    local = put(folders / "local", content, name)
    monkeypatch.setenv("PYRO_VDN_DATA", str(folders / "local"))
    assert fetch("yacht") == local
    assert status("yacht") == "local"
    assert read_dataset("yacht") == CONTENT


def test_cached_file_is_not_downloaded_again(yacht, folders):
    put(folders / "cache")
    assert read_dataset("yacht") == CONTENT


def test_edited_file_is_refused(yacht, folders):
    path = put(folders / "cache", CONTENT + b"7 8 9\n")
    with pytest.raises(InputError, match=rf"{path}: expected sha256 .*got sha256 .*18 bytes"):
        fetch("yacht")


def test_offline_names_both_places(folders):
    message = rf"offline, download .*put it at {folders}/cache/uci/yacht/data.txt, or at uci/yacht"
    with pytest.raises(InputError, match=message):
        fetch("yacht")


def test_data_folder_that_does_not_exist(monkeypatch, folders):
    monkeypatch.setenv("PYRO_VDN_DATA", str(folders / "typo"))
    with pytest.raises(InputError, match="PYRO_VDN_DATA: expected a folder that exists"):
        fetch("yacht")
    assert fetch("energy").is_file()
    assert status("yacht") == "available"


@pytest.mark.parametrize("accept", [None, "yes"])
def test_consent_is_asked_for(accept):
    with pytest.raises(InputError, match=r"expected accept='race-derived-feature', got accept="):
        fetch("boston", accept=accept)


def test_consent_opens_the_way():
    with pytest.raises(InputError, match="a download from"):
        fetch("boston", accept="race-derived-feature")


def test_describe_has_a_row_per_data_set():
    assert [row.name for row in describe()] == list(DATASETS)
    notes = {row.name: row.note for row in describe() if row.note}
    assert list(notes) == ["boston"]
    assert "accept='race-derived-feature'" in notes["boston"]


def test_cache_folder_by_default(monkeypatch):
    monkeypatch.delenv("PYRO_VDN_CACHE")
    assert cache_folder() == Path(os.path.expanduser("~")) / ".cache/pyro-vdn"
