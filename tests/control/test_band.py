"""Bands, the hinge and the calibration, against tables worked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_vdn.control import (
    Band,
    calibration_factor,
    heterogeneous_band,
    hinge,
    homogeneous_band,
    out_of_band,
)
from pyro_vdn.errors import InputError


def band_of(low: float, high: float, target: float, units: int = 1) -> Band:
    return Band(*(torch.full((units,), value) for value in (low, high, target)))


def assert_close(mine: Tensor, expected: list[float], **kwargs: float) -> None:
    torch.testing.assert_close(mine, torch.tensor(expected), **kwargs)


# --- homogeneous and heterogeneous bands ---


@pytest.mark.parametrize(
    ("arguments", "low", "high", "target"),
    [
        ({}, 0.08, 0.16, 0.1),
        ({"target": 2.0}, 1.6, 3.2, 2.0),
        ({"target": 2.0, "low": 1.0, "high": 1.5}, 2.0, 3.0, 2.0),  # low end at the target
        ({"target": 2.0, "low": 0.25, "high": 1.0}, 0.5, 2.0, 2.0),  # high end at the target
    ],
)
def test_homogeneous_band(
    arguments: dict[str, float], low: float, high: float, target: float
) -> None:
    band = homogeneous_band(3, **arguments)
    assert_close(band.low, [low] * 3)
    assert_close(band.high, [high] * 3)
    assert_close(band.target, [target] * 3)


@pytest.mark.parametrize(
    ("units", "spread", "targets"),
    [
        (1, 8.0, [0.1]),
        (2, 10.0, [0.01, 1.0]),
        (3, 10.0, [0.01, 0.1, 1.0]),
        (5, 100.0, [0.001, 0.01, 0.1, 1.0, 10.0]),
        (4, 1.0, [0.1, 0.1, 0.1, 0.1]),
        (4, 8.0, [0.0125, 0.05, 0.2, 0.8]),  # steps of a factor 4
    ],
)
def test_heterogeneous_band_is_even_in_logarithm(
    units: int, spread: float, targets: list[float]
) -> None:
    band = heterogeneous_band(units, 0.1, spread=spread)
    assert_close(band.target, targets)
    assert_close(band.low, [0.8 * target for target in targets])
    assert_close(band.high, [1.6 * target for target in targets])


def test_a_seed_deals_the_same_targets_in_an_order_of_its_own() -> None:
    plain, dealt, again, other = (
        heterogeneous_band(20, seed=seed).target for seed in (None, 3, 3, 4)
    )
    assert torch.equal(dealt, again)
    assert not torch.equal(dealt, other)
    assert not torch.equal(dealt, plain)
    assert torch.equal(dealt.sort().values, plain)
    assert (plain.diff() > 0).all()
    bounds = heterogeneous_band(20, seed=3)
    torch.testing.assert_close(bounds.high / bounds.low, torch.full((20,), 2.0))


def test_dealing_leaves_the_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(())
    torch.manual_seed(5)
    heterogeneous_band(20, seed=3)
    assert torch.rand(()) == expected


@pytest.mark.parametrize(
    ("make", "arguments", "text"),
    [
        (homogeneous_band, {"num_units": 0}, "num_units: expected a positive integer, got 0"),
        (homogeneous_band, {"target": 0.0}, "target: expected a number above 0, got 0.0"),
        (homogeneous_band, {"target": math.nan}, "target: expected a number above 0, got nan"),
        (homogeneous_band, {"target": math.inf}, "target: expected a number above 0, got inf"),
        (homogeneous_band, {"low": 0.0}, "low: expected a number above 0 and at most 1, got 0.0"),
        (homogeneous_band, {"low": 1.1}, "low: expected a number above 0 and at most 1, got 1.1"),
        (homogeneous_band, {"high": 0.9}, "high: expected a number of at least 1, got 0.9"),
        (homogeneous_band, {"low": 1.0, "high": 1.0}, "low: expected less than high = 1, got 1"),
        (heterogeneous_band, {"spread": 0.5}, "spread: expected a number of at least 1, got 0.5"),
        (heterogeneous_band, {"target": -1.0}, "target: expected a number above 0, got -1.0"),
    ],
)
def test_bands_refuse(make: Callable[..., Band], arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=f"^{text}"):
        make(**{"num_units": 3, **arguments})


# --- hinge ---

#: Energy, squared distance from [0.5, 2] relative to the bound, and absolute.
HINGE = [
    (0.0, 1.0, 0.25),
    (0.25, 0.25, 0.0625),
    (0.5, 0.0, 0.0),  # at the lower bound
    (1.0, 0.0, 0.0),
    (2.0, 0.0, 0.0),  # at the upper bound
    (3.0, 0.25, 1.0),
    (4.0, 1.0, 4.0),
    (10.0, 16.0, 64.0),
]


@pytest.mark.parametrize(("energy", "relative", "absolute"), HINGE)
@pytest.mark.parametrize("low_weight", [1.0, 2.0])
@pytest.mark.parametrize("high_weight", [1.0, 0.25])
def test_hinge(
    energy: float, relative: float, absolute: float, low_weight: float, high_weight: float
) -> None:
    band = band_of(0.5, 2.0, 1.0)
    weights = {"low_weight": low_weight, "high_weight": high_weight}
    factor = low_weight if energy < 0.5 else high_weight
    mine = hinge(torch.tensor([energy]), band, **weights)
    assert_close(mine, [factor * relative])
    mine = hinge(torch.tensor([energy]), band, relative=False, **weights)
    assert_close(mine, [factor * absolute])


def test_hinge_takes_each_unit_s_own_bounds_and_weights_of_one_number() -> None:
    band = Band(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 8.0]), torch.tensor([1.5, 5.0]))
    cost = hinge(torch.tensor([4.0, 2.0]), band, high_weight=torch.tensor([3.0]), low_weight=0.5)
    assert_close(cost, [3.0 * 1.0, 0.5 * 0.25])


@pytest.mark.parametrize(
    ("energy", "slope"),
    [(0.25, -2.0), (0.5, 0.0), (1.0, 0.0), (2.0, 0.0), (3.0, 0.5)],
)
def test_hinge_pulls_toward_the_band(energy: float, slope: float) -> None:
    value = torch.tensor([energy], requires_grad=True)
    hinge(value, band_of(0.5, 2.0, 1.0)).sum().backward()  # type: ignore[no-untyped-call]
    assert value.grad is not None
    assert_close(value.grad, [slope])


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hinge_keeps_the_dtype(dtype: torch.dtype, relative: bool) -> None:
    band = Band(*(part.to(dtype) for part in homogeneous_band(3, 1.0)))
    assert hinge(torch.zeros(3, dtype=dtype), band, relative=relative).dtype == dtype


@pytest.mark.parametrize(
    ("energy", "out"), [(0.4, True), (0.5, False), (1.0, False), (2.0, False), (2.1, True)]
)
def test_out_of_band(energy: float, out: bool) -> None:
    assert out_of_band(torch.tensor([energy]), band_of(0.5, 2.0, 1.0)).item() is out


# --- calibration ---

#: Energies of five units with band [1, 4]; with shares of a quarter, the second smallest lies at
#: the lower bound and the second largest at the upper one after the move.
CALIBRATION = [
    ([0.5, 1.0, 2.0, 4.0, 8.0], {}, 1.0),  # sqrt(1/1 * 4/4)
    ([1.0, 2.0, 4.0, 8.0, 16.0], {}, 2.0),  # sqrt(2/1 * 8/4), at the largest step
    ([1.5, 3.0, 6.0, 12.0, 24.0], {}, 2.0),  # 3, clamped
    ([0.25, 0.5, 1.0, 2.0, 4.0], {}, 0.5),
    ([0.125, 0.25, 0.5, 1.0, 2.0], {}, 0.5),  # 0.25, clamped
    ([0.5, 1.0, 2.0, 9.0, 16.0], {}, 1.5),  # sqrt(1 * 9/4)
    ([8.0, 0.5, 4.0, 1.0, 2.0], {}, 1.0),  # in any order
    ([0.5, 1.0, 2.0, 4.0, 8.0], {"low_share": 0.0}, math.sqrt(0.5)),
    ([0.5, 1.0, 2.0, 4.0, 8.0], {"high_share": 0.0}, math.sqrt(2.0)),
    ([0.5, 1.0, 2.0, 4.0, 8.0], {"low_share": 0.5}, math.sqrt(2.0)),
    ([0.5, 1.0, 2.0, 4.0, 8.0], {"low_share": 0.375}, math.sqrt(1.5)),  # halfway between two
    ([0.0, 0.0, 0.0, 0.0, 0.0], {}, 0.5),
    ([0.0, 0.0, 0.0, 16.0, 16.0], {}, 0.5),
]


@pytest.mark.parametrize(("energies", "shares", "factor"), CALIBRATION)
def test_calibration_factor(energies: list[float], shares: dict[str, float], factor: float) -> None:
    settings = {"low_share": 0.25, "high_share": 0.25, "largest": 2.0} | shares
    mine = calibration_factor(torch.tensor(energies), band_of(1.0, 4.0, 2.0, 5), **settings)
    assert mine.item() == pytest.approx(factor, rel=1e-12)


def test_calibration_converges_to_the_shares_wanted() -> None:
    torch.manual_seed(0)
    energies, band = torch.rand(1000).exp() * 30, homogeneous_band(1000, 0.1, low=0.9, high=1.1)
    for _ in range(200):
        factor = calibration_factor(energies, band)
        assert 1 / 1.1 <= factor <= 1.1
        band = Band(*(part * factor for part in band))
    below, above = (energies < band.low).double().mean(), (energies > band.high).double().mean()
    low = energies.sort().values[200] / 0.9  # alone, the lower share would put the target here
    high = energies.sort().values[899] / 1.1  # and the upper share there
    assert band.target[0].item() == pytest.approx((low * high).sqrt().item(), rel=1e-2)
    assert below > 0.2  # the band is narrower than the energies: both shares are too large,
    assert above > 0.1  # evenly so


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"low_share": -0.1}, "low_share: expected a number of at least 0 and at most 1, got -0.1"),
        ({"high_share": 1.5}, "high_share: expected a number of at least 0 and at most 1, got 1.5"),
        ({"largest": 1.0}, "largest: expected a number above 1, got 1.0"),
        (
            {"low_share": 0.6, "high_share": 0.4},
            r"low_share: expected less than 1 - high_share = 0.6, got 0.6. Try: low_share=0.2",
        ),
    ],
)
def test_calibration_refuses(settings: dict[str, float], text: str) -> None:
    with pytest.raises(InputError, match=text):
        calibration_factor(torch.ones(3), homogeneous_band(3), **settings)
