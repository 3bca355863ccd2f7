"""The share of memory in the loss: rule and notes by hand, and training that holds it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.guides.markov import StructuredPosterior
from torch import Tensor, nn

from pyro_vdn.control import (
    FreeBits,
    KLSchedule,
    PersistenceShare,
    ScaleGuard,
    Thermostat,
    compose,
    has_memory,
    share_weight,
    watch,
)
from pyro_vdn.errors import InputError
from pyro_vdn.infer import SVI, LocalELBO, PACmELBO
from pyro_vdn.nn import AutoregressiveNormal, LearnedNormal, VariationalNeurons
from pyro_vdn.nn.chain import GaussianChain
from pyro_vdn.poutine import autoregressive_cost, kl_weight
from pyro_vdn.testing import NeuronStack, same_state
from pyro_vdn.testing.sequences import TrackingModel, slow_signal
from pyro_vdn.train import ControlCallback, FitOptions, fit

E = math.e
RULE: dict[str, Any] = {
    "target": 0.2,
    "cap": 0.5,
    "rate": 0.5,
    "release": 0.25,
    "bounds": (0.01, 10.0),
}


@pytest.mark.parametrize(
    ("weight", "ratio", "new"),
    [
        (1.0, 0.25, 1.0),  # odds of 0.2
        (0.5, 0.5, 0.5),
        (1.0, 0.25 / E**0.5, E**0.25),  # half a nat of odds too little
        (1.0, 0.25 * E**0.5, E**-0.25),
        (1.0, 0.25 / E**2, E**0.5),  # at most one
        (1.0, 0.99, E**-0.5),  # just below the cap
        (1.0, 1.01, 0.25 / 1.01),  # above it, at once
        (8.0, 0.5, 0.5),
        (10.0, 0.26, 0.25 / 0.26),
        (5.0, 0.026, 6.9337525),  # 5 (0.25 / 0.13)^(1/2)
        (9.0, 0.026, 9.3026051),
        (1.0, 0.0249, 0.25),  # not even 10 would do: released
        (10.0, 0.0, 2.5),
        (0.02, 1e-9, 0.01),  # down to the least weight
        (1.0, 1e9, 0.01),
        (1.0, math.nan, 1.0),
        (1.0, math.inf, 1.0),
        (20.0, math.nan, 10.0),  # what lies outside comes back
    ],
)
def test_rule(weight: float, ratio: float, new: float) -> None:
    mine = share_weight(torch.tensor(weight), torch.tensor(ratio), **RULE)
    assert mine.item() == pytest.approx(new, rel=1e-6)


def by_hand(model: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the plain KL and the absolute log-likelihood of what was drawn last."""
    terms = LocalELBO().terms(model, NeuronGuide(model), x, y)
    kl = sum(values.sum() for values in terms.kl.values())
    return torch.as_tensor(kl).detach(), terms.log_likelihood["y"].sum().abs().detach()


def remote(steps: Any = "parallel", **kwargs: Any) -> TrackingModel:
    """A model whose readout is so far off that its likelihood hardly depends on the draws."""
    torch.manual_seed(4)
    model = TrackingModel(torch.tensor([0.9, 0.5]), steps=steps, **kwargs)
    with torch.no_grad():
        model.readout.weight.mul_(1e-6)
        model.readout.bias.fill_(3.0)
    return model


@pytest.mark.parametrize("steps", ["parallel", "markov"])
@pytest.mark.parametrize(
    "loss",
    [
        LocalELBO(),
        LocalELBO(num_particles=3),
        LocalELBO(num_particles=2, vectorize_particles=False),
        pyro.infer.Trace_ELBO(),
        pyro.infer.TraceMeanField_ELBO(),
        PACmELBO(num_particles=2),
    ],
    ids=lambda loss: f"{type(loss).__name__} {loss.num_particles}",
)
def test_the_share_is_that_of_the_loss(steps: Any, loss: Any) -> None:
    model, (x, y) = remote(steps), slow_signal(5, 6)
    kl, likelihood = by_hand(remote(), x, y)
    share = PersistenceShare(model, initial_weight=0.5, every=1, rate=1e-12, release=1.0, cap=0.9)
    controlled = share.wrap(model)
    with watch(share):
        loss.loss_and_grads(controlled, NeuronGuide(controlled), x, y)
    assert share.share == pytest.approx(float(0.5 * kl / (0.5 * kl + likelihood)), rel=1e-4)


