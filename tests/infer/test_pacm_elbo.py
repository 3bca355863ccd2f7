"""The predictive objective, sampled and in closed form."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import Regression
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO, PACmELBO
from pyro_vdn.nn import (
    LinearReadout,
    MultivariateNormalLikelihood,
    NormalLikelihood,
    OutputScale,
    StudentTLikelihood,
    VariationalNeurons,
)
from pyro_vdn.poutine import clamp, deterministic, dropout, kl_weight
from pyro_vdn.testing import NeuronStack, loss_and_grads, randomise

ROWS = 6


def make_stack(num_layers: int = 1) -> tuple[NeuronStack, tuple[Tensor, Tensor]]:
    model = NeuronStack(num_layers=num_layers)
    randomise(model)
    return model, (torch.randn(ROWS, 4), torch.randn(ROWS, 2))


def make_regression(**kwargs: Any) -> tuple[Regression, tuple[Tensor, Tensor]]:
    model = Regression(3, 2, num_units=5, initial_scale=0.5, **kwargs)
    randomise(model)
    return model, (torch.randn(ROWS, 3), torch.randn(ROWS, 2))


class Linear(pyro.nn.PyroModule):
    """Neurons read by a linear map into a likelihood of one's choice."""

    def __init__(self, likelihood: Any) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(3, 4)
        self.readout = LinearReadout(4, 2)
        self.likelihood = likelihood

    def forward(self, x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            z = self.neurons(x)
            outcome = self.likelihood(self.readout(z))
            y = y.unsqueeze(-2) if outcome.event_dim else y
            pyro.sample("y", outcome, obs=y, infer=self.readout.offer(z, self.likelihood))


# --- sampled ---


@pytest.mark.parametrize("num_particles", [1, 7])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_equals_log_mean_exp_by_hand(num_layers: int, num_particles: int) -> None:
    model, (x, y) = make_stack(num_layers)
    loss = PACmELBO(num_particles, max_plate_nesting=2)
    mine = loss_and_grads(loss, model, NeuronGuide(model), x, y, of=model)
    model.zero_grad()
    pyro.set_rng_seed(0)
    h, kl = model.encode(x), torch.zeros(())
    for layer in model.neuron_layers:
        q = layer.posterior(h)
        lead = (num_particles,) if num_particles > 1 else ()
        shape = (*lead, ROWS, 3)
        z = q.mean + q.stddev * torch.normal(torch.zeros(shape), torch.ones(shape))
        each = 0.5 * (q.mean**2 + q.variance - q.variance.log() - 1)
        kl = kl + each.expand(shape).sum() / num_particles
        h = torch.tanh(z)
    rows = dist.Normal(model.readout(h), model.noise).log_prob(y).sum(-1)
    if num_particles > 1:
        rows = rows.exp().mean(0).log()
    by_hand = kl - rows.sum()
    by_hand.backward()
    assert mine.loss == pytest.approx(by_hand.item(), rel=1e-10)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(mine.grads[name], parameter.grad, rtol=1e-9, atol=1e-10)


def test_one_particle_is_the_elbo() -> None:
    model, data = make_stack(2)
    mine = loss_and_grads(PACmELBO(1), model, NeuronGuide(model), *data, of=model)
    elbo = loss_and_grads(LocalELBO(1), model, NeuronGuide(model), *data, of=model)
    assert mine.loss == pytest.approx(elbo.loss, rel=1e-12)
    torch.testing.assert_close(mine.grads, elbo.grads)


def test_plate_nesting_is_found() -> None:
    model, data = make_stack()
    loss = PACmELBO(4)
    loss.loss(model, NeuronGuide(model), *data)
    assert loss.max_plate_nesting == 3


# --- closed form ---

LIKELIHOODS: dict[str, Any] = {
    "normal": lambda: NormalLikelihood(OutputScale(2)),
    "normal, one scale": lambda: NormalLikelihood(OutputScale(2, "shared")),
    "multivariate": lambda: MultivariateNormalLikelihood(OutputScale(2), covariance_rank=1),
}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_sampled_converges_to_the_closed_form(name: str) -> None:
    model = Linear(LIKELIHOODS[name]())
    randomise(model)
    x, y = torch.randn(ROWS, 3), torch.randn(ROWS, 2)
    guide = NeuronGuide(model)
    with torch.no_grad():
        exact = PACmELBO(closed_form=True).terms(model, guide, x, y)
        errors = []
        for num_particles in (100, 100_000):
            drawn = PACmELBO(num_particles, max_plate_nesting=2).terms(model, guide, x, y)
            errors.append((drawn.log_likelihood["y"] - exact.log_likelihood["y"]).abs().max())
            torch.testing.assert_close(drawn.kl, exact.kl)
    assert errors[1] < 0.02
    assert errors[0] > 2 * errors[1]


def test_closed_form_draws_no_noise_for_one_layer() -> None:
    model, data = make_regression(likelihood="normal")
    loss = PACmELBO(closed_form=True)
    values = {loss.loss(model, NeuronGuide(model), *data) for _ in range(3)}
    assert len(values) == 1


@pytest.mark.parametrize("likelihood", ["normal", "student_t"])
@pytest.mark.parametrize("joint_weight", [0.0, 0.3, 1.0])
def test_joint_weight(joint_weight: float, likelihood: Any) -> None:
    model, data = make_regression(likelihood=likelihood)
    guide = NeuronGuide(model)

    def at(weight: float) -> Tensor:
        loss = PACmELBO(closed_form=True, joint_weight=weight)
        return loss.terms(model, guide, *data).log_likelihood["y"]

    assert at(joint_weight).shape == (ROWS,)
    blend = joint_weight * at(1.0) + (1 - joint_weight) * at(0.0)
    torch.testing.assert_close(at(joint_weight), blend)
    assert (at(0.0) - at(1.0)).abs().max() > 1e-3


@pytest.mark.parametrize("likelihood", ["normal", "student_t"])
def test_marginal_objective_by_hand(likelihood: Any) -> None:
    model, (x, y) = make_regression(likelihood=likelihood)
    loss = PACmELBO(closed_form=True, joint_weight=0.0, inflation=0.25, variance_weight=0.5)
    terms = loss.terms(model, NeuronGuide(model), x, y)
    q = model.neurons.posterior(model.encoder(x))
    u = q.mean / q.stddev
    standard = dist.Normal(torch.zeros(()), 1.0)
    cdf, density = standard.cdf(u), standard.log_prob(u).exp()
    m = q.mean * cdf + q.stddev * density
    v = (q.mean**2 + q.variance) * cdf + q.mean * q.stddev * density - m**2
    weight = model.readout.linear.weight
    from_neurons = 1.25 * v @ (weight**2).T
    s2 = model.likelihood.scale(None) ** 2
    mean = m @ weight.T + model.readout.linear.bias
    if likelihood == "normal":
        shape = s2 + from_neurons
        log_prob = dist.Normal(mean, shape.sqrt()).log_prob(y)
    else:
        nu = model.likelihood.df()
        shape = s2 + (nu - 2) / nu * from_neurons
        log_prob = dist.StudentT(nu, mean, shape.sqrt()).log_prob(y)
    expected = (log_prob * shape.sqrt()).sum(-1)
    torch.testing.assert_close(terms.log_likelihood["y"], expected)


def test_every_parameter_moves_under_the_closed_form() -> None:
    model, data = make_regression(hidden=(4,))
    loss = PACmELBO(closed_form=True, joint_weight=0.5, inflation=0.25, variance_weight=0.5)
    result = loss_and_grads(loss, model, NeuronGuide(model), *data, of=model)
    assert [name for name, grad in result.grads.items() if not grad.abs().sum() > 0] == []


@pytest.mark.parametrize("effect", [deterministic, lambda m: dropout(m, 0.5)], ids=["twin", "mc"])
def test_closed_form_of_the_twins(effect: Any) -> None:
    base, data = make_regression(likelihood="normal")
    model = effect(base)
    closed = PACmELBO(closed_form=True, joint_weight=0.0)
    mine = loss_and_grads(closed, model, NeuronGuide(model), *data, of=base)
    plain = loss_and_grads(PACmELBO(1), model, NeuronGuide(model), *data, of=base)
    assert mine.loss == pytest.approx(plain.loss, rel=1e-7)
    for name, grad in mine.grads.items():
        torch.testing.assert_close(grad, plain.grads[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("likelihood", ["normal", "student_t"])
def test_weights_of_the_closed_form_hold_for_dropout(likelihood: Any) -> None:
    base, data = make_regression(likelihood=likelihood)
    loss = PACmELBO(closed_form=True, joint_weight=0.3, inflation=0.2, variance_weight=0.5)
    undropped, twin = dropout(base, 0.0), deterministic(base)
    of = {"of": base}
    found = loss_and_grads(loss, undropped, NeuronGuide(undropped), *data, **of)
    expected = loss_and_grads(loss, twin, NeuronGuide(twin), *data, **of)
    assert found.loss == pytest.approx(expected.loss, rel=1e-9)
    for name, grad in found.grads.items():
        torch.testing.assert_close(grad, expected.grads[name])


def test_closed_form_with_earlier_layers_averages_over_them() -> None:
    class Deep(Linear):
        def __init__(self) -> None:
            super().__init__(NormalLikelihood(OutputScale(2)))
            self.first = VariationalNeurons(3, 3)

        def forward(self, x: Tensor, y: Tensor) -> None:
            with pyro.plate("data", len(x), dim=-2):
                z = self.neurons(torch.tanh(self.first(x)))
                offer = self.readout.offer(z, self.likelihood)
                pyro.sample("y", self.likelihood(self.readout(z)), obs=y, infer=offer)

    model = Deep()
    randomise(model)
    x, y = torch.randn(ROWS, 3), torch.randn(ROWS, 2)
    guide = NeuronGuide(model)
    with torch.no_grad():
        half, drawn = (
            PACmELBO(60_000, closed_form=closed, max_plate_nesting=2).terms(model, guide, x, y)
            for closed in (True, False)
        )
    torch.testing.assert_close(
        half.log_likelihood["y"], drawn.log_likelihood["y"], rtol=0, atol=0.03
    )


def test_closed_form_masks_and_scales_rows() -> None:
    model, data = make_regression(likelihood="normal")
    loss = PACmELBO(closed_form=True)
    plain = loss.terms(model, NeuronGuide(model), *data)
    mask = torch.tensor([[True], [False], [True], [True], [False], [True]])
    masked = pyro.poutine.scale(pyro.poutine.mask(model, mask), 0.5)
    terms = loss.terms(masked, NeuronGuide(masked), *data)
    expected = 0.5 * mask.squeeze(-1) * plain.log_likelihood["y"]
    torch.testing.assert_close(terms.log_likelihood["y"], expected)


# --- terms ---

LOSSES: dict[str, Any] = {
    "local": lambda: LocalELBO(),
    "local, 5": lambda: LocalELBO(5, max_plate_nesting=2),
    "local, sequential": lambda: LocalELBO(5, vectorize_particles=False),
    "predictive": lambda: PACmELBO(5, max_plate_nesting=2),
    "closed form": lambda: PACmELBO(closed_form=True),
    "closed form, 5": lambda: PACmELBO(5, closed_form=True, max_plate_nesting=2),
    "closed form, weighted": lambda: PACmELBO(
        closed_form=True, joint_weight=0.4, inflation=0.2, variance_weight=0.5
    ),
}


@pytest.mark.parametrize("weight", [1.0, 0.2])
@pytest.mark.parametrize("name", LOSSES)
def test_terms_sum_to_the_loss(name: str, weight: float) -> None:
    base, data = make_regression()
    model = kl_weight(base, weight)
    guide = NeuronGuide(model)
    pyro.set_rng_seed(0)
    value = LOSSES[name]().loss(model, guide, *data)
    pyro.set_rng_seed(0)
    terms = LOSSES[name]().terms(model, guide, *data)
    assert terms.loss.item() == pytest.approx(value, rel=1e-12)
    assert terms.log_likelihood["y"].shape == (ROWS,)
    assert terms.kl["neurons"].shape == (5,)


@pytest.mark.parametrize("name", ["local", "local, 5", "predictive", "closed form"])
def test_elbo_is_the_elbo_whatever_the_objective(name: str) -> None:
    base, data = make_regression()
    pyro.set_rng_seed(0)
    plain = LocalELBO(LOSSES[name]().num_particles, max_plate_nesting=2)
    expected = plain.loss(base, NeuronGuide(base), *data)
    for weight in (1.0, 0.2):
        model = kl_weight(base, weight)
        pyro.set_rng_seed(0)
        terms = LOSSES[name]().terms(model, NeuronGuide(model), *data)
        assert terms.elbo.item() == pytest.approx(-expected, rel=1e-10)


@pytest.mark.parametrize("num_particles", [1, 4])
def test_local_terms_sum_to_the_loss(num_particles: int) -> None:
    model = NeuronStack(num_layers=2, local_reconstruction=True)
    randomise(model)
    x, y = torch.randn(ROWS, 4), torch.randn(ROWS, 2)
    loss = LocalELBO(num_particles, max_plate_nesting=2)
    pyro.set_rng_seed(0)
    value = loss.loss(model, NeuronGuide(model), x, y)
    pyro.set_rng_seed(0)
    terms = loss.terms(model, NeuronGuide(model), x, y)
    assert terms.loss.item() == pytest.approx(value, rel=1e-12)
    assert {path: tensor.shape for path, tensor in terms.local.items()} == {
        "layers.0": (3,),
        "layers.1": (3,),
    }
    torch.testing.assert_close(
        terms.local_elbo("layers.1"), terms.local["layers.1"] - terms.kl["layers.1"]
    )


# --- refusals ---


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"joint_weight": 1.2}, r"joint_weight: expected a value in \[0, 1\], got 1\.2"),
        ({"variance_weight": -0.1}, r"variance_weight: expected a value in \[0, 1\]"),
        ({"inflation": -0.5}, "inflation: expected at least 0"),
        ({"num_particles": 0}, "num_particles: expected a positive integer, got 0"),
    ],
)
def test_refuses_arguments(kwargs: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        PACmELBO(**kwargs)


def test_refuses_a_closed_form_that_none_offers() -> None:
    model, data = make_stack()
    with pytest.raises(InputError, match="closed_form: expected a likelihood site that offers"):
        PACmELBO(closed_form=True).loss(model, NeuronGuide(model), *data)


@pytest.mark.parametrize("joint_weight", [0.0, 1.0])
def test_refuses_masked_outputs_in_the_joint_alone(joint_weight: float) -> None:
    base, data = make_regression(likelihood="normal")
    model = on_outputs(base, mask=torch.tensor([True, False]))
    loss = PACmELBO(closed_form=True, joint_weight=joint_weight)
    if joint_weight:
        with pytest.raises(InputError, match=r"mask of site 'y': expected a mask of whole rows"):
            loss.loss(model, NeuronGuide(model), *data)
    else:
        assert math.isfinite(loss.loss(model, NeuronGuide(model), *data))


def test_refuses_scaled_outputs() -> None:
    base, data = make_regression(likelihood="normal")
    model = on_outputs(base, scale=torch.tensor([1.0, 0.5]))
    with pytest.raises(InputError, match=r"scale of site 'y': expected a scale of whole rows"):
        PACmELBO(2, max_plate_nesting=2).loss(model, NeuronGuide(model), *data)


class _OnOutputsMessenger(pyro.poutine.messenger.Messenger):
    """Mask or scale the likelihood site alone, per output."""

    def __init__(self, mask: Tensor | None, scale: Tensor | None) -> None:
        super().__init__()
        self.mask, self.scale = mask, scale

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] == "y":
            msg["mask"] = self.mask if self.mask is not None else msg["mask"]
            msg["scale"] = self.scale if self.scale is not None else msg["scale"]


