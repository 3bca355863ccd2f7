"""The neuron guide under Pyro's own tools, and the refusal of one-sided effects."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import (
    MCMC,
    NUTS,
    SVI,
    Importance,
    Predictive,
    RenyiELBO,
    Trace_ELBO,
    TraceMeanField_ELBO,
)
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroSample
from pyro_vdn.guides import NeuronGuide, without_neurons
from torch import Tensor, nn

from pyro_vdn.errors import OneSidedEffectError
from pyro_vdn.infer import LocalELBO
from pyro_vdn.nn import VariationalNeurons
from pyro_vdn.poutine import PosteriorMessenger, clamp, deterministic, dropout, kl_weight
from pyro_vdn.testing import (
    ConjugateNeurons,
    NeuronStack,
    hand_written_guide,
    loss_and_grads,
    orthogonal_columns,
    randomise,
)


def make_stack(num_layers: int = 2, **kwargs: Any) -> NeuronStack:
    model = NeuronStack(num_layers=num_layers, **kwargs)
    randomise(model)
    return model


def make_data(rows: int = 6) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, 4), torch.randn(rows, 2)


class Shifted(PyroModule):
    """A stack of one layer with a global latent shift of the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(4, 3)
        self.readout = nn.Linear(3, 2)
        self.shift = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        shift = self.shift
        with pyro.plate("data", x.shape[-2], dim=-2):
            loc = self.readout(self.neurons(x)) + shift
            return pyro.sample("y", dist.Normal(loc, 0.5), obs=y)


# --- the program ---


def test_draws_have_the_model_sites_and_hide_observations() -> None:
    model, (x, y) = make_stack(), make_data()
    guide = NeuronGuide(model)
    trace = pyro.poutine.trace(guide).get_trace(x, y)
    assert "y" not in trace.nodes
    assert {name for name in trace.nodes if name.endswith(".z")} == {"layers.0.z", "layers.1.z"}
    assert set(guide(x, y)) == {"layers.0.z", "layers.1.z"}


def test_unobserved_likelihood_keeps_its_distribution() -> None:
    model, (x, _) = make_stack(), make_data()
    trace = pyro.poutine.trace(NeuronGuide(model)).get_trace(x)
    assert isinstance(trace.nodes["y"]["fn"], dist.Normal)
    assert not trace.nodes["y"]["is_observed"]


def test_guide_is_the_hand_written_one() -> None:
    model, (x, y) = make_stack(latent_dim=3), make_data()
    traces = []
    for guide in (NeuronGuide(model), hand_written_guide(model)):
        pyro.set_rng_seed(3)
        trace = pyro.poutine.trace(guide).get_trace(x, y)
        trace.compute_log_prob()
        traces.append(trace)
    mine, theirs = traces
    for name in ("layers.0.z", "layers.1.z"):
        torch.testing.assert_close(mine.nodes[name]["value"], theirs.nodes[name]["value"])
        torch.testing.assert_close(mine.nodes[name]["log_prob"], theirs.nodes[name]["log_prob"])


def test_guide_owns_no_parameters_of_the_model() -> None:
    model = make_stack()
    guide = NeuronGuide(model)
    assert list(guide.parameters()) == []
    assert guide.model is model


# --- stock losses ---


@pytest.mark.parametrize("num_particles", [2, 5])
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_renyi_equals_hand_written_guide(alpha: float, num_particles: int) -> None:
    model, data = make_stack(), make_data()
    loss = RenyiELBO(alpha=alpha, num_particles=num_particles)
    mine = loss_and_grads(loss, model, NeuronGuide(model), *data, of=model)
    theirs = loss_and_grads(loss, model, hand_written_guide(model), *data, of=model)
    assert mine.loss == pytest.approx(theirs.loss, rel=1e-10)
    torch.testing.assert_close(mine.grads, theirs.grads)


@pytest.mark.parametrize("loss", [Trace_ELBO, TraceMeanField_ELBO, LocalELBO])
def test_loss_as_a_module(loss: Any) -> None:
    model, data = make_stack(), make_data()
    value = loss()(model, NeuronGuide(model))(*data)
    value.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_training_lowers_the_loss() -> None:
    model, (x, _) = make_stack(), make_data(40)
    y = x[:, :2].sin()
    guide = NeuronGuide(model)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 2e-2}), loss=Trace_ELBO())
    before = svi.evaluate_loss(x, y)
    for _ in range(150):
        svi.step(x, y)
    assert svi.evaluate_loss(x, y) < 0.7 * before


# --- Pyro's tools ---


