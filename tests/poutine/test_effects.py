"""The algebra of effects: what they do to one layer, alone, twice, and together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro_vdn.guides import NeuronGuide
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO
from pyro_vdn.nn import LearnedNormal, VariationalNeurons
from pyro_vdn.poutine import (
    NeuronMessenger,
    PosteriorMessenger,
    clamp,
    deterministic,
    dropout,
    kl_weight,
    record,
)
from pyro_vdn.testing import NeuronStack, loss_and_grads, posterior_by_hand, randomise

ROWS, UNITS = 5, 4


def make_layer(latent_dim: int = 1) -> VariationalNeurons:
    layer = VariationalNeurons(3, UNITS, latent_dim=latent_dim, prior=LearnedNormal())
    randomise(layer)
    return layer


def make_input() -> Tensor:
    return torch.linspace(-1, 1, ROWS * 3).reshape(ROWS, 3)


def site_of(program: Callable[..., Any]) -> dict[str, Any]:
    """Run a program from a fixed seed and return its neurons' site."""
    pyro.set_rng_seed(1)
    trace = pyro.poutine.trace(program).get_trace(make_input())
    trace.compute_log_prob()
    return dict(trace.nodes["z"])


def in_posterior(program: Callable[..., Any]) -> Callable[..., Any]:
    drawn: Callable[..., Any] = PosteriorMessenger()(program)
    return drawn


def assert_same_site(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    torch.testing.assert_close(mine["value"], theirs["value"])
    torch.testing.assert_close(
        mine["log_prob"].expand(ROWS, UNITS), theirs["log_prob"].expand(ROWS, UNITS)
    )


# --- deterministic ---


@pytest.mark.parametrize("drawn", [in_posterior, lambda p: p], ids=["posterior", "prior"])
@pytest.mark.parametrize("latent_dim", [1, 3])
def test_deterministic_is_the_mean_without_log_density(latent_dim: int, drawn: Any) -> None:
    layer = make_layer(latent_dim)
    site = site_of(drawn(deterministic(layer)))
    torch.testing.assert_close(site["value"], posterior_by_hand(layer, make_input()).loc)
    assert (torch.as_tensor(site["log_prob"]) == 0).all()


def test_deterministic_twin_is_the_ordinary_network() -> None:
    model = NeuronStack(num_layers=2)
    x = torch.randn(6, 4)
    h = model.encode(x)
    for layer in model.neuron_layers:
        h = torch.tanh(posterior_by_hand(layer, h).loc)
    trace = pyro.poutine.trace(deterministic(model)).get_trace(x)
    torch.testing.assert_close(trace.nodes["y"]["fn"].mean, model.readout(h))


def test_deterministic_keeps_the_gradient_of_loc_and_drops_that_of_scale() -> None:
    layer = make_layer()
    deterministic(layer)(make_input()).square().sum().backward()
    assert layer.posterior.loc.weight.grad.abs().sum() > 0
    assert layer.posterior.raw_scale.value.grad is None


# --- dropout ---


@pytest.mark.parametrize("p", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("latent_dim", [1, 3])
def test_dropout_drops_the_mean(latent_dim: int, p: float) -> None:
    layer, x = make_layer(latent_dim), make_input()
    loc = posterior_by_hand(layer, x).loc
    with pyro.plate("draws", 4000, dim=-3):
        z = dropout(layer, p)(x)
    kept = pyro.poutine.trace(dropout(layer, p)).get_trace(x).nodes["z"]["value"]
    torch.testing.assert_close(kept[kept != 0], (loc / (1 - p))[kept != 0])
    pooled = loc.mean(-1) if latent_dim > 1 else loc
    error = z.std(0) / 4000**0.5 + 1e-12
    assert ((z.mean(0) - pooled).abs() < 5 * error).all()
    assert (kept == 0).any() == (p > 0)


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5])
def test_dropout_refuses_what_is_no_probability(p: float) -> None:
    with pytest.raises(InputError, match=r"p: expected a probability in \[0, 1\)"):
        dropout(make_layer(), p)
    effect = dropout(p=0.1)
    with pytest.raises(InputError, match=r"p: expected a probability in \[0, 1\)"):
        effect.p = p
    assert effect.p == 0.1


