"""Learned priors set to the moments of what the neurons do."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from torch import Tensor, nn

from pyro_vdn.control import match_priors
from pyro_vdn.errors import InputError
from pyro_vdn.nn import (
    ConditionalNormal,
    LearnedNormal,
    NormalPosterior,
    StandardNormal,
    VariationalNeurons,
)
from pyro_vdn.poutine import LayerRecord, PosteriorMessenger, kl_weight, record, scale_noise
from pyro_vdn.testing import randomise

ROWS, WIDTH, UNITS = 64, 3, 4
X = torch.linspace(-2, 2, ROWS * WIDTH, dtype=torch.float64).sin().reshape(ROWS, WIDTH)


def make_layer(latent_dim: int = 1, prior: nn.Module | None = None) -> VariationalNeurons:
    torch.manual_seed(5)
    layer = VariationalNeurons(
        WIDTH,
        UNITS,
        latent_dim=latent_dim,
        prior=LearnedNormal() if prior is None else prior,
        posterior=NormalPosterior("input"),
    )
    randomise(layer)
    return layer


def seen_of(program: Any, x: Tensor = X) -> Any:
    with record() as seen, torch.no_grad(), PosteriorMessenger():
        program(x)
    return seen


def mean_kl(layer: VariationalNeurons) -> Tensor:
    """Return the KL of each unit, averaged over rows and written out, `(units,)`."""
    with torch.no_grad():
        q, p = layer.posterior(X), layer.prior(X)
        ratio = q.variance / p.variance
        kl = 0.5 * (ratio + (q.mean - p.mean).square() / p.variance - 1 - ratio.log())
    return kl.reshape(ROWS, UNITS, -1).sum(-1).mean(0)


@pytest.mark.parametrize("latent_dim", [1, 3])
def test_no_normal_prior_is_nearer(latent_dim: int) -> None:
    layer = make_layer(latent_dim)
    before = mean_kl(layer)
    match_priors(layer, seen_of(layer))
    best, prior = mean_kl(layer), layer.prior
    assert (best < before).all()
    p = prior(X)
    loc, scale = p.mean.detach().clone(), p.stddev.detach().clone()
    for latent in range(loc.numel()):
        for step in (-1e-2, 1e-2):
            change = torch.zeros(loc.numel())
            change[latent] = step
            change = change.reshape(loc.shape)
            for moved in ((loc + change, scale), (loc, scale * (1 + change))):
                prior.assign_(*moved)
                worse = mean_kl(layer) - best
                unit = latent // latent_dim
                assert worse[unit] > 1e-8
                assert worse.abs().sum() - worse[unit] < 1e-10


def test_it_is_the_mean_and_the_spread_of_all_that_units_do() -> None:
    layer = make_layer()
    seen = LayerRecord()
    loc = torch.tensor([[1.0] * UNITS, [3.0] * UNITS])
    seen.update(loc, torch.full((2, UNITS), 2.0), torch.zeros(2, UNITS), torch.ones(UNITS))
    match_priors({"any": layer}, {"any": seen})
    found = layer.prior(X)
    torch.testing.assert_close(found.mean, torch.full((UNITS,), 2.0))
    torch.testing.assert_close(found.stddev, torch.full((UNITS,), math.sqrt(1 + 4)))


class Two(nn.Module):
    """A learned prior below another kind."""

    def __init__(self, above: nn.Module) -> None:
        super().__init__()
        self.below = make_layer()
        self.above = VariationalNeurons(UNITS, 2, prior=above)

    def forward(self, x: Tensor) -> Tensor:
        drawn: Tensor = self.above(self.below(x))
        return drawn


@pytest.mark.parametrize("kind", [StandardNormal, ConditionalNormal])
def test_other_priors_are_left_alone(kind: Any) -> None:
    model = Two(kind())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    match_priors(model, seen_of(model))
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert changed == {"below.prior.loc", "below.prior.raw_scale"}


def test_effects_around_a_model_count() -> None:
    plain, noisy = make_layer(), make_layer()
    program = kl_weight(scale_noise(noisy, 3.0), 0.0)
    with record() as seen, torch.no_grad():
        NeuronGuide(program)(X)
    match_priors(program, seen)
    match_priors(plain, seen_of(plain))
    own, other = noisy.prior(X), plain.prior(X)
    torch.testing.assert_close(own.mean, other.mean)
    spread = make_layer().posterior(X).variance.mean(0)
    torch.testing.assert_close(own.variance - other.variance, 8 * spread)


@pytest.mark.parametrize("records", [{}, {"above": LayerRecord()}, {"below": LayerRecord()}])
def test_layers_that_were_not_seen_are_refused(records: dict[str, LayerRecord]) -> None:
    with pytest.raises(InputError, match=r"records: expected what layer 'below' did, got records"):
        match_priors(Two(StandardNormal()), records)


def test_models_without_neurons_are_refused() -> None:
    with pytest.raises(InputError, match="a module with layers of VariationalNeurons"):
        match_priors(nn.Linear(2, 2), {})