def test_importance_sampling_estimates_the_evidence() -> None:
    model = ConjugateNeurons(orthogonal_columns(3, 2), torch.zeros(3), 1.0)
    y = model.simulate(1)
    gain = model.weight / (1 + model.weight.square().sum(0))
    with torch.no_grad():
        model.neurons.posterior.loc.weight.copy_(gain.T)
        model.neurons.posterior.loc.bias.zero_()
        model.neurons.posterior.raw_scale.value.fill_(1.0)
    importance = Importance(model, NeuronGuide(model), num_samples=800).run(y)
    weights = torch.stack(list(importance.log_weights)).exp()
    error = weights.std() / len(weights) ** 0.5
    assert abs(weights.mean() - model.log_evidence(y).exp()) < 5 * error


@pytest.mark.parametrize("rows", [6, 11], ids=["training batch", "larger batch"])
@pytest.mark.parametrize("parallel", [False, True], ids=["sequential", "parallel"])
def test_predictive(parallel: bool, rows: int) -> None:
    model, data = make_stack(), make_data()
    guide = NeuronGuide(model)
    SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), loss=Trace_ELBO()).step(*data)
    x = torch.randn(rows, 4)
    sites = ("y", "layers.0.z", "layers.1.z")
    predictive = Predictive(
        model, guide=guide, num_samples=400, parallel=parallel, return_sites=sites
    )
    with torch.no_grad():
        draws = predictive(x)
    assert draws["y"].shape == (400, rows, 2)
    assert draws["layers.1.z"].shape == (400, rows, 3)
    loc, scale = (
        model.neuron_layers[0].posterior(model.encode(x)).mean,
        model.neuron_layers[0].posterior(model.encode(x)).stddev,
    )
    first = draws["layers.0.z"]
    assert ((first.mean(0) - loc).abs() < 5 * scale / 20).all()  # the posterior, not the prior
    torch.testing.assert_close(first.std(0), scale.expand(rows, 3), rtol=0.25, atol=0)


def test_predictive_of_a_clamped_model() -> None:
    model, (x, _) = make_stack(), make_data()
    held = clamp(model, {"layers.1": {0: 1.25}})
    draws = Predictive(held, guide=NeuronGuide(held), num_samples=3, return_sites=("layers.1.z",))(
        x
    )
    assert (draws["layers.1.z"][..., 0] == 1.25).all()
    assert (draws["layers.1.z"][..., 1] != 1.25).all()


def test_predictive_of_the_twin_repeats_itself() -> None:
    model, (x, _) = make_stack(), make_data()
    twin = deterministic(model)
    draws = Predictive(twin, guide=NeuronGuide(twin), num_samples=2, return_sites=("layers.1.z",))(
        x
    )
    torch.testing.assert_close(draws["layers.1.z"][0], draws["layers.1.z"][1])


def test_nuts_samples_the_neurons_of_a_tiny_model() -> None:
    model = ConjugateNeurons(orthogonal_columns(3, 1), torch.zeros(3), 1.0)
    y = model.simulate(2)
    kernel = NUTS(model, jit_compile=False)
    sampler = MCMC(kernel, num_samples=300, warmup_steps=100, disable_progbar=True)
    sampler.run(y)
    draws = sampler.get_samples()["neurons.z"]
    exact = model.exact_posterior(y)
    assert draws.shape == (300, 2, 1)
    deviation = exact.variance.sqrt()
    assert ((draws.mean(0) - exact.mean).abs() < 0.35 * deviation).all()
    torch.testing.assert_close(draws.std(0), deviation.expand(2, 1), rtol=0.3, atol=0)


@pytest.mark.parametrize("run", [lambda m: m, NeuronGuide], ids=["model", "guide"])
def test_replay(run: Callable[..., Any]) -> None:
    model, (x, y) = make_stack(), make_data()
    trace = pyro.poutine.trace(run(model)).get_trace(x, y)
    again = pyro.poutine.trace(pyro.poutine.replay(model, trace=trace)).get_trace(x, y)
    for name in ("layers.0.z", "layers.1.z"):
        assert again.nodes[name]["value"] is trace.nodes[name]["value"]


@pytest.mark.parametrize("intervene", [pyro.poutine.condition, pyro.poutine.do])
def test_condition_and_do(intervene: Any) -> None:
    model, (x, y) = make_stack(), make_data()
    z = torch.linspace(-1, 1, 18).reshape(6, 3)
    trace = pyro.poutine.trace(intervene(model, {"layers.0.z": z})).get_trace(x, y)
    expected = model.neuron_layers[1].posterior(torch.tanh(z)).mean
    offer = trace.nodes["layers.1.z"]["infer"]["vdn_posterior"]
    torch.testing.assert_close(offer().mean, expected)
    assert trace.nodes["layers.0.z"]["is_observed"] == (intervene is pyro.poutine.condition)


