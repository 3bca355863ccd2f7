"""The state-space model: shapes, gaps, memory on and off, exact where there is an exact answer."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.guides.markov import SmoothingPosterior, StructuredPosterior
from pyro_vdn.models import StateSpace
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO, PACmELBO
from pyro_vdn.nn import (
    AutoregressiveNormal,
    ConditionalNormal,
    LearnedNormal,
    NormalPosterior,
    StandardNormal,
)
from pyro_vdn.poutine import deterministic, record
from pyro_vdn.testing import LinearGaussianChain, randomise

OBSERVATIONS = ("student_t", "normal", "negative_binomial")
NAN = math.nan


def small(**changes: Any) -> StateSpace:
    model = StateSpace(2, **{"num_outputs": 2, "num_units": 3, "hidden": 5, **changes})
    randomise(model)
    return model


def counts(*shape: int) -> Tensor:
    return torch.poisson(torch.full(shape, 2.0))


def loss(model: StateSpace, x: Tensor, y: Tensor, *, seed: int = 3) -> Tensor:
    """Return the ELBO's negative; rows and steps in front draw the same noise whatever follows."""
    pyro.set_rng_seed(seed)
    return LocalELBO().differentiable_loss(model, NeuronGuide(model), x, y)


def traced(model: Any, *args: Tensor) -> Any:
    return pyro.poutine.trace(model).get_trace(*args).nodes


@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("units", [1, 3])
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize(("rows", "steps"), [(1, 1), (4, 6)])
def test_shapes(observation: Any, units: int, outputs: int, rows: int, steps: int) -> None:
    model = StateSpace(2, outputs, num_units=units, hidden=5, observation=observation)
    nodes = traced(model, torch.randn(rows, steps, 2), counts(rows, steps, outputs))
    assert nodes["neurons.z"]["value"].shape == (rows, steps, units)
    assert nodes["y"]["fn"].batch_shape == (rows, steps, outputs)
    plates = {frame.name: (frame.dim, frame.size) for frame in nodes["y"]["cond_indep_stack"]}
    assert plates == {"data": (-3, rows), "time": (-2, steps)}
    assert model(torch.randn(rows, steps, 2)).shape == (rows, steps, outputs)


@pytest.mark.parametrize("prior", [lambda: None, StandardNormal], ids=["memory", "none"])
def test_particles_stand_left_of_rows(prior: Any) -> None:
    model = small(prior=prior())
    with pyro.plate("particles", 7, dim=-4):
        nodes = traced(NeuronGuide(model), torch.randn(4, 6, 2))
    assert nodes["neurons.z"]["value"].shape == (7, 4, 6, 3)
    assert nodes["y"]["value"].shape == (7, 4, 6, 2)


@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize(
    "parts",
    [
        lambda: {},
        lambda: {"posterior": StructuredPosterior(NormalPosterior("input"))},
        lambda: {"prior": LearnedNormal()},
        lambda: {"prior": ConditionalNormal()},
    ],
    ids=["filtering", "structured", "memory off", "prior reads x"],
)
def test_every_observation_trains_through_gaps(observation: Any, parts: Any) -> None:
    model = small(observation=observation, **parts())
    x = torch.randn(16, 8, 2)
    level = x.cumsum(1)
    y = counts(16, 8, 2) + 6.0 * (level > 0) if observation == "negative_binomial" else level
    x[0, 3:5], y[1, 2:4], y[2, :, 0] = NAN, NAN, NAN
    guide, optim = NeuronGuide(model), torch.optim.Adam(model.parameters(), lr=3e-2)
    losses = []
    for step in range(40):
        optim.zero_grad()
        value = LocalELBO().differentiable_loss(model, guide, x, y)
        value.backward()
        if step == 0:
            for name, parameter in model.named_parameters():
                assert torch.isfinite(parameter.grad).all(), name
                assert parameter.grad.abs().sum() > 0, name
        optim.step()
        losses.append(value.item())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.parametrize("prior", [lambda: None, StandardNormal], ids=["memory", "none"])
def test_a_step_with_any_nan_is_not_read_and_costs_nothing(prior: Any) -> None:
    model = small(prior=prior())
    x = torch.randn(4, 6, 2)
    x[1, 3] = torch.tensor([NAN, 0.5])
    other = x.clone()
    other[1, 3] = torch.tensor([-2.0, NAN])
    y = torch.randn(4, 6, 2)
    torch.testing.assert_close(loss(model, x, y), loss(model, other, y), rtol=0, atol=0)
    with record() as seen:
        NeuronGuide(model)(x)
    kl = seen["neurons"].last_kl
    assert kl[1, 3].abs().max() < 1e-12
    assert kl[1, 2].min() > 1e-3


