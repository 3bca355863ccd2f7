"""The penalty between consecutive steps, against the published formula and against a chain."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.guides.markov import FilteringPosterior, StructuredPosterior
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO
from pyro_vdn.nn import AutoregressiveNormal, NormalPosterior, VariationalNeurons
from pyro_vdn.nn.chain import GaussianChain
from pyro_vdn.poutine import autoregressive_cost, penalize, window_scale
from pyro_vdn.testing import randomise
from pyro_vdn.testing.sequences import TrackingModel

UNITS = 4


class Windows(PyroModule):
    """Ordinary neurons on windows of one series, rows at -3 and windows at -2."""

    def __init__(self, latent_dim: int = 1) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(3, UNITS, latent_dim=latent_dim)
        self.readout = nn.Linear(UNITS, 1)
        randomise(self)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        with pyro.plate("rows", len(x), dim=-3), pyro.plate("time", x.shape[-2], dim=-2):
            z = self.neurons(x)
            return pyro.sample("y", dist.Normal(self.readout(z), 0.5), obs=y)


def loss_and_grads(model: Any, x: Tensor, y: Tensor, bare: Any) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(5)
    loss = LocalELBO().differentiable_loss(model, NeuronGuide(model), x, y)
    grads = torch.autograd.grad(loss, list(bare.parameters()), materialize_grads=True)
    return loss.detach(), list(grads)


@pytest.mark.parametrize("on", ["loc", "sample"])
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_it_is_the_published_penalty(on: Any, weight: float) -> None:
    model, x, y = Windows(), torch.randn(7, 2, 3), torch.randn(7, 2, 1)
    s = 0.25
    cost = autoregressive_cost(0.95, scale=s, on=on, weight=weight)
    loss, grads = loss_and_grads(penalize(model, {"neurons": cost}, name="memory"), x, y, model)
    plain, plain_grads = loss_and_grads(model, x, y, model)

    q = model.neurons.posterior(x)
    previous, current = q.loc.unbind(-2)
    published = ((current - 0.95 * previous) ** 2).mean() / (2 * s**2)
    if on == "sample":
        scale = q.scale.expand(q.loc.shape)
        published = published + (scale**2).mean() * (1 + 0.95**2) / (2 * s**2)
    by_hand = weight * len(x) * UNITS * published  # a row each, a sum over units
    hand_grads = torch.autograd.grad(by_hand, list(model.parameters()), materialize_grads=True)
    torch.testing.assert_close(loss - plain, by_hand.detach())
    for mine, before, theirs in zip(grads, plain_grads, hand_grads, strict=True):
        torch.testing.assert_close(mine - before, theirs)
    assert any(grad.abs().max() > 0.1 for grad in hand_grads)


@pytest.mark.parametrize("time", [2, 3, 6])
def test_a_sequence_pays_the_sum_over_its_pairs(time: int) -> None:
    loc = torch.randn(5, time, UNITS)
    cost = autoregressive_cost(0.9, scale=0.5)(dist.Normal(loc, 1.0), dist.Normal(0.0, 1.0))
    pairs = (loc[:, 1:] - 0.9 * loc[:, :-1]).square() / (2 * 0.5**2)
    torch.testing.assert_close(5 * time * cost, pairs.sum((0, 1)))


def cross_term(q: dist.Distribution, phi: Tensor, s: Tensor, count: int) -> Tensor:
    """Return `-E_q log Normal(z_t; phi z_{t-1}, s^2)` summed over steps after the first."""
    z = q.sample((count,))
    log_prob = dist.Normal(phi * z[..., :-1, :], s).log_prob(z[..., 1:, :])
    return -log_prob.sum((-3, -2)).mean(0)


PHI, SCALE = torch.tensor([0.95, 0.5, -0.3, 0.0]), torch.tensor([0.3, 0.5, 1.0, 0.2])


def posterior_of(name: str) -> dist.Distribution:
    rows, time = 3, 4
    if name == "normal":
        return dist.Normal(torch.randn(rows, time, UNITS), 0.1 + torch.rand(rows, time, UNITS))
    order = 1 if name == "chain" else 3
    return GaussianChain(
        0.4 * torch.rand(rows, time, UNITS, order),
        torch.randn(rows, time, UNITS),
        0.1 + torch.rand(rows, time, UNITS),
    )


@pytest.mark.parametrize("name", ["normal", "chain", "chain of order 3"])
def test_it_is_the_cross_term_of_a_chain(name: str) -> None:
    q, phi, s = posterior_of(name), PHI.double(), SCALE.double()
    cost = autoregressive_cost(phi, scale=s, on="sample")(q, dist.Normal(0.0, 1.0))
    pairs = 3 * 3
    expected = 3 * 4 * cost + pairs * (s.log() + 0.5 * math.log(2 * math.pi))
    torch.testing.assert_close(expected, cross_term(q, phi, s, 200_000), rtol=5e-3, atol=0)


def test_it_is_what_a_chain_of_two_steps_charges_beyond_its_start() -> None:
    """KL to the chain = cost + KL of the start - entropy of the second step, in closed form."""
    q = dist.Normal(torch.randn(3, 2, UNITS), 0.1 + torch.rand(3, 2, UNITS))
    phi, s = PHI.double(), SCALE.double()
    start = torch.full((1, UNITS), 1.3)
    chain = GaussianChain(phi.reshape(1, UNITS, 1), None, torch.cat([start, s.unsqueeze(0)]))
    cost = autoregressive_cost(phi, scale=s, on="sample")(q, chain)
    kl = torch.distributions.kl_divergence(q, chain.expand(torch.Size((3, 2, UNITS))))
    first = dist.Normal(q.loc[:, 0], q.scale[:, 0])
    of_start = torch.distributions.kl_divergence(first, dist.Normal(0.0, start[0]))
    constant = s.log() + 0.5 * math.log(2 * math.pi)
    entropy = dist.Normal(q.loc[:, 1], q.scale[:, 1]).entropy()
    expected = (kl.sum(1) - of_start + entropy - constant).sum(0)
    torch.testing.assert_close(3 * 2 * cost, expected)


def test_latent_dimensions_add_up() -> None:
    loc = torch.randn(5, 3, UNITS, 2)
    q = dist.Normal(loc, 0.5).to_event(1)
    p = dist.Normal(0.0, 1.0)
    for on in ("loc", "sample"):
        cost = autoregressive_cost(PHI.double(), scale=SCALE.double(), on=on)  # type: ignore[arg-type]
        parts = [cost(dist.Normal(loc[..., k], 0.5), p) for k in range(2)]
        torch.testing.assert_close(cost(q, p), parts[0] + parts[1])


def test_a_live_weight_reaches_the_loss() -> None:
    model, x, y = Windows(), torch.randn(4, 2, 3), torch.randn(4, 2, 1)
    weight = torch.tensor(0.0)
    cost = autoregressive_cost(scale=0.3, weight=weight)
    penalised = penalize(model, {"neurons": cost}, name="memory")

    def paid() -> float:
        terms = LocalELBO().terms(penalised, NeuronGuide(penalised), x, y)
        return float(terms.penalty["neurons"].detach().sum())

    assert paid() == 0.0
    weight.fill_(1.0)
    one = paid()
    weight.fill_(2.5)
    assert one > 0
    assert paid() == pytest.approx(2.5 * one)


@pytest.mark.parametrize(
    "make_posterior", [NormalPosterior, FilteringPosterior, StructuredPosterior]
)
def test_beside_a_prior_with_memory(make_posterior: Any) -> None:
    prior = AutoregressiveNormal(2, phi=0.5)
    model = TrackingModel(torch.zeros(2), prior=prior, posterior=make_posterior())
    cost = autoregressive_cost(scale=0.3, on="sample")
    penalised = penalize(model, {"neurons": cost}, name="memory")
    x, y = torch.randn(4, 6, 1), torch.randn(4, 6, 1)
    terms = LocalELBO().terms(penalised, NeuronGuide(penalised), x, y)
    q = model.neurons.posterior
    given = (x, prior(x).expand(torch.Size((4, 6, 2)))) if hasattr(q, "needs_prior") else (x,)
    expected = 4 * 6 * cost(q(*given), prior(x))
    torch.testing.assert_close(terms.penalty["neurons"], expected)


def test_more_particles_pay_the_same() -> None:
    model, x, y = Windows(), torch.randn(4, 3, 3), torch.randn(4, 3, 1)
    penalised = penalize(model, {"neurons": autoregressive_cost(scale=0.3)}, name="memory")
    one, many = (
        LocalELBO(num_particles=count).terms(penalised, NeuronGuide(penalised), x, y).penalty
        for count in (1, 5)
    )
    torch.testing.assert_close(one, many)


@pytest.mark.parametrize(
    ("center", "scale"),
    [
        (0.12, 0.8 * 0.12**0.5),
        (torch.tensor([0.05, 0.15]), 0.8 * 0.1**0.5),
        (0.0, 0.03),
        (0.03**2 / 0.64, 0.03),
        (1.0 / 0.64, 1.0),
        (100.0, 1.0),
    ],
)
def test_window_scale(center: Any, scale: float) -> None:
    assert window_scale(center) == pytest.approx(scale)


@pytest.mark.parametrize("center", [-0.1, math.nan, math.inf])
def test_a_bad_center(center: float) -> None:
    with pytest.raises(InputError, match="center: expected the centre of an energy band"):
        window_scale(center)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, torch.tensor([0.5, 0.0])])
def test_a_bad_scale(scale: Any) -> None:
    with pytest.raises(InputError, match="scale: expected finite innovation scales above 0"):
        autoregressive_cost(scale=scale)


def test_what_it_cannot_be_asked() -> None:
    with pytest.raises(InputError, match="on: expected"):
        autoregressive_cost(scale=0.3, on="mean")  # type: ignore[arg-type]
    unit = dist.Normal(torch.zeros(2, 4), 1.0)
    for shape in ((5, 4), (5, 1, 4)):
        with pytest.raises(
            InputError, match=r"autoregressive_cost: expected neurons of batch shape"
        ):
            autoregressive_cost(scale=0.3)(dist.Normal(torch.zeros(shape), 1.0), unit)


def test_a_loop_over_time_is_refused() -> None:
    model = TrackingModel(torch.tensor([0.5, 0.9]), steps="markov")
    penalised = penalize(model, {"neurons": autoregressive_cost(scale=0.3)}, name="memory")
    with pytest.raises(InputError, match=r"penalty 'memory' of layer 'neurons': .*'neurons.z_0'"):
        penalised(torch.zeros(3, 4, 1))
