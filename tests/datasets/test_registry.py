from __future__ import annotations

import re

import pytest

from pyro_vdn.datasets import DATASETS, dataset_info
from pyro_vdn.errors import InputError


@pytest.mark.parametrize("info", DATASETS.values(), ids=lambda info: info.name)
def test_every_entry_is_complete(info):
    assert re.fullmatch("[0-9a-f]{64}", info.sha256)
    assert info.url.startswith("https://")
    assert re.search("/[0-9a-f]{40}/", info.url), "the address names a commit"
    assert info.task in {"regression", "forecasting", "language"}
    assert info.licence
    assert info.attribution
    assert not info.file.endswith(".gz")
    assert bool(info.consent) == bool(info.note)


def test_unknown_name_gets_the_closest_one():
    with pytest.raises(InputError, match=r"data set: expected one of .*got 'ETTh1'. Try: 'etth1'"):
        dataset_info("ETTh1")