@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_shorter_sequences_are_filled_up(observation: Any) -> None:
    """Steps after the end of a sequence change none of its terms."""
    model = small(observation=observation)
    x, y = torch.randn(1, 8, 2), counts(1, 8, 2)
    x[:, 5:], y[:, 5:] = NAN, NAN
    guide = NeuronGuide(model)
    whole = LocalELBO(400).terms(model, guide, x, y)
    alone = LocalELBO(400).terms(model, guide, x[:, :5], y[:, :5])
    torch.testing.assert_close(whole.kl, alone.kl)
    assert (whole.log_likelihood["y"][:, 5:] == 0).all()
    torch.testing.assert_close(
        whole.log_likelihood["y"].sum(), alone.log_likelihood["y"].sum(), rtol=0.1, atol=1.0
    )


@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_a_missing_output_is_left_out(observation: Any) -> None:
    model = small(observation=observation)
    x, y = torch.randn(4, 6, 2), counts(4, 6, 2)
    gaps = y.clone()
    gaps[1, 2, 0], gaps[3, 4:] = NAN, NAN
    pyro.set_rng_seed(0)
    nodes = traced(NeuronGuide(model), x)
    z = {"neurons.z": nodes["neurons.z"]["value"]}
    seen = traced(pyro.condition(model, z), x, gaps)["y"]
    full = model.likelihood(model.readout(z["neurons.z"])).log_prob(y)
    expected = torch.where(gaps.isnan(), 0.0, full).sum()
    trace = pyro.poutine.trace(pyro.condition(model, z)).get_trace(x, gaps)
    trace.compute_log_prob()
    torch.testing.assert_close(trace.nodes["y"]["log_prob_sum"], expected)
    assert torch.isfinite(seen["value"]).all()


def test_outputs_that_are_missing_together_keep_the_joint_density() -> None:
    """The mask has one column where it can: PAC-m's joint density needs whole steps."""
    model, x, y = small(observation="normal"), torch.randn(4, 6, 2), torch.randn(4, 6, 2)
    y[1, 2] = NAN
    guide = NeuronGuide(model)
    terms = PACmELBO(closed_form=True).terms(model, guide, x, y)
    assert terms.log_likelihood["y"].shape == (4, 6)
    assert terms.log_likelihood["y"][1, 2] == 0
    y[1, 3, 0] = NAN
    with pytest.raises(InputError, match="a mask of whole rows for the joint density"):
        PACmELBO(closed_form=True).terms(model, guide, x, y)
    assert math.isfinite(PACmELBO(closed_form=True, joint_weight=0.0).loss(model, guide, x, y))


@pytest.mark.parametrize("posterior", [NormalPosterior, SmoothingPosterior, StructuredPosterior])
def test_closed_form_is_the_marginal_of_each_step(posterior: Any) -> None:
    model = small(observation="normal", num_outputs=1, posterior=posterior())
    x, y = torch.randn(4, 6, 2), torch.randn(4, 6, 1)
    guide = NeuronGuide(model)
    form = PACmELBO(closed_form=True).terms(model, guide, x, y).log_likelihood["y"]
    draws = PACmELBO(20_000).terms(model, guide, x, y).log_likelihood["y"]
    torch.testing.assert_close(form, draws, atol=0.06, rtol=0.02)


@pytest.mark.parametrize("prior", [lambda: None, StandardNormal], ids=["memory", "none"])
def test_stock_losses_agree(prior: Any) -> None:
    model = small(prior=prior())
    x, y = torch.randn(4, 6, 2), torch.randn(4, 6, 2)
    x[1, 3], y[2, 2, 0] = NAN, NAN
    pyro.set_rng_seed(3)
    stock = TraceMeanField_ELBO().differentiable_loss(model, NeuronGuide(model), x, y)
    torch.testing.assert_close(loss(model, x, y), stock)


def test_memory_off_has_independent_steps() -> None:
    model = small(prior=StandardNormal())
    x, order = torch.randn(4, 6, 2), torch.randperm(6)
    with record() as seen:
        NeuronGuide(model)(x)
    with record() as shuffled:
        NeuronGuide(model)(x[:, order])
    torch.testing.assert_close(shuffled["neurons"].last_loc, seen["neurons"].last_loc[:, order])
    plates = traced(NeuronGuide(model), x)["neurons.z"]["cond_indep_stack"]
    assert {frame.name for frame in plates} == {"data", "neurons.time", "neurons.units"}


def test_memory_carries_a_step_over() -> None:
    model = small()
    x = torch.randn(4, 6, 2)
    other = x.clone()
    other[:, 2] += 1.0
    locs = []
    for given in (x, other):
        with record() as seen:
            NeuronGuide(model)(given)
        locs.append(seen["neurons"].last_loc)
    change = (locs[0] - locs[1]).abs().amax((0, 2))
    assert (change[:2] == 0).all()  # filtering: no look ahead
    assert (change[2:] > 1e-4).all()