def test_block_hides_neurons() -> None:
    model, (x, y) = make_stack(), make_data()
    blocked = pyro.poutine.block(model, hide=["layers.0.z"])
    assert "layers.0.z" not in pyro.poutine.trace(blocked).get_trace(x, y).nodes


def test_mask_and_scale_reach_the_site() -> None:
    model = make_stack()
    mask = torch.tensor([True, False, True])
    program = pyro.poutine.scale(pyro.poutine.mask(model.neuron_layers[0], mask), 0.25)
    plain = pyro.poutine.trace(model.neuron_layers[0])
    pyro.set_rng_seed(1)
    expected = plain.get_trace(torch.ones(6, 3))
    pyro.set_rng_seed(1)
    changed = pyro.poutine.trace(program).get_trace(torch.ones(6, 3))
    for trace in (expected, changed):
        trace.compute_log_prob()
    torch.testing.assert_close(
        changed.nodes["z"]["log_prob"], expected.nodes["z"]["log_prob"] * mask * 0.25
    )


def test_render_model() -> None:
    if importlib.util.find_spec("graphviz") is None:
        pytest.skip("graphviz is not installed")
    model, data = make_stack(), make_data()
    source = pyro.render_model(model, model_args=data, render_distributions=True).source
    assert "layers.0.z" in source
    assert "layers.0.units" in source


def test_enumeration_free_prior_run_evaluates_no_posterior() -> None:
    model, (x, _) = make_stack(1), make_data()
    calls: list[int] = []
    model.neuron_layers[0].posterior.register_forward_hook(lambda *_: calls.append(1))
    model(x)
    assert calls == []
    PosteriorMessenger()(model)(x)
    assert calls == [1]


# --- other latent sites ---


def test_others_keep_their_prior_without_a_guide() -> None:
    model, (x, y) = Shifted(), make_data()
    trace = pyro.poutine.trace(NeuronGuide(model)).get_trace(x, y)
    trace.compute_log_prob()
    shift = trace.nodes["shift"]
    assert shift["log_prob_sum"] == pytest.approx(
        dist.Normal(0.0, 1.0).log_prob(shift["value"]).sum().item()
    )


@pytest.mark.parametrize("num_particles", [1, 5])
def test_others_are_drawn_by_their_guide(num_particles: int) -> None:
    model, data = Shifted(), make_data()
    guide = NeuronGuide(model, others=AutoNormal(without_neurons(model), init_scale=0.3))
    guide(*data)
    whole = nn.ModuleList([model, guide])
    options = {"num_particles": num_particles, "max_plate_nesting": 2, "vectorize_particles": True}
    mine = loss_and_grads(LocalELBO(**options), model, guide, *data, of=whole)

    def by_hand(x: Tensor, y: Tensor) -> None:
        guide.others(x, y)
        with pyro.plate("data", len(x), dim=-2), pyro.plate("neurons.units", 3, dim=-1):
            q = model.neurons.posterior
            scale = q.min_scale + nn.functional.softplus(q.raw_scale.value)
            pyro.sample("neurons.z", dist.Normal(q.loc(x), scale))

    # Both pay `log p - log q` of the shift at its draw; they differ in the KL of the neurons alone.
    theirs = loss_and_grads(Trace_ELBO(**options), model, by_hand, *data, of=whole)
    stock = loss_and_grads(Trace_ELBO(**options), model, guide, *data, of=whole)
    assert stock.loss == pytest.approx(theirs.loss, rel=1e-10)
    torch.testing.assert_close(stock.grads, theirs.grads)
    pyro.set_rng_seed(0)
    terms = LocalELBO(**options).terms(model, guide, *data)
    assert terms.loss.item() == pytest.approx(mine.loss, rel=1e-12)
    kl_exact = terms.kl["neurons"].sum().item()
    sampled = sampled_kl(model, guide, data, num_particles)
    assert mine.loss - kl_exact == pytest.approx(stock.loss - sampled, rel=1e-9)


def sampled_kl(model: Any, guide: Any, data: Any, num_particles: int) -> float:
    pyro.set_rng_seed(0)
    with torch.no_grad(), pyro.plate("num_particles_vectorized", num_particles, dim=-3):
        trace = pyro.poutine.trace(guide).get_trace(*data)
        replayed = pyro.poutine.trace(pyro.poutine.replay(model, trace=trace)).get_trace(*data)
    for one in (trace, replayed):
        one.compute_log_prob()
    ratio = trace.nodes["neurons.z"]["log_prob"] - replayed.nodes["neurons.z"]["log_prob"]
    return float(ratio.sum() / num_particles)


