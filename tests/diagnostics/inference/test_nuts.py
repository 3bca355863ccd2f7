"""A guide against NUTS, where the posterior is known."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import Regression
from scipy.stats import wasserstein_distance

from pyro_vdn.diagnostics import NutsComparison, SiteComparison, compare_with_nuts
from pyro_vdn.diagnostics.inference.nuts_comparison import wasserstein
from pyro_vdn.errors import InputError
from pyro_vdn.poutine import clamp, dropout, kl_weight, scale_noise
from pyro_vdn.testing import ConjugateNeurons, orthogonal_columns

pytestmark = pytest.mark.usefixtures("double")
SMALL: dict[str, Any] = {"num_samples": 150, "warmup": 50, "num_chains": 1, "max_tree_depth": 3}


def conjugate() -> ConjugateNeurons:
    model = ConjugateNeurons(orthogonal_columns(3, 2), torch.randn(3), 0.8)
    model.set_exact_()
    return model


def test_spoiled_guide_is_as_far_from_nuts_as_from_the_exact_posterior() -> None:
    model = conjugate()
    y = model.simulate(1)
    with torch.no_grad():  # one unit is shifted by half its scale, the other has half its scale
        model.neurons.posterior.loc.bias[0] += 0.5 * model.exact_posterior(y).variance[0].sqrt()
    spoiled = scale_noise(model, torch.tensor([1.0, 0.5]))
    spoiled(y)  # its parameters are in the store from here on
    state, store = torch.get_rng_state(), pyro.get_param_store().get_state()
    with torch.no_grad():  # as a caller who reports may have it
        found = compare_with_nuts(spoiled, NeuronGuide(spoiled), y, **SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    assert pyro.get_param_store().get_state()["params"].keys() == store["params"].keys()
    assert all(parameter.grad is None for parameter in model.parameters())
    site = found["neurons.z"]
    assert site.scale_ratio.shape == (1, 2)
    assert (
        ((site.mean_difference[0] - torch.tensor([0.5, 0.0])) / site.mean_error[0]).abs() < 4
    ).all()
    assert (
        ((site.scale_ratio[0] - torch.tensor([1.0, 0.5])) / site.scale_error[0]).abs() < 4
    ).all()
    # Of a normal shifted by 0.5 it is 0.5; of one half as wide, half the mean size of a normal.
    expected = torch.tensor([0.5, 0.5 * math.sqrt(2 / math.pi)])
    assert ((site.wasserstein[0] - expected).abs() < 4 * site.wasserstein_floor[0]).all()
    assert site.wasserstein_floor.max() < 0.2
    assert site.effective_draws.min() > 40
    assert "neurons.z" in str(found)


# --- figures ---


def test_wasserstein_distance_is_that_of_scipy() -> None:
    first, second = torch.randn(40, 2, 3), 0.5 + 2 * torch.randn(70, 2, 3)
    found = wasserstein(first, second)
    for i, j in [(0, 0), (1, 2)]:
        theirs = wasserstein_distance(first[:, i, j].numpy(), second[:, i, j].numpy())
        assert float(found[i, j]) == pytest.approx(theirs, abs=1e-12)


def test_errors_are_those_of_repetition() -> None:
    draws, chains = torch.randn(300, 500), torch.randn(2, 100, 500)
    site = SiteComparison.of(draws, chains)
    assert site.mean_difference.std() == pytest.approx(float(site.mean_error.mean()), rel=0.15)
    assert site.scale_ratio.std() == pytest.approx(float(site.scale_error.mean()), rel=0.15)
    assert site.wasserstein.mean() == pytest.approx(float(site.wasserstein_floor.mean()), rel=0.15)


def test_chains_apart_are_no_reference() -> None:
    chains = torch.randn(2, 200, 3)
    chains[1, :, 2] += 3.0
    site = SiteComparison.of(torch.randn(400, 3), chains)
    assert not NutsComparison({"z": site}, 0).converged
    assert "NUTS has not converged" in str(NutsComparison({"z": site}, 0))
    fine = SiteComparison.of(torch.randn(400, 2), chains[..., :2])
    assert NutsComparison({"z": fine}, 0).converged
    assert not NutsComparison({"z": fine}, 3).converged


def test_chain_that_stands_still_is_no_reference() -> None:
    chains = torch.randn(1, 200, 2)
    fine = SiteComparison.of(torch.randn(400, 2), chains)
    still = SiteComparison.of(torch.randn(400, 2), torch.zeros_like(chains))
    assert not NutsComparison({"a": fine, "b": still}, 0).converged
    assert not NutsComparison({"b": still, "a": fine}, 0).converged


# --- refusals ---


def _discrete(y: torch.Tensor) -> None:
    k = pyro.sample("k", dist.Bernoulli(torch.tensor(0.5)))
    pyro.sample("y", dist.Normal(k, 1.0), obs=y)


def _masked(model: Any) -> Any:
    return pyro.poutine.mask(model, mask=torch.tensor([[True], [False]]))


@pytest.mark.parametrize(
    ("effect", "options", "message"),
    [
        (lambda model: model, {"max_latents": 3}, "expected 1 to 3 latent numbers .* got 4"),
        (lambda model: model, {"num_samples": 3}, "num_samples: expected at least 4, got 3"),
        (lambda model: kl_weight(model, 0.5), {}, "site 'neurons.z': expected a density of weight"),
        (lambda model: clamp(model, {"neurons": {0: 0.0}}), {}, "got fixed, held, dropped or mask"),
        (dropout, {}, "site 'neurons.z': expected a latent site with a density"),
        (lambda model: _masked(model), {}, "site 'neurons.z': expected a latent site with a den"),
        (lambda _: _discrete, {}, "site 'k': expected a continuous latent site, got a Bernoulli"),
    ],
)
def test_refuses_what_nuts_cannot_draw(effect: Any, options: Any, message: str) -> None:
    model = effect(conjugate())
    with pytest.raises(InputError, match=message):
        compare_with_nuts(model, NeuronGuide(model), torch.zeros(2, 3), **options)


def test_refuses_a_model_without_latents() -> None:
    def model(y: torch.Tensor) -> None:
        pyro.sample("y", dist.Normal(0.0, 1.0), obs=y)

    with pytest.raises(InputError, match=r"1 to 300 latent numbers .* got none"):
        compare_with_nuts(model, NeuronGuide(model), torch.tensor(0.0))


def test_refuses_a_guide_that_leaves_something_out() -> None:
    model = Regression(2, num_units=2)
    data = torch.zeros(1, 2), torch.zeros(1, 1)
    with pytest.raises(InputError, match=r"guide: expected a program that draws .*'neurons\.z'"):
        compare_with_nuts(
            model, lambda x, y: None, *data, num_samples=4, warmup=1, num_chains=1, max_tree_depth=1
        )
