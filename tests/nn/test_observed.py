"""What is missing: values to compute with, masks of what counts, and who reads NaN."""

from __future__ import annotations

import math

import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import Regression, StateSpace

from pyro_vdn.errors import InputError
from pyro_vdn.nn.observed import count_observed, observed_steps, observed_values, reads_missing
from pyro_vdn.poutine import deterministic, kl_weight

NAN = math.nan


def test_nothing_missing_is_the_tensor_itself_without_a_mask() -> None:
    x = torch.randn(4, 6, 2)
    for split in (observed_steps, observed_values):
        values, mask = split("x", x)
        assert values is x
        assert mask is None


@pytest.mark.parametrize("shape", [(6, 2), (4, 6, 2), (3, 4, 6, 1)])
def test_steps_are_missing_as_a_whole(shape: tuple[int, ...]) -> None:
    x = torch.randn(*shape)
    x[..., 2, 0] = NAN
    values, mask = observed_steps("x", x)
    assert mask is not None
    assert mask.shape == shape[:-1]
    expected = torch.ones(shape[:-1], dtype=torch.bool)
    expected[..., 2] = False
    assert (mask == expected).all()
    assert (values[..., 2, :] == 0).all()
    assert (values[mask] == x[mask]).all()


@pytest.mark.parametrize(("places", "columns"), [([0, 1], 1), ([0], 2), ([1], 2)])
def test_values_are_missing_one_by_one_or_as_a_step(places: list[int], columns: int) -> None:
    y = torch.randn(4, 6, 2)
    y[1, 3, places] = NAN
    values, mask = observed_values("y", y)
    assert mask is not None
    assert mask.shape == (4, 6, columns)
    assert (mask.expand_as(y) == ~y.isnan()).all()
    assert (values == y.nan_to_num(nan=0.0)).all()


def test_counting() -> None:
    y = torch.zeros(4, 6, 2)
    assert count_observed(y) == 48
    y[0] = NAN
    assert count_observed(y) == 36
    assert count_observed(torch.full((2,), NAN)) == 1  # to divide by
    assert count_observed(torch.zeros(3, dtype=torch.long)) == 3


@pytest.mark.parametrize("split", [observed_steps, observed_values])
@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinities_are_refused_with_their_place(split: object, value: float) -> None:
    x = torch.full((4, 6, 2), NAN)
    x[1, 2, 1] = value
    with pytest.raises(InputError, match=r"x: expected finite values, or NaN .* at \(1, 2, 1\)"):
        split("x", x)  # type: ignore[operator]


def test_a_model_says_that_it_reads_missing_values() -> None:
    model = StateSpace(2)
    assert reads_missing(model)
    assert reads_missing(kl_weight(deterministic(model), 0.5))
    assert not reads_missing(Regression(2))
    assert not reads_missing(NeuronGuide(model))
    assert not reads_missing(lambda x: None)
