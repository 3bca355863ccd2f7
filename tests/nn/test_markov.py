"""The readable loop and the chain of all steps at once are one program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro_vdn.guides import (
    FilteringPosterior,
    NeuronGuide,
    SmoothingPosterior,
    StructuredPosterior,
    without_neurons,
)
from torch import Tensor, nn

from pyro_vdn.infer import LocalELBO
from pyro_vdn.nn import (
    AutoregressiveNormal,
    GaussianChain,
    NormalPosterior,
    VariationalNeurons,
    closed_form_kl,
)
from pyro_vdn.nn.markov import ChainStep, PastMoments
from pyro_vdn.poutine import clamp, deterministic, dropout, kl_weight, record
from pyro_vdn.testing import FixedNoise, MemoryNet, randomise

ROWS, TIME, UNITS = 3, 6, 4
EXACT = {"rtol": 1e-10, "atol": 1e-10}
POSTERIORS: dict[str, Callable[[], nn.Module]] = {
    "factorised": lambda: NormalPosterior("input"),
    "filtering": lambda: FilteringPosterior(NormalPosterior("input")),
    "smoothing": lambda: SmoothingPosterior(NormalPosterior("input")),
    "structured": lambda: StructuredPosterior(NormalPosterior("input")),
    "shared scale": lambda: NormalPosterior("shared"),
}
LOSSES = [Trace_ELBO, TraceMeanField_ELBO, LocalELBO]
PHI = torch.tensor([0.8, -0.3, 0.2])


class Pair(NamedTuple):
    """The same model twice, run all at once and step by step."""

    parallel: MemoryNet
    markov: MemoryNet


def make_pair(order: int = 1, posterior: str = "factorised", **kwargs: Any) -> Pair:
    models = [
        MemoryNet(
            AutoregressiveNormal(UNITS, phi=PHI[:order], order=order),
            POSTERIORS[posterior](),
            steps=steps,
            **kwargs,
        )
        for steps in ("parallel", "markov")
    ]
    randomise(models[0])
    models[1].load_state_dict(models[0].state_dict())
    return Pair(*models)


def make_data(time: int = TIME) -> tuple[Tensor, Tensor]:
    return torch.randn(ROWS, time, 3), torch.randn(ROWS, time, 2)


def make_mask(time: int = TIME) -> Tensor:
    mask = torch.rand(ROWS, time) > 0.4
    mask[1] = torch.arange(time) < 2  # a short sequence
    return mask


def evaluate(
    loss: Any, program: Any, noise: Tensor, *args: Any, of: nn.Module
) -> tuple[float, dict[str, Tensor]]:
    """A loss at a given noise, and its gradients."""
    of.zero_grad()
    with FixedNoise(noise):
        value = loss.differentiable_loss(program, NeuronGuide(program), *args)
    value.backward()
    grads = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in of.named_parameters()
    }
    return value.item(), grads


def assert_same(pair: Pair, loss: Any, *args: Any, effect: Any = lambda m: m) -> None:
    """Both programs have the same loss and gradients."""
    particles = (loss.num_particles,) if loss.num_particles > 1 else ()
    noise = torch.randn(*particles, *args[0].shape[:2], UNITS)
    value, grads = evaluate(loss, effect(pair.parallel), noise, *args, of=pair.parallel)
    other, theirs = evaluate(loss, effect(pair.markov), noise, *args, of=pair.markov)
    assert value == pytest.approx(other, rel=1e-10, abs=1e-10)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, theirs[name], **EXACT, msg=lambda m, n=name: f"{n}: {m}")


def options(num_particles: int) -> dict[str, Any]:
    return {"num_particles": num_particles, "max_plate_nesting": 3, "vectorize_particles": True}


# --- log density ---


@pytest.mark.parametrize("time", [1, 2, TIME])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_log_density_of_a_prior_run(order: int, time: int) -> None:
    pair, (x, y) = make_pair(order), make_data(time)
    z = torch.randn(ROWS, time, UNITS)
    whole = pyro.poutine.condition(pair.parallel, {"neurons.z": z})
    each = {f"neurons.z_{t}": z[:, t : t + 1] for t in range(time)}
    by_step = pyro.poutine.condition(pair.markov, each)
    traces = [pyro.poutine.trace(model).get_trace(x, y) for model in (whole, by_step)]
    for trace in traces:
        trace.compute_log_prob()
    steps = [traces[1].nodes[name]["log_prob"] for name in each]
    torch.testing.assert_close(traces[0].nodes["neurons.z"]["log_prob"], torch.cat(steps, -2))
    torch.testing.assert_close(traces[0].log_prob_sum(), traces[1].log_prob_sum(), **EXACT)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_prior_draws_are_the_same(order: int) -> None:
    pair, (x, _) = make_pair(order), make_data()
    noise = torch.randn(ROWS, TIME, UNITS)
    draws = []
    for model in pair:
        with FixedNoise(noise), pyro.poutine.trace() as seen:
            model(x)
        steps = [name for name in seen.trace.nodes if name.startswith("neurons.z")]
        draws.append(torch.cat([seen.trace.nodes[name]["value"] for name in steps], -2))
    torch.testing.assert_close(draws[0], draws[1], **EXACT)


def test_sites_and_plates_of_the_loop() -> None:
    model = make_pair().markov
    trace = pyro.poutine.trace(model).get_trace(*make_data())
    sites = [name for name in trace.stochastic_nodes if name.startswith("neurons.z")]
    assert sites == [f"neurons.z_{t}" for t in range(TIME)]
    for name in sites:
        node = trace.nodes[name]
        assert node["fn"].batch_shape == node["value"].shape == (ROWS, 1, UNITS)
        plates = {f.name: f.dim for f in node["cond_indep_stack"] if f.vectorized}
        assert plates == {"rows": -3, "neurons.step": -2, "neurons.units": -1}


# --- losses ---


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_and_gradients(loss: Any, order: int, posterior: str, masked: bool) -> None:
    data = (*make_data(), make_mask() if masked else None)
    assert_same(make_pair(order, posterior), loss(), *data)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_every_parameter_is_reached(posterior: str) -> None:
    pair, noise = make_pair(2, posterior), torch.randn(ROWS, TIME, UNITS)
    for model in pair:
        _, grads = evaluate(LocalELBO(), model, noise, *make_data(), of=model)
        assert [name for name, grad in grads.items() if not bool((grad != 0).any())] == []


@pytest.mark.parametrize("time", [1, 2])
@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("order", [1, 3])
def test_series_no_longer_than_the_order(order: int, posterior: str, time: int) -> None:
    pair = make_pair(order, posterior)
    for loss in LOSSES:
        assert_same(pair, loss(), *make_data(time))


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("loss", LOSSES)
def test_several_particles(loss: Any, order: int, posterior: str) -> None:
    assert_same(make_pair(order, posterior), loss(**options(3)), *make_data(), make_mask())


@pytest.mark.parametrize("posterior", ["factorised", "structured"])
@pytest.mark.parametrize("loss", LOSSES)
def test_local_reconstruction(loss: Any, posterior: str) -> None:
    pair = make_pair(2, posterior, local_reconstruction=True)
    assert_same(pair, loss(), *make_data())


PER_UNIT = torch.tensor([0.1, 1.0, 2.5, 0.4], dtype=torch.float64)
ROW_MASK = torch.tensor([True, False, True]).reshape(ROWS, 1, 1)
HOLDS = {"neurons": {0: 1.5, 1: "mean", 3: "prior"}}
EFFECTS: dict[str, Callable[[Any], Any]] = {
    "kl_weight": lambda m: kl_weight(m, 0.3),
    "kl_weight zero": lambda m: kl_weight(m, 0.0),
    "kl_weight per unit": lambda m: kl_weight(m, PER_UNIT),
    "kl_weight of the layer": lambda m: kl_weight(m, {"neurons": PER_UNIT}),
    "deterministic": deterministic,
    "clamp": lambda m: clamp(m, HOLDS),
    "clamp and weight": lambda m: kl_weight(clamp(m, HOLDS), PER_UNIT),
    "record": lambda m: record(m)[0],
    "scale": lambda m: pyro.poutine.scale(m, 0.4),
    "mask": lambda m: pyro.poutine.mask(m, ROW_MASK),
}


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.parametrize("posterior", ["factorised", "filtering", "structured"])
@pytest.mark.parametrize("loss", LOSSES)
def test_effects(loss: Any, posterior: str, name: str) -> None:
    pair, data = make_pair(2, posterior), make_data()
    assert_same(pair, loss(), *data, effect=EFFECTS[name])
    noise = torch.randn(ROWS, TIME, UNITS)
    plain, _ = evaluate(loss(), pair.parallel, noise, *data, of=pair.parallel)
    changed, _ = evaluate(loss(), EFFECTS[name](pair.parallel), noise, *data, of=pair.parallel)
    assert (plain == pytest.approx(changed, rel=1e-9)) == (name == "record")


@pytest.mark.parametrize("steps", [0, 1], ids=["parallel", "markov"])
def test_dropout_has_no_kl(steps: int) -> None:
    model, data = make_pair(2, "structured")[steps], make_data()
    dropped = dropout(model, 0.3)
    terms = LocalELBO().terms(dropped, NeuronGuide(dropped), *data)
    assert bool((terms.kl["neurons"] == 0).all())
    z = pyro.poutine.trace(dropped).get_trace(data[0])
    names = ["neurons.z"] if steps == 0 else [f"neurons.z_{t}" for t in range(TIME)]
    zeros = torch.cat([z.nodes[name]["value"] for name in names], -2) == 0
    assert zeros.shape == (ROWS, TIME, UNITS)
    assert bool(zeros.any())
    assert not bool(zeros.all())


def test_terms_of_all_steps_are_those_of_the_layer() -> None:
    pair, data = make_pair(2, "filtering"), make_data()
    noise = torch.randn(ROWS, TIME, UNITS)
    terms = []
    for model in pair:
        with FixedNoise(noise):
            terms.append(LocalELBO().terms(model, NeuronGuide(model), *data))
    assert terms[0].kl.keys() == terms[1].kl.keys() == {"neurons"}
    assert terms[0].kl["neurons"].shape == (UNITS,)
    torch.testing.assert_close(terms[0].kl["neurons"], terms[1].kl["neurons"], **EXACT)
    torch.testing.assert_close(terms[0].loss, terms[1].loss, **EXACT)
    torch.testing.assert_close(terms[0].elbo, terms[1].elbo, **EXACT)
    with FixedNoise(noise):
        loss = LocalELBO().differentiable_loss(pair.markov, NeuronGuide(pair.markov), *data)
    torch.testing.assert_close(terms[1].loss, loss, **EXACT)


# --- moments and KL of a step ---


@pytest.mark.parametrize("order", [1, 2, 3])
def test_moments_of_the_past_are_those_of_draws(order: int) -> None:
    chain = GaussianChain(
        0.5 * torch.rand(TIME, UNITS, order), torch.randn(TIME, UNITS), torch.rand(TIME, UNITS) + 1
    )
    moments = PastMoments.nothing(torch.zeros(1, UNITS), order)
    draws, number = chain.sample(torch.Size((100_000,))), 100_000
    for time in range(TIME):
        step = ChainStep.of(chain, time, [torch.zeros(1, UNITS)] * min(time, order), moments)
        moments = moments.after(step)
    last = draws[:, -order:].flip(1)  # the latest first
    error = last.std(0).mT / number**0.5
    assert bool(((last.mean(0).mT - moments.mean[0]).abs() < 5 * error).all())
    for unit in range(UNITS):
        seen = torch.cov(last[..., unit].mT).reshape(order, order)
        exact = moments.covariance[0, unit]
        diagonal = exact.diagonal()
        error = (exact.square() + diagonal[:, None] * diagonal).sqrt() / number**0.5
        assert bool(((seen - exact).abs() < 5 * error).all())


def test_an_observed_value_has_no_spread() -> None:
    moments = PastMoments(torch.ones(1, 2, 2), torch.eye(2).expand(1, 2, 2, 2))
    after = moments.after_value(torch.full((1, 2), 7.0))
    assert after.mean[0, 0].tolist() == [7.0, 1.0]
    assert after.covariance[0, 0].tolist() == [[0.0, 0.0], [0.0, 1.0]]


def test_kl_of_steps_is_that_of_the_chains() -> None:
    def make(order: int) -> GaussianChain:
        coefficients = 0.4 * torch.randn(TIME, UNITS, order)
        return GaussianChain(coefficients, torch.randn(TIME, UNITS), torch.rand(TIME, UNITS) + 0.4)

    q, p = make(1), make(3)
    moments, past, kls = PastMoments.nothing(torch.zeros(1, UNITS), 3), [], []
    for time in range(TIME):
        recent = past[:-4:-1]
        step = ChainStep.of(q, time, recent, moments)
        kls.append(closed_form_kl(step, ChainStep.of(p, time, recent)))
        moments, past = moments.after(step), [*past, torch.randn(1, UNITS)]
    torch.testing.assert_close(torch.cat(kls), closed_form_kl(q, p))


# --- conditioning a step ---


@pytest.mark.parametrize("when", [0, 2, TIME - 1])
@pytest.mark.parametrize("posterior", ["factorised", "structured"])
def test_one_step_conditioned(posterior: str, when: int) -> None:
    model, (x, y) = make_pair(1, posterior).markov, make_data()
    noise, fixed = torch.randn(ROWS, TIME, UNITS), torch.randn(ROWS, 1, UNITS)
    conditioned = pyro.poutine.condition(model, {f"neurons.z_{when}": fixed})
    with FixedNoise(noise):
        loss = LocalELBO().differentiable_loss(conditioned, NeuronGuide(conditioned), x, y)
    # By hand: the posterior's moves, the observed value among them.
    h = model.encode(x)
    prior = model.neurons.prior(h).expand(torch.Size((ROWS, TIME, UNITS)))
    phi, s = model.neurons.prior.coefficients()[:, 0], prior.scale
    if posterior == "factorised":
        q = model.neurons.posterior(h)
        a, b, c = torch.zeros(TIME, UNITS), q.loc, q.scale
    else:
        q = model.neurons.posterior(h, prior)
        a, b, c = q.coefficients[..., 0], q.offset, q.scale
    bound, z, mean, variance = torch.zeros(()), [], torch.zeros(()), torch.zeros(())
    for t in range(TIME):
        move = torch.zeros(()) if t == 0 else phi
        before = z[-1] if t else torch.zeros(())
        loc, carried = b[:, t] + a[..., t, :] * before, a[..., t, :] if t else torch.zeros(())
        if t == when:
            z.append(fixed[:, 0])
            bound = bound + dist.Normal(move * before, s[t]).log_prob(fixed[:, 0]).sum()
            mean, variance = fixed[:, 0], torch.zeros(())
            continue
        z.append(loc + c[:, t] * noise[:, t])
        distance = (carried - move) * mean + b[:, t]
        spread = (carried - move) ** 2 * variance + c[:, t] ** 2
        kl = (s[t] / c[:, t]).log() + (distance**2 + spread) / (2 * s[t] ** 2) - 0.5
        bound = bound - kl.sum()
        mean, variance = carried * mean + b[:, t], carried**2 * variance + c[:, t] ** 2
    loc = model.readout(torch.tanh(torch.stack(z, 1)))
    bound = bound + dist.Normal(loc, 0.5).log_prob(y).sum()
    torch.testing.assert_close(-loss, bound)
    if posterior == "factorised":  # the KL is exact there, also with the value conditioned
        stock = TraceMeanField_ELBO()
        with FixedNoise(noise):
            again = stock.differentiable_loss(conditioned, NeuronGuide(conditioned), x, y)
        torch.testing.assert_close(again, loss)


def test_all_steps_conditioned_leave_the_joint_density() -> None:
    model, (x, y) = make_pair(2, "filtering").markov, make_data()
    z = torch.randn(ROWS, TIME, UNITS)
    data = {f"neurons.z_{t}": z[:, t : t + 1] for t in range(TIME)}
    conditioned = pyro.poutine.condition(model, data)
    loss = LocalELBO().differentiable_loss(conditioned, NeuronGuide(conditioned), x, y)
    trace = pyro.poutine.trace(conditioned).get_trace(x, y)
    torch.testing.assert_close(-loss, trace.log_prob_sum())


# --- hyper-priors ---


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("loss", LOSSES)
def test_hyper_priors(loss: Any, order: int, particles: int) -> None:
    models, guides = [], []
    x, y = make_data()
    for steps in ("parallel", "markov"):
        prior = AutoregressiveNormal(
            UNITS, phi=dist.Uniform(-1.0, 1.0), scale=dist.LogNormal(-1.0, 0.3), order=order
        )
        models.append(MemoryNet(prior, POSTERIORS["structured"](), steps=steps))
        others = pyro.infer.autoguide.AutoNormal(without_neurons(models[-1]))
        guides.append(NeuronGuide(models[-1], others=others))
        guides[-1](x, y)
    randomise(models[0])
    models[1].load_state_dict(models[0].state_dict())
    guides[1].load_state_dict(guides[0].state_dict())
    lead = (particles,) if particles > 1 else ()
    noise, results = torch.randn(*lead, ROWS, TIME, UNITS), []
    for model, guide in zip(models, guides, strict=True):
        pyro.set_rng_seed(2)
        arguments = options(particles) if particles > 1 else {}
        with FixedNoise(noise):
            value = loss(**arguments).differentiable_loss(model, guide, x, y)
        parts = [*model.parameters(), *guide.parameters()]
        results.append((value, *torch.autograd.grad(value, parts)))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)


def test_an_unknown_way_of_running_is_refused() -> None:
    message = r"steps: expected one of \('parallel', 'markov'\), got 'loop'"
    with pytest.raises(ValueError, match=message):
        VariationalNeurons(3, 4, prior=AutoregressiveNormal(4), steps="loop")  # type: ignore[arg-type]
