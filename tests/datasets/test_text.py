from __future__ import annotations

import dataclasses
import gzip
import hashlib
import sys
from urllib.error import URLError

import pytest

from pyro_vdn.datasets import DATASETS, Text, download, load_text
from pyro_vdn.errors import InputError


def test_pydoc_is_the_help_of_this_python():
    from pydoc_data.topics import topics

    text = load_text()
    assert text == load_text("pydoc")
    assert text.sha256 == hashlib.sha256(text.content.encode()).hexdigest()
    assert text.origin.endswith(f"Python {'.'.join(map(str, sys.version_info[:3]))}")
    assert len(text) > 300_000
    assert all(topic.strip() in text.content for topic in topics.values())
    assert text.content.index(topics["assert"].strip()) == 0
    assert "content" not in repr(text)


def test_order_of_topics_does_not_matter(monkeypatch):
    from pydoc_data import topics

    monkeypatch.setattr(topics, "topics", dict(reversed(topics.topics.items())))
    shuffled = load_text("pydoc")
    monkeypatch.undo()
    assert shuffled == load_text("pydoc")


def test_pydoc_left_out_of_python(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(
        InputError, match=r"text 'pydoc': expected the module pydoc_data.*libpython"
    ):
        load_text()


def test_tinyshakespeare_from_the_data_folder(monkeypatch, tmp_path):
    content = "First Citizen:\nBefore we proceed any further, hear me speak.\n"
    checksum = hashlib.sha256(content.encode()).hexdigest()
    info = dataclasses.replace(DATASETS["tinyshakespeare"], sha256=checksum)
    monkeypatch.setitem(DATASETS, "tinyshakespeare", info)
    monkeypatch.setenv("PYRO_VDN_DATA", str(tmp_path))
    path = tmp_path / "tinyshakespeare/input.txt"
    path.parent.mkdir()
    path.write_text(content)
    text = load_text("tinyshakespeare")
    assert (text.content, text.sha256, text.origin) == (content, checksum, info.url)
    path.write_text(content + "edited")
    with pytest.raises(InputError, match=f"expected sha256 {checksum}"):
        load_text("tinyshakespeare")


def test_tinyshakespeare_offline(monkeypatch, tmp_path):
    def urlopen(url, timeout):
        raise URLError("offline")

    monkeypatch.setattr(download, "urlopen", urlopen)
    monkeypatch.setenv("PYRO_VDN_CACHE", str(tmp_path))
    monkeypatch.delenv("PYRO_VDN_DATA", raising=False)
    with pytest.raises(InputError, match=r"put it at .*tinyshakespeare/input.txt"):
        load_text("tinyshakespeare")


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_file_of_ones_own(tmp_path, name):
    content = "naïve\r\n北京\n".encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    text = load_text(path)
    assert text.content == "naïve\r\n北京\n"
    assert text.sha256 == hashlib.sha256(content).hexdigest()
    assert (text.name, text.origin, len(text)) == (name, str(path), 10)
    assert load_text(str(path)) == text


def test_byte_order_mark_is_left_out(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfabc")
    assert load_text(path).content == "abc"


def test_no_such_name_or_file(tmp_path):
    message = r"text 'shakespear': expected 'pydoc', 'tinyshakespeare' or the path of a file, got "
    with pytest.raises(InputError, match=message + "no file at that path. Try: check the name"):
        load_text("shakespear")


def test_folder_is_no_text(tmp_path):
    with pytest.raises(InputError, match="expected a readable file"):
        load_text(tmp_path)


def test_not_utf8(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("caf\xe9 noir".encode("latin-1"))
    message = rf"{path}: expected UTF-8 text, got byte 0xe9 at offset 3 \(invalid.*Try: save it as"
    with pytest.raises(InputError, match=message):
        load_text(path)


@pytest.mark.parametrize(
    ("content", "got"), [("", "an empty one"), (" \n", "nothing but white space")]
)
def test_empty(tmp_path, content, got):
    path = tmp_path / "a.txt"
    path.write_text(content)
    with pytest.raises(InputError, match=f"text 'a.txt': expected some text, got {got}. Try: anot"):
        load_text(path)


def test_checksum_follows_the_content():
    assert Text("a", "to be").sha256 != Text("a", "to bee").sha256
    with pytest.raises(InputError, match="half a surrogate pair"):
        Text("a", "to \udc80")