def test_dropout_distribution_has_its_moments() -> None:
    site = site_of(dropout(make_layer(), 0.25))["fn"]
    draws = site.rsample((40_000,))
    error = site.variance.sqrt() / 200
    assert ((draws.mean(0) - site.mean).abs() < 5 * error).all()
    torch.testing.assert_close(draws.var(0), site.variance, rtol=0.05, atol=0)
    assert (site.log_prob(draws) == 0).all()


# --- kl_weight ---


@pytest.mark.parametrize("weight", [0.0, 0.3, torch.tensor([0.1, 0.0, 1.0, 2.0])], ids=str)
def test_kl_weight_scales_the_log_density_alone(weight: Any) -> None:
    layer = make_layer()
    plain, weighted = site_of(layer), site_of(kl_weight(layer, weight))
    torch.testing.assert_close(weighted["value"], plain["value"])
    torch.testing.assert_close(weighted["log_prob"], weight * plain["log_prob"])


def test_kl_weights_multiply() -> None:
    layer, per_unit = make_layer(), torch.tensor([0.1, 0.5, 1.0, 2.0])
    once = site_of(kl_weight(layer, 0.3 * per_unit))
    assert_same_site(site_of(kl_weight(kl_weight(layer, per_unit), 0.3)), once)
    assert_same_site(site_of(kl_weight(kl_weight(layer, 0.3), per_unit)), once)
    assert_same_site(site_of(pyro.poutine.scale(kl_weight(layer, per_unit), 0.3)), once)


def test_kl_weight_leaves_other_layers_and_sites_alone() -> None:
    model, x, y = NeuronStack(num_layers=2), torch.randn(6, 4), torch.randn(6, 2)
    trace = pyro.poutine.trace(kl_weight(model, {"layers.1": 0.2})).get_trace(x, y)
    scales = [trace.nodes[name]["scale"] for name in ("layers.0.z", "layers.1.z", "y")]
    assert scales == [1.0, 0.2, 1.0]


@pytest.mark.parametrize(
    "weight", [-0.1, float("nan"), float("inf"), torch.tensor([1.0, -1.0]), {"a": -1.0}], ids=str
)
def test_kl_weight_refuses_what_is_no_weight(weight: Any) -> None:
    with pytest.raises(InputError, match="weight: expected finite KL weights of at least 0"):
        kl_weight(make_layer(), weight)


@pytest.mark.parametrize("per_unit", [torch.tensor([1.0, 2.0, 0.5])], ids=["per unit"])
def test_kl_weight_weights_the_kl_of_each_unit(per_unit: Tensor) -> None:
    model, data = NeuronStack(num_layers=2), (torch.randn(6, 4), torch.randn(6, 2))
    pyro.set_rng_seed(1)
    plain = LocalELBO().terms(model, NeuronGuide(model), *data)
    weighted_model = kl_weight(model, {"layers.0": per_unit, "layers.1": 0.0})
    pyro.set_rng_seed(1)
    weighted = LocalELBO().terms(weighted_model, NeuronGuide(weighted_model), *data)
    torch.testing.assert_close(weighted.kl["layers.0"], per_unit * plain.kl["layers.0"])
    torch.testing.assert_close(weighted.kl["layers.1"], torch.zeros(3))
    torch.testing.assert_close(weighted.log_likelihood, plain.log_likelihood)
    torch.testing.assert_close(weighted.elbo, plain.elbo)


# --- clamp ---


