"""The conditional prior of low rank: its maps, its start, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from pyro_vdn.errors import InputError
from pyro_vdn.nn import ConditionalNormal, VariationalNeurons
from pyro_vdn.testing import randomise

WIDTH, UNITS = 6, 5


def make_prior(rank: int | None, latent_dim: int = 1, **kwargs: Any) -> ConditionalNormal:
    layer = VariationalNeurons(
        WIDTH, UNITS, latent_dim=latent_dim, prior=ConditionalNormal(rank=rank, **kwargs)
    )
    prior = layer.prior
    assert isinstance(prior, ConditionalNormal)
    return prior


@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize("rank", [None, 1, 4])
def test_location_and_scale_are_linear_in_the_input(rank: int | None, latent_dim: int) -> None:
    prior, h = make_prior(rank, latent_dim), torch.randn(2, 7, WIDTH)
    randomise(prior)
    weights = dict(prior.named_parameters())
    read = h if rank is None else h @ weights["read.weight"].T
    loc = read @ weights["loc.weight"].T + weights["loc.bias"]
    raw = read @ weights["raw_scale.weight"].T + weights["raw_scale.bias"]
    found = prior(h)
    shape = (2, 7, UNITS) if latent_dim == 1 else (2, 7, UNITS, latent_dim)
    assert found.batch_shape + found.event_shape == shape
    assert found.event_dim == (latent_dim > 1)
    torch.testing.assert_close(found.mean, loc.reshape(shape))
    torch.testing.assert_close(found.stddev, (1e-3 + F.softplus(raw)).reshape(shape))


@pytest.mark.parametrize("rank", [None, 1, 4])
def test_the_number_of_parameters(rank: int | None) -> None:
    size = rank or WIDTH
    expected = (0 if rank is None else WIDTH * rank) + 2 * UNITS * (size + 1)
    assert sum(p.numel() for p in make_prior(rank).parameters()) == expected


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("initial_scale", [0.2, 1.0])
def test_it_starts_as_one_normal_for_all(initial_scale: float, rank: int | None) -> None:
    found = make_prior(rank, initial_scale=initial_scale)(torch.randn(50, WIDTH))
    torch.testing.assert_close(found.stddev, torch.full((50, UNITS), initial_scale))
    assert found.mean.abs().max() < 0.2
    assert found.mean.abs().max() > 0


def test_a_rank_is_positive() -> None:
    with pytest.raises(InputError, match=r"^rank: expected"):
        ConditionalNormal(rank=0)