def test_other_weights_and_subsamples_count_as_in_the_loss() -> None:
    class Subsampled(TrackingModel):
        def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
            with pyro.poutine.scale(scale=7.0):
                return super().forward(x, y)

    torch.manual_seed(4)
    model = Subsampled(torch.tensor([0.9, 0.5]))
    with torch.no_grad():
        model.readout.weight.mul_(1e-6)
    x, y = slow_signal(5, 6)
    per_unit = torch.tensor([0.5, 2.0])
    outer = kl_weight(model, {"neurons": per_unit})
    share = PersistenceShare(model, initial_weight=0.5, every=1, rate=1e-12, release=1.0, cap=0.9)
    controlled = share.wrap(outer)
    terms = LocalELBO().terms(outer, NeuronGuide(outer), x, y)
    kl, likelihood = 0.5 * terms.kl["neurons"].sum(), terms.log_likelihood["y"].sum().abs()
    with watch(share):
        LocalELBO().loss_and_grads(controlled, NeuronGuide(controlled), x, y)
    assert share.share == pytest.approx(float((kl / (kl + likelihood)).detach()), rel=1e-4)


def test_batches_between_two_acts_are_averaged_and_others_not_noted() -> None:
    model, (x, y) = remote(), slow_signal(4, 6)
    share = PersistenceShare(model, every=2, momentum=0.5, rate=1e-12, release=1.0, cap=0.9)
    controlled = share.wrap(model)
    ratios = []
    for step in range(4):
        batch = x * (step + 1), y * (step + 1)
        kl, likelihood = by_hand(model, *batch)
        ratios.append(float((kl / likelihood).log()))
        with watch(share):
            LocalELBO().loss_and_grads(controlled, NeuronGuide(controlled), *batch)
        with torch.no_grad():  # an evaluation between two steps
            LocalELBO().loss(controlled, NeuronGuide(controlled), 9 * x, 9 * y)
    expected = 0.5 * ratios[1] + 0.5 * ratios[3]
    assert float(share.memory["log_ratio"][""]) == pytest.approx(expected, rel=1e-4)


