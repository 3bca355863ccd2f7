"""Free bits: the cost against tables worked by hand, and the loss against max(KL, bits)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
from pyro_vdn.guides import NeuronGuide
from torch import Tensor, nn

from pyro_vdn.control import FreeBits, free_bits_cost
from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO, PACmELBO
from pyro_vdn.nn import LearnedNormal
from pyro_vdn.poutine import kl_weight
from pyro_vdn.testing import NeuronStack, loss_and_grads, posterior_by_hand

Stack = Callable[..., NeuronStack]
WEIGHTS = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("locs", "scale", "bits", "cost"),
    [
        ([0.0], 1.0, 0.5, 0.5),
        ([0.70710678118654757], 1.0, 0.5, 0.25),  # KL 0.25
        ([1.0], 1.0, 0.5, 0.0),  # KL 0.5, just what is free
        ([2.0], 1.0, 0.5, 0.0),
        ([0.0, 1.0], 1.0, 0.5, 0.25),  # of the mean over rows, 0.25
        ([0.0, 2.0], 1.0, 0.5, 0.0),  # its mean, 1, pays for both rows
        ([0.0], 0.5, 0.5, 0.1818528194),  # 0.5 - 0.3181471806
    ],
)
def test_cost(locs: list[float], scale: float, bits: float, cost: float) -> None:
    posterior = dist.Normal(torch.tensor(locs)[:, None], scale)
    mine = free_bits_cost(posterior, dist.Normal(torch.zeros(1), 1.0), bits=bits)
    torch.testing.assert_close(mine, torch.tensor([cost]), rtol=0, atol=1e-9)


def kl_by_hand(model: NeuronStack, x: Tensor) -> Tensor:
    """Mean KL over rows of the first layer, per unit."""
    layer = model.neuron_layers[0]
    h = model.encode(x)
    mu, sigma = posterior_by_hand(layer, h)
    prior = layer.prior(h)
    n, t = prior.mean, prior.variance.sqrt()
    kl = torch.log(t / sigma) + (sigma**2 + (mu - n) ** 2) / (2 * t**2) - 0.5
    return (kl if layer.shape.latent_dim == 1 else kl.sum(-1)).mean(0)


def add(left: dict[str, Tensor], right: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: left[name] + right[name] for name in left}


CASES: dict[str, Callable[[Any, Any], Any]] = {
    "alone": lambda free, model: free.wrap(model),
    "weighted outside": lambda free, model: kl_weight(free.wrap(model), {"layers.0": WEIGHTS}),
    "weighted inside": lambda free, model: free.wrap(kl_weight(model, {"layers.0": WEIGHTS})),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize("make_prior", [None, LearnedNormal])
@pytest.mark.parametrize("particles", [1, 5])
@pytest.mark.parametrize("loss", [LocalELBO, PACmELBO, TraceMeanField_ELBO])
def test_each_unit_pays_the_larger_of_kl_and_bits(
    loss: Any, particles: int, make_prior: Any, latent_dim: int, case: str, stack: Stack
) -> None:
    model, data = stack(latent_dim=latent_dim, make_prior=make_prior), make_data()
    kl = kl_by_hand(model, data[0])
    bits = kl.detach().median().item() + 1e-3  # so that two units pay and one does not
    controlled = CASES[case](FreeBits(model, bits), model)
    weight = torch.ones(3) if case == "alone" else WEIGHTS
    plain = kl_weight(model, {"layers.0": weight})
    options = {"num_particles": particles, "max_plate_nesting": 2}
    if loss is TraceMeanField_ELBO:
        options["vectorize_particles"] = True
    mine = loss_and_grads(loss(**options), controlled, NeuronGuide(controlled), *data, of=model)
    without = loss_and_grads(loss(**options), plain, NeuronGuide(plain), *data, of=model)
    model.zero_grad()
    extra = 6 * (weight * (torch.maximum(kl, torch.tensor(bits)) - kl)).sum()
    extra.backward()  # type: ignore[no-untyped-call]
    grads = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in named(model)}
    assert extra > 1e-3
    assert mine.loss == pytest.approx(without.loss + extra.item(), rel=1e-10)
    torch.testing.assert_close(mine.grads, add(without.grads, grads), rtol=1e-9, atol=1e-9)


def make_data() -> tuple[Tensor, Tensor]:
    return torch.randn(6, 4), torch.randn(6, 2)


def named(model: nn.Module) -> list[tuple[str, Tensor]]:
    return list(model.named_parameters())


def test_below_the_bits_the_kl_has_no_gradient(stack: Stack) -> None:
    model, data = stack(), make_data()
    controlled = FreeBits(model, bits=100.0).wrap(model)

    class NoLikelihood(LocalELBO):
        def log_likelihood(self, run: Any) -> dict[str, Tensor]:
            return {}

    result = loss_and_grads(NoLikelihood(), controlled, NeuronGuide(controlled), *data, of=model)
    assert result.loss == pytest.approx(6 * 3 * 100.0)
    assert all(grad.abs().max() < 1e-12 for grad in result.grads.values())


def test_the_kl_itself_is_reported_as_it_is(stack: Stack) -> None:
    model, data = stack(), make_data()
    controlled = FreeBits(model, bits=100.0).wrap(model)
    pyro.set_rng_seed(0)
    terms = LocalELBO().terms(controlled, NeuronGuide(controlled), *data)
    pyro.set_rng_seed(0)
    plain = LocalELBO().terms(model, NeuronGuide(model), *data)
    torch.testing.assert_close(terms.kl, plain.kl)
    torch.testing.assert_close(terms.elbo, plain.elbo)
    expected = 6 * 100.0 - plain.kl["layers.0"]
    torch.testing.assert_close(terms.penalty["layers.0"], expected)


class StudentT(nn.Module):
    def forward(self, h: Tensor) -> dist.Distribution:
        return dist.StudentT(torch.tensor(4.0), torch.zeros(()), 1.0)


def test_a_kl_without_closed_form_is_refused(stack: Stack) -> None:
    model = stack(make_prior=StudentT)
    controlled = FreeBits(model).wrap(model)
    with pytest.raises(InputError, match=r"FreeBits: expected .* closed form, got ShiftedNormal a"):
        LocalELBO().loss(controlled, NeuronGuide(controlled), *make_data())


@pytest.mark.parametrize("bits", [0.0, -1.0, float("nan")])
def test_bad_bits(bits: float, stack: Stack) -> None:
    with pytest.raises(InputError, match=r"^bits: expected a number above 0"):
        FreeBits(stack(), bits)


def test_there_is_nothing_to_observe_nor_to_change(stack: Stack) -> None:
    model = stack()
    before = {name: value.detach().clone() for name, value in named(model)}
    free = FreeBits(model)
    assert not free.due
    free.observe({})
    free.act()
    assert free.step == 1
    assert all(torch.equal(value, before[name]) for name, value in named(model))
