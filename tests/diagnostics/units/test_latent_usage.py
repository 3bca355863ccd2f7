from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pyro_vdn.diagnostics import UnitStatistics, latent_usage
from pyro_vdn.errors import InputError


def test_a_layer_is_the_sum_or_mean_of_its_units(table: Callable[..., UnitStatistics]) -> None:
    first = table(kl=[0.4, 0.0, 0.2], mu2=[0.3, 0.0, 0.6], scale=[0.5, 1.0, 0.6])
    found = latent_usage({"blocks.0.neurons": first, "blocks.1.neurons": table(kl=[0.1])})
    assert list(found) == ["blocks.0.neurons", "blocks.1.neurons"]
    layer = found["blocks.0.neurons"]
    assert (layer.units, layer.active_share) == (3, pytest.approx(2 / 3))
    assert layer.kl == pytest.approx(0.6)
    assert layer.kl_per_unit == pytest.approx(0.2)
    assert layer.mu2 == pytest.approx(0.3)
    assert layer.scale == pytest.approx(0.7)
    assert layer.contraction == pytest.approx(first.contraction.mean())
    assert layer.by_unit["active"].tolist() == [1.0, 0.0, 1.0]
    np.testing.assert_array_equal(layer.by_unit["scale"], first.scale)


def test_no_layer_is_refused() -> None:
    with pytest.raises(InputError, match=r"statistics: expected at least one layer"):
        latent_usage({})
