"""Minibatches through the plate, with a global latent in the model."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroSample
from pyro_vdn.guides import NeuronGuide, without_neurons
from torch import Tensor, nn

from pyro_vdn.errors import InputError, OneSidedEffectError
from pyro_vdn.infer import LocalELBO, PACmELBO
from pyro_vdn.nn import VariationalNeurons
from pyro_vdn.nn.normals import ShiftedNormal
from pyro_vdn.poutine import deterministic, kl_weight
from pyro_vdn.testing import hand_written_guide, loss_and_grads, randomise
from pyro_vdn.testing.cases import NeuronStack

FULL, BATCH = 12, 3


class Subsampled(PyroModule):
    """Rows in a plate that subsamples, and a global shift of the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(4, 3)
        self.readout = nn.Linear(3, 2)
        self.shift = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self, x: Tensor, y: Tensor, rows: Tensor) -> None:
        shift = self.shift
        with pyro.plate("data", len(x), subsample=rows, dim=-2):
            loc = self.readout(self.neurons(x[rows])) + shift
            pyro.sample("y", dist.Normal(loc, 0.5), obs=y[rows])


def make_case() -> tuple[Subsampled, NeuronGuide, nn.Module, Tensor, Tensor]:
    model, x, y = Subsampled(), torch.randn(FULL, 4), torch.randn(FULL, 2)
    guide = NeuronGuide(model, others=AutoNormal(without_neurons(model), init_scale=0.3))
    guide(x, y, torch.arange(FULL))
    randomise(model)
    return model, guide, nn.ModuleList([model, guide]), x, y


def same_noise_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every row, in whatever batch, the same draw, and the shift its own."""
    from pyro.distributions import torch as wrapped

    noise = torch.randn(3, generator=torch.Generator().manual_seed(1))

    def rsample(self: Any, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        shape = self._extended_shape(sample_shape)
        draw = noise.expand(shape) if shape else noise[0]
        return self.loc + self.scale * draw

    for normal in (wrapped.Normal, ShiftedNormal):
        monkeypatch.setattr(normal, "rsample", rsample)


LOSSES: dict[str, Any] = {
    "local": lambda: LocalELBO(),
    "predictive": lambda: PACmELBO(1, max_plate_nesting=2),
    "stock": lambda: TraceMeanField_ELBO(),
    "stock, sampled": lambda: Trace_ELBO(),
}


@pytest.mark.parametrize("weight", [1.0, 0.2])
@pytest.mark.parametrize("name", LOSSES)
def test_minibatch_gradient_is_unbiased(
    name: str, weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, guide, whole, x, y = make_case()
    same_noise_everywhere(monkeypatch)
    model = kl_weight(base, weight)
    guide = NeuronGuide(model, others=guide.others)
    full = loss_and_grads(LOSSES[name](), model, guide, x, y, torch.arange(FULL), of=whole)
    batches = [
        loss_and_grads(LOSSES[name](), model, guide, x, y, rows, of=whole)
        for rows in torch.randperm(FULL).split(BATCH)
    ]
    assert sum(batch.loss for batch in batches) / len(batches) == pytest.approx(
        full.loss, rel=1e-10
    )
    for key, grad in full.grads.items():
        mean = torch.stack([batch.grads[key] for batch in batches]).mean(0)
        torch.testing.assert_close(mean, grad, rtol=1e-9, atol=1e-10)
        assert not torch.allclose(batches[0].grads[key], grad)  # a batch alone is not the whole


def test_minibatch_gradient_is_unbiased_over_its_own_noise() -> None:
    model, guide, whole, x, y = make_case()
    everything = torch.arange(FULL)

    def gradients(rows: Tensor | None, draws: int) -> Tensor:
        collected = []
        for _ in range(draws):
            chosen = torch.randperm(FULL)[:BATCH] if rows is None else rows
            whole.zero_grad()
            LocalELBO().loss_and_grads(model, guide, x, y, chosen)
            collected.append(
                torch.cat([parameter.grad.flatten() for parameter in whole.parameters()])
            )
        return torch.stack(collected)

    pyro.set_rng_seed(2)
    small, full = gradients(None, 500), gradients(everything, 500)
    error = (small.var(0) / 500 + full.var(0) / 500).sqrt()
    assert ((small.mean(0) - full.mean(0)).abs() < 5 * error).all()


@pytest.mark.parametrize("num_particles", [1, 4])
def test_terms_of_a_minibatch(num_particles: int) -> None:
    model, guide, _, x, y = make_case()
    rows = torch.tensor([1, 5, 7])
    loss = LocalELBO(num_particles, max_plate_nesting=2)
    pyro.set_rng_seed(0)
    value = loss.loss(model, guide, x, y, rows)
    pyro.set_rng_seed(0)
    terms = loss.terms(model, guide, x, y, rows)
    assert terms.loss.item() == pytest.approx(value, rel=1e-12)
    assert terms.log_likelihood["y"].shape == (BATCH,)
    assert terms.elbo.item() == pytest.approx(-value, rel=1e-12)  # plates still scale up
    assert terms.others.abs() > 0


def test_a_foreign_guide_gives_its_draws_to_the_single_pass() -> None:
    model = NeuronStack(num_layers=2)
    x, y = torch.randn(5, 4), torch.randn(5, 2)
    # Neurons take the posterior they offer; a guide that draws them by hand changes nothing in law.
    values = torch.tensor(
        [LocalELBO().loss(model, hand_written_guide(model), x, y) for _ in range(300)]
    )
    own = torch.tensor([LocalELBO().loss(model, NeuronGuide(model), x, y) for _ in range(300)])
    error = (values.var() / 300 + own.var() / 300).sqrt()
    assert abs(values.mean() - own.mean()) < 5 * error


# --- refusals of the single pass ---


def test_refuses_a_latent_site_without_a_pathwise_gradient() -> None:
    layer = VariationalNeurons(4, 3)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            layer(x)
            pyro.sample("k", dist.Poisson(torch.ones(len(x), 1)))

    with pytest.raises(InputError, match=r"site 'k': expected an observation or a reparam"):
        LocalELBO().differentiable_loss(model, NeuronGuide(model), torch.ones(2, 4))


def test_refuses_a_guide_site_without_a_pathwise_gradient() -> None:
    layer = VariationalNeurons(4, 3)

    def model(x: Tensor) -> None:
        pyro.sample("k", dist.Poisson(torch.ones(())))
        with pyro.plate("data", len(x), dim=-2):
            layer(x)

    def others(x: Tensor) -> None:
        pyro.sample("k", dist.Poisson(torch.tensor(2.0)))

    guide = NeuronGuide(model, others=others)
    with pytest.raises(InputError, match=r"guide site 'k': expected a reparam.*got Poisson"):
        LocalELBO().differentiable_loss(model, guide, torch.ones(2, 4))


def test_refuses_an_effect_around_the_guide() -> None:
    model, guide, _, x, y = make_case()
    with pytest.raises(OneSidedEffectError, match="Try: `model = effect"):
        LocalELBO().loss(model, deterministic(guide), x, y, torch.arange(3))


def test_refuses_a_local_elbo_that_is_not_there() -> None:
    model, guide, _, x, y = make_case()
    terms = LocalELBO().terms(model, guide, x, y, torch.arange(3))
    with pytest.raises(InputError, match="path: expected a layer with local reconstruction"):
        terms.local_elbo("neurons")
