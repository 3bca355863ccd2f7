from __future__ import annotations

import http.client
import io
from urllib.error import URLError

import pytest

from pyro_vdn.datasets import dataset_info, download, fetch
from pyro_vdn.errors import InputError

ENERGY = dataset_info("energy")


@pytest.fixture
def serve(monkeypatch):
    """Let the opener answer with these bytes, or raise this error."""

    def answer(result):
        def urlopen(url, timeout):
            assert timeout > 0
            if isinstance(result, Exception):
                raise result
            return io.BytesIO(result)

        monkeypatch.setattr(download, "urlopen", urlopen)

    return answer


def test_the_published_file_arrives(serve, tmp_path):
    content = fetch("energy").read_bytes()
    serve(content)
    path = download.download(ENERGY, tmp_path / "new")
    assert path == tmp_path / "new/uci/energy/data.txt"
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_another_file_never_appears(serve, tmp_path):
    serve(b"<html>Please log in</html>")
    message = rf"download of {ENERGY.url}: expected sha256 {ENERGY.sha256} .*got sha256"
    with pytest.raises(InputError, match=message):
        download.download(ENERGY, tmp_path)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize(
    "error", [URLError("no route"), TimeoutError("slow"), http.client.IncompleteRead(b"")]
)
def test_offline_says_where_to_put_the_file(serve, tmp_path, error):
    serve(error)
    message = rf"a download from {ENERGY.url}, got {type(error).__name__}.*put it at {tmp_path}"
    with pytest.raises(InputError, match=message):
        download.download(ENERGY, tmp_path)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"a folder that can be written.*PYRO_VDN_CACHE"):
        download.download(ENERGY, tmp_path / "file")


@pytest.mark.parametrize(("name", "suffix"), [("exchange", ".gz"), ("etth2", ".csv")])
def test_the_published_ending_is_kept(tmp_path, name, suffix):
    assert download.download_path(dataset_info(name), tmp_path).suffix == suffix