class Windows(PyroModule):
    """Neurons without memory on two windows of a series."""

    def __init__(self) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(1, 3)
        self.readout = nn.Linear(3, 1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        with pyro.plate("rows", len(x), dim=-3), pyro.plate("time", x.shape[-2], dim=-2):
            z = self.neurons(x)
            return pyro.sample("y", dist.Normal(self.readout(z), 0.3), obs=y)


@pytest.mark.parametrize("loss", [LocalELBO(), pyro.infer.Trace_ELBO()])
def test_the_share_of_a_penalty(loss: Any) -> None:
    model, (x, y) = Windows(), slow_signal(5, 6)
    with torch.no_grad():
        model.readout.weight.mul_(1e-6)
    cost = autoregressive_cost(0.95, scale=0.3)
    q = model.neurons.posterior(x)
    paid = 0.5 * 5 * 6 * cost(q, q).sum().detach()
    _, likelihood = by_hand(model, x, y)
    share = PersistenceShare(
        model, cost, initial_weight=0.5, every=1, rate=1e-12, release=1.0, cap=0.9
    )
    controlled = share.wrap(model)
    with watch(share):
        loss.loss_and_grads(controlled, NeuronGuide(controlled), x, y)
    assert share.share == pytest.approx(float(paid / (paid + likelihood)), rel=1e-4)


def test_a_weight_changes_the_share_at_once() -> None:
    model, (x, y) = remote(), slow_signal(5, 6)
    share = PersistenceShare(model, every=1, initial_weight=5.0, target=0.01, cap=0.02)
    controlled = share.wrap(model)
    assert share.share is None
    with watch(share):
        LocalELBO().loss_and_grads(controlled, NeuronGuide(controlled), x, y)
    assert share.share == pytest.approx(0.01)  # it was above the cap
    kl, likelihood = by_hand(controlled, x, y)
    assert float(kl / (kl + likelihood)) == pytest.approx(0.01, rel=1e-3)


Track = Callable[[float], tuple[Any, PersistenceShare]]


def of_kl(weight: float) -> tuple[Any, PersistenceShare]:
    model = TrackingModel(
        torch.tensor([0.98, 0.9, 0.5]), posterior=StructuredPosterior(), learn=True
    )
    return model, PersistenceShare(model, initial_weight=weight)


def of_penalty(weight: float) -> tuple[Any, PersistenceShare]:
    model = Windows()
    return model, PersistenceShare(model, autoregressive_cost(scale=0.3), initial_weight=weight)


@pytest.mark.parametrize("make", [of_kl, of_penalty])
@pytest.mark.parametrize("weight", [10.0, 0.01])
def test_training_holds_the_target_from_both_sides(make: Track, weight: float) -> None:
    x, y = slow_signal(16, 20)
    model, share = make(weight)
    controlled = share.wrap(model)
    svi = SVI(controlled, NeuronGuide(controlled), pyro.optim.Adam({"lr": 2e-2}), LocalELBO())
    shares = []
    for step in range(200):
        with watch(share):
            svi.step(x, y)
        if step % 5 == 4:
            terms = LocalELBO().terms(controlled, NeuronGuide(controlled), x, y)
            layer = (terms.kl if share.cost is None else terms.penalty)["neurons"].sum()
            likelihood = terms.log_likelihood["y"].sum().abs()
            shares.append(float((layer / (layer + likelihood)).detach()))
    assert weight > 1 or shares[0] < 0.1
    assert sum(shares[-10:]) / 10 == pytest.approx(0.2, abs=0.03)
    assert sum(one > 0.3 for one in shares) <= 6  # never above the cap for long
    assert max(shares[8:]) < 0.3
    assert 0.02 < share.weight.item() < 5.0


def test_a_term_that_is_gone_is_released_and_comes_back() -> None:
    x, y = slow_signal(8, 20)
    model = TrackingModel(torch.tensor([0.9]), posterior=StructuredPosterior(), noise=1.0)
    share = PersistenceShare(model, initial_weight=50.0, bounds=(1e-3, 50.0), every=2)
    controlled = share.wrap(model)
    svi = SVI(controlled, NeuronGuide(controlled), pyro.optim.Adam({"lr": 5e-2}), LocalELBO())
    for _ in range(150):
        with watch(share):
            svi.step(x, y)
    assert share.weight.item() < 5.0
    assert share.share is not None
    assert share.share > 0.02


def test_state_continues_bit_for_bit() -> None:
    batches = [slow_signal(4, 5) for _ in range(12)]

    def train(model: Any, share: PersistenceShare, part: Any) -> None:
        controlled = share.wrap(model)
        guide = NeuronGuide(controlled)
        for x, y in part:
            with watch(share):
                model.zero_grad()
                LocalELBO().loss_and_grads(controlled, guide, x, y)
                with torch.no_grad():
                    for parameter in model.parameters():
                        if parameter.grad is not None:
                            parameter.sub_(1e-3 * parameter.grad)

    def make() -> tuple[Any, PersistenceShare]:
        torch.manual_seed(1)
        model = TrackingModel(torch.tensor([0.9, 0.5]))
        return model, PersistenceShare(model, every=3, initial_weight=0.05)

    model, share = make()
    train(model, share, batches[:7])
    saved = {name: value.clone() for name, value in model.state_dict().items()}
    state = share.state_dict()
    pyro.set_rng_seed(5)
    train(model, share, batches[7:])
    other, fresh = make()
    other.load_state_dict(saved)
    live = fresh.weight
    fresh.load_state_dict(state)
    assert fresh.weight is live
    pyro.set_rng_seed(5)
    train(other, fresh, batches[7:])
    assert same_state(fresh.state_dict(), share.state_dict())
    assert same_state(other.state_dict(), model.state_dict())
    assert share.weight.item() != 0.05


def test_it_steers_inside_fit() -> None:
    data = slow_signal(24, 8), slow_signal(8, 8)
    torch.manual_seed(1)
    model = TrackingModel(torch.tensor([0.9, 0.5]))
    share = compose(PersistenceShare(model, every=2, initial_weight=0.01), ScaleGuard(model))
    options = FitOptions(max_steps=30, evaluate_every=30, accelerator="cpu")
    fit(
        share.wrap(model),
        *data,
        options=options,
        loss=LocalELBO(),
        callbacks=[ControlCallback(share)],
    )
    own = share.controllers[0]
    assert isinstance(own, PersistenceShare)
    assert own.step == 30
    assert own.weight.item() > 0.05


def test_a_model_without_its_effects_is_refused() -> None:
    model, (x, y) = remote(), slow_signal(3, 4)
    share = PersistenceShare(model, every=1)
    with (
        pytest.raises(
            InputError, match="expected a model wrapped in the effects of its controller"
        ),
        watch(share),
    ):
        LocalELBO().loss_and_grads(model, NeuronGuide(model), x, y)
    half = kl_weight(model, {"neurons": share.weight})  # weighted, but nothing is noted
    with (
        pytest.raises(
            InputError, match="expected a model wrapped in the effects of its controller"
        ),
        watch(share),
    ):
        LocalELBO().loss_and_grads(half, NeuronGuide(half), x, y)
    with pytest.raises(InputError, match="PersistenceShare: expected a step of the model that it"):
        share.observe({"neurons": remote_record(model, x)})


def remote_record(model: Any, x: Tensor) -> Any:
    from pyro_vdn.poutine import record

    with record() as seen:
        NeuronGuide(model)(x)
    return seen["neurons"]


class ByHand(nn.Module):
    """A chain as a user writes it."""

    def forward(self, h: Tensor) -> GaussianChain:
        return GaussianChain(torch.full((1, 2, 1), 0.5), None, torch.ones(h.shape[-2], 2))


def test_which_layers_have_memory() -> None:
    assert has_memory(VariationalNeurons(3, 2, prior=AutoregressiveNormal(2)))
    assert has_memory(VariationalNeurons(3, 2, prior=ByHand()))
    assert not has_memory(VariationalNeurons(3, 2, prior=LearnedNormal()))
    hyper = AutoregressiveNormal(2, phi=dist.Uniform(0.0, 1.0), scale=dist.LogNormal(0.0, 1.0))
    assert has_memory(VariationalNeurons(3, 2, prior=hyper))


def test_layers_without_memory_are_refused() -> None:
    with pytest.raises(InputError, match=r"model: expected layers with memory.*'layers.0' without"):
        PersistenceShare(NeuronStack())
    mixed = nn.ModuleDict(
        {
            "plain": VariationalNeurons(3, 2),
            "slow": VariationalNeurons(3, 2, prior=AutoregressiveNormal(2)),
        }
    )
    assert list(PersistenceShare(mixed).layers) == ["slow"]
    with pytest.raises(InputError, match=r"model: expected layers with memory.*'plain' without"):
        PersistenceShare({name: mixed[name] for name in mixed})
    assert list(PersistenceShare(mixed, autoregressive_cost(scale=0.3)).layers) == ["plain", "slow"]


def test_who_it_goes_with() -> None:
    model = remote()
    penalty = autoregressive_cost(scale=0.3)
    with pytest.raises(InputError, match="one controller that holds the share of memory"):
        compose(PersistenceShare(model), PersistenceShare(model, penalty))
    for pair in (
        (Thermostat(model), PersistenceShare(model)),
        (PersistenceShare(model), Thermostat(model)),
    ):
        with pytest.raises(InputError, match="one controller that regulates the KL weights of lay"):
            compose(*pair)
    others = Thermostat(model), KLSchedule(model, lambda step: 1.0), FreeBits(model)
    assert len(compose(PersistenceShare(model, penalty), *others).controllers) == 4


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"target": 0.0}, "target: expected a number above 0, got 0.0"),
        ({"target": 0.4}, "target: expected less than cap = 0.3, got 0.4"),
        ({"cap": 1.0}, "cap: expected a number of at least 0 and at most 0.99, got 1.0"),
        ({"rate": 0.0}, "rate: expected a number above 0, got 0.0"),
        ({"release": 1.5}, "release: expected a number above 0 and at most 1, got 1.5"),
        ({"bounds": (0.0, 1.0)}, r"bounds\[0\]: expected a number above 0"),
        ({"bounds": (2.0, 1.0)}, r"bounds\[0\]: expected less than bounds\[1\]"),
        ({"initial_weight": 20.0}, "initial_weight: expected a number of at least"),
        ({"momentum": 0.0}, "momentum: expected a number above 0"),
    ],
)
def test_bad_settings(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=f"^{text}"):
        PersistenceShare(remote(), **settings)