def on_outputs(model: Any, *, mask: Tensor | None = None, scale: Tensor | None = None) -> Any:
    return _OnOutputsMessenger(mask, scale)(model)


def test_student_likelihood_is_offered_too() -> None:
    model = Linear(StudentTLikelihood(OutputScale(2)))
    loss = PACmELBO(closed_form=True)
    x, y = torch.randn(ROWS, 3), torch.randn(ROWS, 2)
    assert math.isfinite(loss.loss(model, NeuronGuide(model), x, y))


# --- which neurons the closed form integrates ---


class Branches(pyro.nn.PyroModule):
    """Two layers of the same width, of which the readout reads the one that runs first or last."""

    def __init__(self, *, reads_last: bool, stacked: bool = False) -> None:
        super().__init__()
        self.first, self.second = VariationalNeurons(3, 3), VariationalNeurons(3, 3)
        self.readout, self.likelihood = LinearReadout(3, 2), NormalLikelihood(OutputScale(2))
        self.reads_last, self.stacked = reads_last, stacked

    def forward(self, x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            first = self.first(x)
            second = self.second(first if self.stacked else x)
            z = second if self.reads_last else first
            offer = self.readout.offer(z, self.likelihood)
            pyro.sample("y", self.likelihood(self.readout(z)), obs=y, infer=offer)


def closed_and_sampled(model: Any) -> tuple[Tensor, Tensor]:
    x, y = torch.randn(ROWS, 3), torch.randn(ROWS, 2)
    with torch.no_grad():
        closed, drawn = (
            PACmELBO(40_000, closed_form=closed, max_plate_nesting=2)
            .terms(model, NeuronGuide(model), x, y)
            .log_likelihood["y"]
            for closed in (True, False)
        )
    return closed, drawn


@pytest.mark.parametrize("reads_last", [True, False])
def test_closed_form_integrates_the_neurons_that_are_read(reads_last: bool) -> None:
    model = Branches(reads_last=reads_last)
    randomise(model)
    closed, drawn = closed_and_sampled(model)
    torch.testing.assert_close(closed, drawn, rtol=0, atol=0.03)


def test_closed_form_of_observed_neurons() -> None:
    base = Branches(reads_last=True, stacked=True)
    randomise(base)
    observed = {"second.z": torch.linspace(-1, 1, ROWS * 3).reshape(ROWS, 3)}
    closed, drawn = closed_and_sampled(pyro.poutine.condition(base, observed))
    torch.testing.assert_close(closed, drawn, rtol=0, atol=0.03)


@pytest.mark.parametrize("hold", [1.5, "mean", "prior"])
def test_closed_form_of_clamped_neurons(hold: Any) -> None:
    base = Linear(NormalLikelihood(OutputScale(2)))
    randomise(base)
    model = clamp(base, {"neurons": {0: hold, 2: "mean"}})
    closed, drawn = closed_and_sampled(model)
    torch.testing.assert_close(closed, drawn, rtol=0, atol=0.03)


class CauchyLike(torch.nn.Module):
    """A posterior that is not normal."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = torch.nn.Linear(3, 4)

    def forward(self, h: Tensor) -> dist.Distribution:
        return dist.StudentT(2.2, self.loc(h), 0.8)


def test_closed_form_samples_what_is_not_normal() -> None:
    model = Linear(NormalLikelihood(OutputScale(2, initial_scale=0.2)))
    model.neurons = VariationalNeurons(3, 4, posterior=CauchyLike())
    x, y = torch.randn(ROWS, 3), torch.randn(ROWS, 2)
    losses = []
    for closed_form in (True, False):
        pyro.set_rng_seed(3)
        objective = PACmELBO(5, closed_form=closed_form, max_plate_nesting=2)
        losses.append(objective.loss(model, NeuronGuide(model), x, y))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_closed_form_refuses_an_offer_of_another_tensor() -> None:
    class Detour(Linear):
        def forward(self, x: Tensor, y: Tensor) -> None:
            with pyro.plate("data", len(x), dim=-2):
                z = self.neurons(x) * 1.0
                offer = self.readout.offer(z, self.likelihood)
                pyro.sample("y", self.likelihood(self.readout(z)), obs=y, infer=offer)

    model = Detour(NormalLikelihood(OutputScale(2)))
    with pytest.raises(InputError, match="one that reads what a layer of neurons passed on"):
        PACmELBO(closed_form=True).loss(
            model, NeuronGuide(model), torch.randn(4, 3), torch.randn(4, 2)
        )