def test_hyperparameters_are_drawn_once_for_all_rows() -> None:
    prior = AutoregressiveNormal(3, phi=dist.Uniform(0.0, 1.0), scale=dist.LogNormal(-1.0, 0.5))
    model = small(prior=prior)
    x, y = torch.randn(4, 6, 2), torch.randn(4, 6, 2)
    nodes = traced(model, x)
    for name in ("neurons.prior.phi", "neurons.prior.scale"):
        assert nodes[name]["value"].shape == (3,)
        assert {frame.name for frame in nodes[name]["cond_indep_stack"]} == {f"{name}.units"}
    assert math.isfinite(Trace_ELBO().loss(model, NeuronGuide(model), x, y))
    assert math.isfinite(LocalELBO(3).loss(model, NeuronGuide(model), x, y))


@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_dtype_is_kept(observation: Any) -> None:
    model = small(observation=observation).float()
    x, y = torch.randn(4, 6, 2).float(), counts(4, 6, 2).float()
    x[0, 2], y[1, 1] = NAN, NAN
    assert model(x).dtype == torch.float32
    value = loss(model, x, y)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)


def test_the_twin_is_deterministic() -> None:
    model = deterministic(small())
    x = torch.randn(4, 6, 2)
    nodes = [traced(NeuronGuide(model), x)["neurons.z"]["value"] for _ in range(2)]
    torch.testing.assert_close(nodes[0], nodes[1], rtol=0, atol=0)


def seen_on_its_own(chain: LinearGaussianChain) -> StateSpace:
    """Return the state-space model whose posterior is exact: each output sees one unit."""
    units = len(chain.scale)
    model = StateSpace(
        units,
        units,
        num_units=units,
        hidden=2 * units,
        observation="normal",
        prior=AutoregressiveNormal(units, phi=chain.phi.squeeze(-1), scale=chain.scale),
        posterior=StructuredPosterior(NormalPosterior("unit")),
    )
    eye, both = torch.eye(units), torch.cat([torch.eye(units), -torch.eye(units)])
    potential = model.neurons.posterior.potential
    gain = chain.loading.diagonal()

    def raw(scale: Tensor, floor: float) -> Tensor:
        return torch.log(torch.expm1(scale - floor))

    with torch.no_grad():
        first = model.encoder[0]  # relu(x) and relu(-x): nothing is lost
        first.weight.copy_(both)
        first.bias.zero_()
        potential.loc.weight.copy_(both.mT / gain.unsqueeze(-1))
        potential.loc.bias.zero_()
        potential.raw_scale.value.copy_(raw(chain.noise / gain, potential.min_scale))
        model.readout.linear.weight.copy_(eye * gain)
        model.readout.linear.bias.zero_()
        model.likelihood.scale.raw.copy_(raw(chain.noise, model.likelihood.scale.min_scale))
    return model


@pytest.mark.parametrize("gaps", [False, True])
def test_the_exact_posterior_gives_the_exact_evidence(gaps: bool) -> None:
    """With the exact posterior `log p(y, z) - log q(z)` is the log evidence at every draw."""
    chain = LinearGaussianChain(
        torch.tensor([0.9, -0.4]),
        torch.tensor([0.5, 0.8]),
        torch.tensor([0.7, 0.3]),
        loading=torch.diag(torch.tensor([1.5, 0.8])),
    )
    y = chain.sample(20, (3,)).observed
    there = torch.ones(3, 20, dtype=torch.bool)
    if gaps:
        there[0, 5:9], there[1, 0], there[2, 15:] = False, False, False
    y = y.masked_fill(~there.unsqueeze(-1), NAN)
    model = seen_on_its_own(chain)
    bound = -Trace_ELBO().loss(model, NeuronGuide(model), y, y)
    exact = chain.log_evidence(y.nan_to_num(), there).sum()
    assert bound == pytest.approx(float(exact), rel=1e-9)


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (torch.zeros(6, 2), r"x: expected shape \(..., rows, time, 2\) with at least one row"),
        (torch.zeros(4, 0, 2), r"x: expected shape \(..., rows, time, 2\)"),
        (torch.zeros(4, 6, 3), r"x: expected shape \(..., 2\)"),
        (torch.zeros(4, 6, 2, dtype=torch.long), "x: expected a floating-point tensor"),
        (torch.full((4, 6, 2), math.inf), "x: expected finite values, or NaN for what is missing"),
    ],
)
def test_refuses_other_inputs(x: Tensor, match: str) -> None:
    with pytest.raises(InputError, match=match):
        small()(x)


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (torch.zeros(4, 6, 1), "y: expected shape"),
        (torch.full((4, 6, 2), -math.inf), "y: expected finite values, or NaN"),
        (torch.full((4, 6, 2), -1.0), r"y: expected counts: integers of at least 0, got -1.0 at"),
        (torch.full((4, 6, 2), 0.5), "y: expected counts: integers of at least 0, got 0.5 at"),
    ],
)
def test_refuses_other_targets(y: Tensor, match: str) -> None:
    with pytest.raises(InputError, match=match):
        small(observation="negative_binomial")(torch.zeros(4, 6, 2), y)


def test_refuses_an_unknown_observation() -> None:
    with pytest.raises(InputError, match="observation: expected one of"):
        StateSpace(2, observation="poisson")  # type: ignore[arg-type]
