"""Priors of neurons: the conditional one of low rank, and setting the learned one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from pyro_vdn.errors import InputError
from pyro_vdn.nn import ConditionalNormal, LearnedNormal, VariationalNeurons
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("floor", [1e-3, 0.5])
@pytest.mark.parametrize("latent_dim", [1, 3])
def test_a_learned_prior_is_what_it_is_set_to(
    latent_dim: int, floor: float, dtype: torch.dtype
) -> None:
    learned = LearnedNormal(min_scale=floor)
    layer = VariationalNeurons(WIDTH, UNITS, latent_dim=latent_dim, prior=learned).to(dtype)
    held = dict(learned.named_parameters())
    shape = (UNITS,) if latent_dim == 1 else (UNITS, latent_dim)
    loc = torch.randn(shape, dtype=dtype)
    scale = floor + torch.rand(shape, dtype=dtype)
    learned.assign_(loc.flatten(), scale.flatten())
    found = layer.prior(torch.zeros(2, WIDTH, dtype=dtype))
    torch.testing.assert_close(found.mean, loc)
    torch.testing.assert_close(found.stddev, scale)
    assert found.mean.dtype == dtype
    assert all(value is held[name] for name, value in learned.named_parameters())
    assert all(value.is_leaf and value.requires_grad for value in held.values())


def test_a_learned_prior_keeps_its_floor() -> None:
    learned = LearnedNormal(min_scale=0.25)
    layer = VariationalNeurons(WIDTH, UNITS, prior=learned)
    learned.assign_(torch.ones(UNITS), torch.tensor([0.1, 0.25, 0.2500001, 0.0, 4.0]))
    found = layer.prior(torch.zeros(1, WIDTH)).stddev
    torch.testing.assert_close(
        found, torch.tensor([0.25, 0.25, 0.25, 0.25, 4.0]), atol=2e-6, rtol=0
    )
    assert (found > 0.25).all()