def test_without_neurons_shows_the_others() -> None:
    model, (x, y) = Shifted(), make_data()
    trace = pyro.poutine.trace(without_neurons(model)).get_trace(x, y)
    assert "shift" in trace.nodes
    assert "neurons.z" not in trace.nodes


def test_predictive_with_others() -> None:
    model, (x, y) = Shifted(), make_data()
    guide = NeuronGuide(model, others=AutoNormal(without_neurons(model)))
    SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), loss=Trace_ELBO()).step(x, y)
    draws = Predictive(model, guide=guide, num_samples=5)(x)
    assert draws["y"].shape == (5, 6, 2)


# --- one-sided effects ---

EFFECTS: dict[str, Callable[[Any], Any]] = {
    "weight": lambda m: kl_weight(m, 0.3),
    "weight per unit": lambda m: kl_weight(m, torch.tensor([1.0, 1.0, 0.5])),
    "deterministic": deterministic,
    "dropout": lambda m: dropout(m, 0.3),
    "clamp": lambda m: clamp(m, {"layers.1": {0: 0.5}}),
    "mask": lambda m: pyro.poutine.mask(m, torch.tensor([[True], [False]] * 3)),
    "scale": lambda m: pyro.poutine.scale(m, 0.5),
}
NAMES = {"weight": "scale", "weight per unit": "scale", "scale": "scale", "mask": "mask"}


@pytest.mark.parametrize("num_particles", [1, 3])
@pytest.mark.parametrize("side", ["model", "guide", "guide's model"])
@pytest.mark.parametrize("loss", [Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("name", EFFECTS)
def test_one_sided_effect_is_refused(name: str, loss: Any, side: str, num_particles: int) -> None:
    stack, data, effect = make_stack(), make_data(), EFFECTS[name]
    model = effect(stack) if side == "model" else stack
    guide = NeuronGuide(effect(stack) if side == "guide's model" else stack)
    program = effect(guide) if side == "guide" else guide
    elbo = loss(num_particles=num_particles, vectorize_particles=True, max_plate_nesting=2)
    text = f"expected the same effects on model and guide, got a {NAMES.get(name, 'silenced')}"
    with pytest.raises(OneSidedEffectError, match=text):
        elbo.loss_and_grads(model, program, *data)


@pytest.mark.parametrize("side", ["guide", "guide's model"])
@pytest.mark.parametrize("name", EFFECTS)
def test_effect_on_the_guide_alone_is_refused_by_the_single_pass(name: str, side: str) -> None:
    stack, data, effect = make_stack(), make_data(), EFFECTS[name]
    guide = NeuronGuide(effect(stack)) if side == "guide's model" else effect(NeuronGuide(stack))
    with pytest.raises(OneSidedEffectError, match="guide: expected effects on the model"):
        LocalELBO().loss(stack, guide, *data)


@pytest.mark.parametrize("loss", [Trace_ELBO, TraceMeanField_ELBO, LocalELBO])
@pytest.mark.parametrize("name", EFFECTS)
def test_effect_on_both_sides_passes(name: str, loss: Any) -> None:
    stack, data = make_stack(), make_data()
    model = EFFECTS[name](stack)
    assert math.isfinite(loss().loss_and_grads(model, NeuronGuide(model), *data))


@pytest.mark.parametrize("loss", [Trace_ELBO, TraceMeanField_ELBO])
def test_another_weight_on_either_side_is_refused(loss: Any) -> None:
    stack, data = make_stack(), make_data()
    guide = NeuronGuide(kl_weight(stack, 0.2))
    with pytest.raises(OneSidedEffectError, match=r"site 'layers\.0\.z'.*Try: wrap the model once"):
        loss().loss(kl_weight(stack, 0.3), guide, *data)


@pytest.mark.parametrize("loss", [Trace_ELBO, TraceMeanField_ELBO])
def test_another_clamped_unit_on_either_side_is_refused(loss: Any) -> None:
    stack, data = make_stack(), make_data()
    guide = NeuronGuide(clamp(stack, {"layers.1": {0: 0.5}}))
    with pytest.raises(OneSidedEffectError, match=r"site 'layers\.1\.z'"):
        loss().loss(clamp(stack, {"layers.1": {1: 0.5}}), guide, *data)


def test_renyi_refuses_too() -> None:
    stack, data = make_stack(), make_data()
    with pytest.raises(OneSidedEffectError, match="a scale that only one of them has"):
        RenyiELBO(num_particles=2).loss(kl_weight(stack, 0.3), NeuronGuide(stack), *data)
