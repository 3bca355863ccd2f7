"""Half-lives and carried shares against tables worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from pyro_vdn.diagnostics import UnitPersistence, carried_share, half_life
from pyro_vdn.errors import InputError


@pytest.mark.parametrize(
    ("phi", "step", "expected"),
    [
        ([0.5], 1.0, 1.0),
        ([-0.5], 1.0, 1.0),
        ([0.25], 1.0, 0.5),
        ([0.5], 24.0, 24.0),
        ([0.5**0.1], 0.25, 2.5),
        ([0.9999], 1.0, 6931.12523),
        ([0.0], 1.0, 0.0),
        ([1.0], 1.0, math.inf),
        ([-1.0], 1.0, math.inf),
        ([0.0, 0.25], 1.0, 1.0),  # roots 0.5 and -0.5
        ([0.6, 0.27], 1.0, 6.578813),  # roots 0.9 and -0.3: log 2 / -log 0.9
        ([0.9, -0.81], 1.0, 6.578813),  # 0.9 exp(+- i pi / 3)
        ([0.5, 0.0, 0.0], 1.0, 1.0),
        ([1.5, -0.74, 0.12], 1.0, 1.356915),  # roots 0.6, 0.5, 0.4
    ],
)
def test_half_life(phi: list[float], step: float, expected: float) -> None:
    assert half_life([phi], step=step).tolist() == pytest.approx([expected], rel=1e-6)


def test_half_the_value_is_left_after_a_half_life() -> None:
    phi = torch.tensor([0.3, 0.9, 0.99], dtype=torch.float64)
    half = torch.tensor(half_life(phi.unsqueeze(-1)))
    torch.testing.assert_close(phi**half, torch.full_like(phi, 0.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes(dtype: torch.dtype) -> None:
    phi = torch.rand(7, 4, 2, dtype=dtype) * 0.2
    assert half_life(phi).shape == carried_share(phi).shape == (7, 4)
    assert half_life(phi[..., 0]).shape == (7,)  # the last dimension is the order
    assert half_life(phi[0, :, 0]).tolist() == half_life(phi[0, :, :1]).tolist()
    assert half_life(phi).dtype == np.float64


def test_a_learned_coefficient_is_read_without_its_graph() -> None:
    assert half_life(torch.full((2, 1), 0.5, requires_grad=True)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("phi", "share"),
    [
        ([0.0], 0.0),
        ([0.9], 0.81),
        ([-0.9], 0.81),
        # order 2, worked from the Yule-Walker equations: rho_1 = phi_1 / (1 - phi_2), and the share
        # is phi_1 rho_1 + phi_2 rho_2
        ([0.4, 0.2], 0.4 * 0.5 + 0.2 * (0.4 * 0.5 + 0.2)),
        ([0.0, 0.5], 0.25),
        ([1.2, -0.6], 1.2 * 0.75 - 0.6 * (1.2 * 0.75 - 0.6)),
    ],
)
def test_carried_share(phi: list[float], share: float) -> None:
    assert carried_share([phi]).tolist() == pytest.approx([share])


@pytest.mark.parametrize("function", [half_life, carried_share])
@pytest.mark.parametrize(
    ("phi", "text"),
    [
        ([], "coefficients: expected finite numbers of shape .*, got shape"),
        (0.5, "coefficients: expected finite numbers of shape .*, got shape"),
        ([[math.nan]], "coefficients: expected finite numbers of shape .*, got NaN"),
        ([[math.inf]], "coefficients: expected finite numbers"),
    ],
)
def test_bad_coefficients(function: Any, phi: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        function(phi)


@pytest.mark.parametrize("phi", [[1.1], [-1.5], [0.9, 0.2], [0.0, 1.01]])
def test_explosions_are_refused(phi: list[float]) -> None:
    with pytest.raises(InputError, match="coefficients: expected those of autoregressions that do"):
        half_life([phi])
    with pytest.raises(InputError, match="phi: expected coefficients of a stationary"):
        carried_share([phi])


@pytest.mark.parametrize("step", [0.0, -1.0, math.nan, math.inf])
def test_bad_steps(step: float) -> None:
    with pytest.raises(InputError, match="step: expected a positive length"):
        half_life([0.5], step=step)


def test_columns_of_units() -> None:
    given = dict.fromkeys(("innovation_scale", "posterior_carried", "renewal"), np.ones(2))
    time: dict[str, Any] = {"step": 0.5, "unit": "h", "steps": 9}
    units = UnitPersistence.of(np.array([[0.0, 0.25], [0.6, 0.27]]), **given, **time)
    assert list(units.to_arrays())[:3] == ["phi_1", "phi_2", "innovation_scale"]
    assert units.to_rows()[0]["half_life"] == pytest.approx(0.5)
    assert units.to_rows()[1] == pytest.approx(
        {
            "unit": 1,
            "phi_1": 0.6,
            "phi_2": 0.27,
            "innovation_scale": 1.0,
            "half_life": 3.2894067,
            "prior_carried": units.prior_carried[1],
            "posterior_carried": 1.0,
            "renewal": 1.0,
        }
    )
