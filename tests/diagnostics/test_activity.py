from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from pyro_vdn.diagnostics import unit_activity
from pyro_vdn.errors import InputError

KL, ENERGY, SCALE = [2.0, 1e-4, 3e-4, 0.0], [1.0, 0.0, 0.1, 0.0], [0.1, 1.0, 0.5, 2.0]


def test_statistics_follow_their_definitions() -> None:
    activity = unit_activity(KL, ENERGY, SCALE)
    np.testing.assert_allclose(activity.contraction, [0.99, 0.0, 0.75, -3.0])
    assert activity.active.tolist() == [True, False, True, False]  # the threshold is not active
    assert activity.active_share() == 0.5


@pytest.mark.parametrize(("threshold", "share"), [(1e-4, 0.5), (1e-3, 0.25), (5e-5, 0.75)])
def test_threshold_given_early_or_late(threshold: float, share: float) -> None:
    assert unit_activity(KL, ENERGY, SCALE, threshold=threshold).active_share() == share
    assert unit_activity(KL, ENERGY, SCALE).active_share(threshold) == share


def test_prior_scale_enters_the_contraction() -> None:
    activity = unit_activity(KL, ENERGY, SCALE, prior_scale=2.0)
    np.testing.assert_allclose(activity.contraction, 1 - np.square(SCALE) / 4)


def test_tensors_with_gradients_are_read() -> None:
    kl = torch.tensor(KL, dtype=torch.float64, requires_grad=True)
    activity = unit_activity(kl, torch.tensor(ENERGY), np.array(SCALE))
    assert activity.kl.dtype == np.float64
    np.testing.assert_array_equal(activity.kl, KL)


def test_result_is_a_frozen_copy() -> None:
    kl = np.array(KL)
    activity = unit_activity(kl, ENERGY, SCALE)
    kl[0] = 0.0
    assert activity.kl[0] == 2.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        activity.kl = kl  # type: ignore[misc]


def test_rows_are_plain_and_in_unit_order() -> None:
    rows = unit_activity(KL, ENERGY, SCALE).to_rows()
    assert [row["unit"] for row in rows] == [0, 1, 2, 3]
    assert json.loads(json.dumps(rows)) == rows
    assert rows[2] == {
        "unit": 2,
        "kl": 3e-4,
        "mean_energy": 0.1,
        "scale": 0.5,
        "contraction": 0.75,
        "active": True,
    }


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kl": [1.0, 2.0]}, r"mean_energy: expected 2 units, as in kl, got 4"),
        ({"scale": [1.0]}, r"scale: expected 4 units, as in kl, got 1"),
        ({"kl": [[1.0] * 4]}, r"kl: .* shape \(units,\), got shape \(1, 4\)"),
        ({"kl": []}, r"kl: expected a non-empty array"),
        ({"kl": [0.0, float("nan"), 0.0, 0.0]}, r"kl: .* got nan at \(1,\)"),
        ({"mean_energy": [0.0, 0.0, -1.0, 0.0]}, r"mean_energy: .* got -1.0 at \(2,\)"),
        ({"scale": [1.0, 1.0, 1.0, 0.0]}, r"scale: expected positive values, got 0.0 at \(3,\)"),
        ({"prior_scale": 0.0}, r"prior_scale: expected positive"),
    ],
)
def test_bad_input_is_refused(change: dict[str, object], text: str) -> None:
    given = {"kl": KL, "mean_energy": ENERGY, "scale": SCALE, **change}
    with pytest.raises(InputError, match=text):
        unit_activity(**given)  # type: ignore[arg-type]
