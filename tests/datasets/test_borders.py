from __future__ import annotations

import pytest

from pyro_vdn.datasets import ETT_HOURLY, Borders, percent_borders
from pyro_vdn.datasets.borders import require_borders
from pyro_vdn.errors import InputError


def test_hourly_ett_parts():
    assert ETT_HOURLY.parts() == ((0, 8640), (8640, 11520), (11520, 14400))


@pytest.mark.parametrize(
    ("num_rows", "lengths"),
    [(10, (7, 1, 2)), (7588, (5311, 760, 1517)), (17420, (12194, 1742, 3484))],
)
def test_percent_parts(num_rows, lengths):
    parts = percent_borders(num_rows).parts()
    assert tuple(end - begin for begin, end in parts) == lengths


@pytest.mark.parametrize("borders", [(0, 5, 9), (5, 5, 9), (5, 9, 8), (5, 7, 11)])
def test_borders_out_of_order(borders):
    with pytest.raises(InputError, match=r"borders: expected 0 < train < validation < test <= 10"):
        require_borders(Borders(*borders), 10)