@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize("drawn", [in_posterior, lambda p: p], ids=["posterior", "prior"])
def test_clamp_holds_chosen_units_alone(latent_dim: int, drawn: Any) -> None:
    layer = make_layer(latent_dim)
    plain = site_of(drawn(layer))
    site = site_of(drawn(clamp(layer, {"": {0: 1.5, 2: "mean"}})))
    free, held = [1, 3], [0, 2]
    torch.testing.assert_close(site["value"][:, free], plain["value"][:, free])
    torch.testing.assert_close(site["log_prob"][:, free], plain["log_prob"][:, free])
    assert (site["value"][:, 0] == 1.5).all()
    mean = posterior_by_hand(layer, make_input()).loc
    torch.testing.assert_close(site["value"][:, 2], mean[:, 2])
    assert (site["log_prob"][:, held] == 0).all()


def test_clamp_to_the_prior_draws_from_it() -> None:
    layer, x = make_layer(), make_input()
    with torch.no_grad():
        layer.prior.loc.add_(50.0)
    with pyro.plate("draws", 2000, dim=-3):
        z = in_posterior(clamp(layer, {"": {1: "prior"}}))(x)
    prior = layer.prior(x)
    error = prior.scale[1] / (2000 * ROWS) ** 0.5
    assert abs(z[..., 1].mean() - prior.loc[1]) < 5 * error
    assert (z[..., [0, 2, 3]] < 25).all()


@pytest.mark.parametrize("value", [2.0, torch.arange(4.0), "mean"], ids=str)
def test_clamp_holds_a_whole_layer(value: Any) -> None:
    layer, x = make_layer(), make_input()
    z = clamp(layer, {"": value})(x)
    expected = posterior_by_hand(layer, x).loc if isinstance(value, str) else torch.as_tensor(value)
    torch.testing.assert_close(z, expected.expand(ROWS, UNITS).to(z.dtype))


def test_clamp_of_everything_to_the_mean_is_deterministic() -> None:
    layer = make_layer()
    assert_same_site(
        site_of(in_posterior(clamp(layer, {"": "mean"}))), site_of(deterministic(layer))
    )


def test_clamp_leaves_other_layers_alone() -> None:
    model, x = NeuronStack(num_layers=2), torch.randn(6, 4)
    held = clamp(model, {"layers.1": 0.0})
    traces = []
    for program in (held, model):
        pyro.set_rng_seed(2)
        traces.append(pyro.poutine.trace(program).get_trace(x))
    first, second = (trace.nodes["layers.0.z"]["value"] for trace in traces)
    torch.testing.assert_close(first, second)
    assert (traces[0].nodes["layers.1.z"]["value"] == 0).all()


@pytest.mark.parametrize(
    "effect", [lambda m: clamp(m, {"other": 0.0}), lambda m: kl_weight(m, {"other": 0.5})]
)
def test_a_layer_that_does_not_run_is_refused(effect: Any) -> None:
    with pytest.raises(InputError, match=r"names of layers that run: \[''\], got 'other'"):
        effect(make_layer())(make_input())


@pytest.mark.parametrize(
    ("units", "text"),
    [
        (None, "units: expected units by layer path"),
        ({}, "units: expected units by layer path"),
        ({"": {0: "median"}}, "units: expected a value, 'mean' or 'prior', got 'median'"),
        ({"": "posterior"}, "units: expected a value, 'mean' or 'prior', got 'posterior'"),
        ({"": {4: 0.0}}, "clamp of layer '': expected unit indices in 0 to 3, got 4"),
        ({"": {-1: 0.0}}, "expected unit indices in 0 to 3, got -1"),
    ],
)
def test_clamp_refuses(units: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        clamp(make_layer(), units)(make_input())


# --- algebra ---

IDEMPOTENT: dict[str, Callable[[Any], Any]] = {
    "deterministic": deterministic,
    "clamp": lambda m: clamp(m, {"": {0: 1.5, 2: "mean"}}),
    "clamp to the prior": lambda m: clamp(m, {"": {1: "prior"}}),
    "posterior": in_posterior,
    "weight one": lambda m: kl_weight(m, 1.0),
    "record": lambda m: record(m)[0],
}


@pytest.mark.parametrize("drawn", [in_posterior, lambda p: p], ids=["posterior", "prior"])
@pytest.mark.parametrize("name", ["deterministic", "clamp", "posterior", "weight one", "record"])
def test_effects_are_idempotent(name: str, drawn: Any) -> None:
    layer, effect = make_layer(), IDEMPOTENT[name]
    assert_same_site(site_of(drawn(effect(effect(layer)))), site_of(drawn(effect(layer))))


PAIRS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "weight, deterministic": (lambda m: kl_weight(m, 0.3), deterministic),
    "weight, clamp": (lambda m: kl_weight(m, 0.3), IDEMPOTENT["clamp"]),
    "weight, dropout": (lambda m: kl_weight(m, 0.3), lambda m: dropout(m, 0.5)),
    "weight, posterior": (lambda m: kl_weight(m, 0.3), in_posterior),
    "deterministic, posterior": (deterministic, in_posterior),
    "deterministic, clamp to the mean": (deterministic, lambda m: clamp(m, {"": {1: "mean"}})),
    "clamp, posterior": (IDEMPOTENT["clamp"], in_posterior),
    "clamp to the prior, posterior": (IDEMPOTENT["clamp to the prior"], in_posterior),
    "dropout, posterior": (lambda m: dropout(m, 0.5), in_posterior),
    "record, clamp": (IDEMPOTENT["record"], IDEMPOTENT["clamp"]),
    "two clamps": (IDEMPOTENT["clamp"], lambda m: clamp(m, {"": {3: -2.0}})),
    "scale, weight": (lambda m: pyro.poutine.scale(m, 0.5), lambda m: kl_weight(m, 0.3)),
    "mask, clamp": (
        lambda m: pyro.poutine.mask(m, torch.tensor([True, True, False, True])),
        IDEMPOTENT["clamp"],
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_effects_commute(name: str) -> None:
    layer, (first, second) = make_layer(), PAIRS[name]
    one, other = site_of(first(second(layer))), site_of(second(first(layer)))
    assert_same_site(one, other)
    assert (
        site_of(layer)["value"].ne(one["value"]).any()
        or (site_of(layer)["log_prob"] != one["log_prob"]).any()
    )


@pytest.mark.parametrize("name", ["deterministic", "clamp", "dropout", "posterior", "record"])
def test_an_observed_neuron_is_out_of_reach(name: str) -> None:
    effects = IDEMPOTENT | {"dropout": lambda m: dropout(m, 0.5)}
    observed = pyro.poutine.condition(make_layer(), {"z": torch.linspace(-2, 2, UNITS)})
    assert_same_site(site_of(effects[name](observed)), site_of(observed))


def test_weight_and_conditioning_commute() -> None:
    layer, data = make_layer(), {"z": torch.linspace(-2, 2, UNITS)}
    inside = kl_weight(pyro.poutine.condition(layer, data), 0.3)
    outside = pyro.poutine.condition(kl_weight(layer, 0.3), data)
    assert_same_site(site_of(inside), site_of(outside))
    assert site_of(inside)["scale"] == 0.3


def test_conditioning_around_the_posterior_gives_the_prior_back() -> None:
    model, data = NeuronStack(num_layers=2), (torch.randn(6, 4), torch.randn(6, 2))
    observed = {"layers.0.z": torch.linspace(-1, 1, 18).reshape(6, 3)}
    wrapped = pyro.poutine.condition(model, observed)
    inside = loss_and_grads(LocalELBO(), wrapped, NeuronGuide(wrapped), *data, of=model)
    with pyro.poutine.condition(data=observed):
        outside = loss_and_grads(LocalELBO(), model, NeuronGuide(model), *data, of=model)
    assert inside.loss == pytest.approx(outside.loss, rel=1e-12)
    torch.testing.assert_close(inside.grads, outside.grads)


@pytest.mark.parametrize(
    "effect",
    [deterministic, lambda m=None: kl_weight(m, 0.3), lambda m=None: dropout(m, 0.5)],
    ids=["deterministic", "kl_weight", "dropout"],
)
def test_context_equals_wrapper(effect: Any) -> None:
    layer = make_layer()
    wrapped = site_of(in_posterior(effect(layer)))
    with effect():
        inside = site_of(in_posterior(layer))
    # A trace inside the context has copied the site before its scale is set: compare the values.
    torch.testing.assert_close(wrapped["value"], inside["value"])


@pytest.mark.parametrize("effect", [kl_weight, deterministic, dropout])
def test_effects_refuse_what_is_no_program(effect: Any) -> None:
    with pytest.raises(InputError, match=r"model: expected a callable Pyro program, got 0.3"):
        effect(0.3)


def test_a_messenger_without_a_deed_says_so() -> None:
    with pytest.raises(NotImplementedError), NeuronMessenger():
        make_layer()(make_input())


def test_effects_pass_other_sites() -> None:
    def program(x: Tensor) -> Tensor:
        return pyro.sample("z", dist.Normal(x, 1.0).to_event(2))  # no neuron: nothing is offered

    pyro.set_rng_seed(1)
    plain = program(make_input())
    pyro.set_rng_seed(1)
    changed = deterministic(kl_weight(program, 0.1))(make_input())
    torch.testing.assert_close(plain, changed)


# --- record ---


def test_record_streams_the_moments_of_the_full_batch() -> None:
    layer, x = make_layer(), torch.randn(23, 3)
    with record() as seen, PosteriorMessenger():
        for batch in x.split([1, 9, 13]):
            layer(batch)
    with record() as full, PosteriorMessenger():
        layer(x)
    loc, scale = (value.detach() for value in posterior_by_hand(layer, x))
    n, t = layer.prior.loc.detach(), layer.prior(x).scale.detach()
    kl = torch.log(t / scale) + (scale**2 + (loc - n) ** 2) / (2 * t**2) - 0.5
    for name, values in {
        "loc": loc, "scale": scale, "variance": scale**2, "energy": loc**2, "kl": kl
    }.items():  # fmt: skip
        streamed, whole = getattr(seen[""], name), getattr(full[""], name)
        assert streamed.count == whole.count == 23
        torch.testing.assert_close(streamed.mean, values.mean(0))
        torch.testing.assert_close(streamed.variance, values.var(0, correction=0))
        torch.testing.assert_close(whole.variance, values.var(0, correction=0))
        torch.testing.assert_close(streamed.standard_error, values.std(0, correction=0) / 23**0.5)


@pytest.mark.parametrize("num_particles", [1, 5])
@pytest.mark.parametrize("loss", [Trace_ELBO, TraceMeanField_ELBO, LocalELBO])
def test_record_counts_once_per_pass(loss: Any, num_particles: int) -> None:
    model, data = NeuronStack(num_layers=2), (torch.randn(6, 4), torch.randn(6, 2))
    elbo = loss(num_particles=num_particles, vectorize_particles=True, max_plate_nesting=2)
    with record() as seen:
        loss_and_grads(elbo, model, NeuronGuide(model), *data, of=model)
    # The first layer's posterior is the same for all particles; it counts rows as they are drawn.
    assert list(seen) == ["layers.0", "layers.1"]
    assert len(seen) == 2
    assert seen["layers.1"].kl.count == 6 * num_particles
    assert seen["layers.1"].last_kl.shape[-2:] == (6, 3)


def test_record_around_model_and_guide_counts_once() -> None:
    stack, data = NeuronStack(), (torch.randn(6, 4), torch.randn(6, 2))
    model, seen = record(stack)
    loss_and_grads(Trace_ELBO(), model, NeuronGuide(model), *data, of=stack)
    assert seen["layers.0"].kl.count == 6


@pytest.mark.parametrize("num_particles", [1, 3])
@pytest.mark.parametrize("vectorize", [False, True])
@pytest.mark.parametrize("loss", [Trace_ELBO, TraceMeanField_ELBO, LocalELBO])
def test_nested_records_see_the_same(loss: Any, vectorize: bool, num_particles: int) -> None:
    model, data = NeuronStack(num_layers=2), (torch.randn(6, 4), torch.randn(6, 2))
    kwargs = {} if loss is LocalELBO else {"vectorize_particles": vectorize}
    elbo = loss(num_particles=num_particles, max_plate_nesting=2, **kwargs)
    with record() as outer, record() as middle, record() as inner:
        loss_and_grads(elbo, model, NeuronGuide(model), *data, of=model)
    for path in ("layers.0", "layers.1"):
        for seen in (middle, inner):
            assert seen[path].kl.count == outer[path].kl.count >= 6
            torch.testing.assert_close(seen[path].kl.mean, outer[path].kl.mean, rtol=0, atol=0)
    assert outer["layers.1"].kl.count == 6 * num_particles


@pytest.mark.parametrize("loss", [Trace_ELBO, LocalELBO])
def test_a_record_opened_later_sees_the_rest(loss: Any) -> None:
    model, data = NeuronStack(), (torch.randn(6, 4), torch.randn(6, 2))
    with record() as outer:
        loss_and_grads(loss(), model, NeuronGuide(model), *data, of=model)
        with record() as inner:
            loss_and_grads(loss(), model, NeuronGuide(model), *data, of=model)
    assert outer["layers.0"].kl.count == 12
    assert inner["layers.0"].kl.count == 6


@pytest.mark.parametrize("loss", [Trace_ELBO, TraceMeanField_ELBO, LocalELBO])
def test_a_record_of_the_model_alone_sees_what_one_of_the_step_sees(loss: Any) -> None:
    stack, data = NeuronStack(num_layers=2), (torch.randn(6, 4), torch.randn(6, 2))
    randomise(stack)
    model, inner = record(stack)
    with record() as outer:
        loss_and_grads(loss(), model, NeuronGuide(stack), *data, of=stack)
    for path in ("layers.0", "layers.1"):
        assert inner[path].kl.count == outer[path].kl.count == 6
        for name in ("loc", "scale", "variance", "energy", "kl", "prior_variance"):
            one, other = (getattr(seen[path], name).mean for seen in (inner, outer))
            torch.testing.assert_close(one, other)


def test_record_of_a_prior_run_leaves_the_posterior_its_gradients() -> None:
    layer = make_layer()
    with record():
        trace = pyro.poutine.trace(layer).get_trace(make_input())
    posterior = trace.nodes["z"]["infer"]["vdn_posterior"]()
    posterior.mean.sum().backward()
    assert layer.posterior.loc.weight.grad.abs().sum() > 0


def test_record_is_detached_and_changes_nothing() -> None:
    layer = make_layer()
    program, seen = record(in_posterior(layer))
    assert_same_site(site_of(program), site_of(in_posterior(layer)))
    tensors = (seen[""].last_loc, seen[""].last_scale, seen[""].last_kl, seen[""].kl.mean)
    assert not any(tensor.requires_grad for tensor in tensors)


def test_record_of_a_prior_run_evaluates_the_offer() -> None:
    layer, x = make_layer(), make_input()
    with record() as seen:
        layer(x)
    torch.testing.assert_close(seen[""].last_loc, posterior_by_hand(layer, x).loc.detach())


def test_record_gives_unweighted_kl() -> None:
    layer, x = make_layer(), make_input()
    with record() as plain, PosteriorMessenger():
        layer(x)
    with record() as weighted, PosteriorMessenger():
        kl_weight(layer, 0.1)(x)
    torch.testing.assert_close(weighted[""].kl.mean, plain[""].kl.mean)


def test_record_skips_an_empty_batch() -> None:
    with record() as seen, PosteriorMessenger():
        make_layer()(torch.zeros(0, 3))
    assert seen[""].kl.count == 0


def test_record_averages_latent_dimensions() -> None:
    layer, x = make_layer(3), make_input()
    with record() as seen, PosteriorMessenger():
        layer(x)
    loc = posterior_by_hand(layer, x).loc.detach()
    torch.testing.assert_close(seen[""].loc.mean, loc.mean((0, 2)))
    torch.testing.assert_close(seen[""].energy.mean, loc.square().mean((0, 2)))
    assert seen[""].last_loc.shape == (ROWS, UNITS, 3)
