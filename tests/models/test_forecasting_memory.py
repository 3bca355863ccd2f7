"""A forecaster of windows in sequence: memory, its absence, missing windows, scored steps."""

from __future__ import annotations

from typing import Any, Literal

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro_vdn.guides import NeuronGuide, without_neurons
from pyro_vdn.guides.markov import FilteringPosterior, SmoothingPosterior
from pyro_vdn.models import Forecaster
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO, PACmELBO, predict
from pyro_vdn.nn import (
    AutoregressiveNormal,
    GaussianChain,
    LearnedNormal,
    NormalPosterior,
    StandardNormal,
    normalise_window,
)
from pyro_vdn.poutine import autoregressive_cost, deterministic, kl_weight, penalize
from pyro_vdn.testing import loss_and_grads, randomise

ROWS, TIME, LENGTH, HORIZON, UNITS = 5, 4, 12, 3, 6


def make(memory: nn.Module | None = None, **options: Any) -> Forecaster:
    pyro.set_rng_seed(3)
    model = Forecaster(
        LENGTH, HORIZON, hidden=7, num_units=UNITS, rank=2, kernel_size=3, memory=memory, **options
    )
    randomise(model)
    return model


def autoregressive(order: int = 1) -> AutoregressiveNormal:
    return AutoregressiveNormal(UNITS, phi=0.8, order=order)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(ROWS, TIME, LENGTH).cumsum(-1)


@pytest.fixture
def y() -> Tensor:
    return torch.randn(ROWS, TIME, HORIZON)


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("scored", [None, 1, 3])
@pytest.mark.parametrize(
    "prior", [autoregressive, lambda: autoregressive(2), StandardNormal, LearnedNormal]
)
def test_sites_and_plates(prior: Any, scored: int | None, batch: tuple[int, ...]) -> None:
    model = make(prior(), scored_steps=scored)
    x = torch.randn(*batch, ROWS, TIME, LENGTH)
    with pyro.plate_stack("outer", batch, rightmost_dim=-4):
        trace = pyro.poutine.trace(model).get_trace(x)
    steps = scored or TIME
    z, y = trace.nodes["neurons.z"], trace.nodes["y"]
    assert z["fn"].batch_shape == (*batch, ROWS, TIME, UNITS)
    assert (y["fn"].batch_shape, y["fn"].event_shape) == ((*batch, ROWS, steps, 1), (HORIZON,))
    assert trace.nodes["_RETURN"]["value"].shape == (*batch, ROWS, steps, HORIZON)
    plates = [
        {(frame.name, frame.dim, frame.size) for frame in site["cond_indep_stack"]}
        for site in (z, y)
    ]
    inner = {("data", -3, ROWS), ("neurons.time", -2, TIME), ("neurons.units", -1, UNITS)}
    assert plates[0] >= inner
    assert plates[1] >= {("data", -3, ROWS), ("time", -2, steps)}
    assert len(plates[1]) == 2 + len(batch)


LOSSES = {
    "local": LocalELBO,
    "two particles": lambda: LocalELBO(2),
    "closed form": lambda: PACmELBO(closed_form=True, joint_weight=0.3, inflation=0.1),
    "sampled": lambda: PACmELBO(3),
    "trace": Trace_ELBO,
}


@pytest.mark.parametrize("loss", LOSSES)
def test_without_memory_one_window_is_the_plain_model(loss: str, x: Tensor, y: Tensor) -> None:
    plain, off = make(), make(StandardNormal())
    value, grads = loss_and_grads(
        LOSSES[loss](), plain, NeuronGuide(plain), x[:, 0], y[:, 0], of=plain
    )
    other, other_grads = loss_and_grads(
        LOSSES[loss](), off, NeuronGuide(off), x[:, :1], y[:, :1], of=off
    )
    assert other == pytest.approx(value, rel=1e-12)
    for name, grad in grads.items():
        torch.testing.assert_close(other_grads[name], grad, rtol=1e-9, atol=1e-11)


def test_without_memory_windows_are_rows(x: Tensor, y: Tensor) -> None:
    plain, off = make(), make(StandardNormal())
    pyro.set_rng_seed(0)
    flat = LocalELBO().terms(plain, NeuronGuide(plain), x.flatten(0, 1), y.flatten(0, 1))
    pyro.set_rng_seed(0)
    sequences = LocalELBO().terms(off, NeuronGuide(off), x, y)
    torch.testing.assert_close(sequences.log_likelihood["y"].flatten(), flat.log_likelihood["y"])
    torch.testing.assert_close(sequences.kl["neurons"], flat.kl["neurons"])


def two_window_loss(model: Forecaster, x: Tensor, y: Tensor, noise: Tensor) -> Tensor:
    """The negative ELBO of two windows of which the last is scored, from its definition."""
    window = normalise_window(x)
    h = model.encoder(window.values)
    filtering = model.neurons.posterior
    assert isinstance(filtering, FilteringPosterior)
    potential = filtering.potential(h)
    prior = model.neurons.prior
    assert isinstance(prior, AutoregressiveNormal)
    phi, s = prior.coefficients()[:, 0], prior.innovation_scale()
    stationary = s / (1 - phi.square()).sqrt()
    # The product of the prior's conditional and the potential, step by step.
    precision = [
        1 / variance + potential.scale[:, step].square().reciprocal()
        for step, variance in enumerate((stationary.square(), s.square()))
    ]
    informed = potential.loc / potential.scale.square()
    first = dist.Normal(informed[:, 0] / precision[0], precision[0].rsqrt())
    z_0 = first.loc + first.scale * noise[:, 0]
    slope = phi / s.square() / precision[1]
    then = dist.Normal(slope * z_0 + informed[:, 1] / precision[1], precision[1].rsqrt())
    z_1 = then.loc + then.scale * noise[:, 1]
    kl = torch.distributions.kl_divergence(first, dist.Normal(0.0, stationary)).sum()
    distance = (slope - phi) * first.loc + informed[:, 1] / precision[1]
    spread = then.variance + ((slope - phi) * first.scale).square() + distance.square()
    kl = kl + (spread / (2 * s.square()) + (s / then.scale).log() - 0.5).sum()
    shift, deviation = (value[:, 1] for value in window.units)
    loc = shift + deviation * model.readout(z_1)
    scale = model.likelihood.scale(h[:, 1]) * deviation
    outcome = dist.MultivariateStudentT(
        model.likelihood.degrees_of_freedom(), loc, scale.diag_embed()
    )
    return kl - outcome.log_prob(y[:, 0]).sum()


def test_two_windows_are_the_loss_written_by_hand(x: Tensor, y: Tensor) -> None:
    model = make(autoregressive(), scored_steps=1)
    x, y = x[:, :2], y[:, :1]
    value, grads = loss_and_grads(LocalELBO(), model, NeuronGuide(model), x, y, of=model)
    pyro.set_rng_seed(0)
    by_hand = two_window_loss(model, x, y, torch.randn(ROWS, 2, UNITS))
    assert value == pytest.approx(by_hand.item(), rel=1e-10)
    names, parameters = zip(*model.named_parameters(), strict=True)
    for name, grad in zip(names, torch.autograd.grad(by_hand, parameters), strict=True):
        assert grad.abs().max() > 0, name
        torch.testing.assert_close(grads[name], grad, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "posterior", [FilteringPosterior, SmoothingPosterior, lambda: NormalPosterior("low_rank")]
)
@pytest.mark.parametrize("loss", [*LOSSES, "mean field"])
def test_every_loss_reaches_every_parameter(
    loss: str, posterior: Any, x: Tensor, y: Tensor
) -> None:
    model = make(autoregressive(), posterior=posterior(), scored_steps=2)
    objective = (LOSSES | {"mean field": TraceMeanField_ELBO})[loss]()
    _, grads = loss_and_grads(objective, model, NeuronGuide(model), x, y[:, -2:], of=model)
    assert not [name for name, grad in grads.items() if not grad.abs().max() > 0]


def test_single_pass_is_the_two_pass_loss(x: Tensor, y: Tensor) -> None:
    model = make(autoregressive(2), scored_steps=3)
    args = (model, NeuronGuide(model), x, y[:, -3:])
    value, grads = loss_and_grads(LocalELBO(), *args, of=model)
    stock, stock_grads = loss_and_grads(TraceMeanField_ELBO(), *args, of=model)
    assert value == pytest.approx(stock, rel=1e-12)
    for name, grad in grads.items():
        torch.testing.assert_close(stock_grads[name], grad, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("loss", ["local", "closed form"])
@pytest.mark.parametrize("prior", [autoregressive, StandardNormal])
def test_scored_steps_leave_out_what_no_target_asks_for(
    prior: Any, loss: str, x: Tensor, y: Tensor
) -> None:
    scored, full = make(prior(), scored_steps=2), make(prior())
    unobserved = y.clone()
    unobserved[:, :-2, 0] = torch.nan  # one value, and the whole target counts as unobserved
    value, grads = loss_and_grads(
        LOSSES[loss](), scored, NeuronGuide(scored), x, y[:, -2:], of=scored
    )
    masked, masked_grads = loss_and_grads(
        LOSSES[loss](), full, NeuronGuide(full), x, unobserved, of=full
    )
    complete, _ = loss_and_grads(LOSSES[loss](), full, NeuronGuide(full), x, y, of=full)
    assert value == pytest.approx(masked, rel=1e-12)
    assert abs(complete - masked) > 1.0
    for name, grad in grads.items():
        torch.testing.assert_close(masked_grads[name], grad, rtol=1e-8, atol=1e-10)


def test_windows_before_the_scored_ones_never_reach_the_readout(x: Tensor, y: Tensor) -> None:
    model = make(autoregressive(), scored_steps=1)
    read: list[tuple[int, ...]] = []
    for head in (model.readout, model.likelihood.scale):
        head.register_forward_pre_hook(lambda _, args: read.append(tuple(args[0].shape)))
    LocalELBO().loss(model, NeuronGuide(model), x, y[:, -1:])
    assert read == [(ROWS, 1, UNITS), (ROWS, 1, 7)]


def test_memory_carries_a_window_into_the_next_forecast(x: Tensor) -> None:
    other = x.clone()
    other[:, 0] = torch.randn(ROWS, LENGTH).cumsum(-1)
    model, off = make(autoregressive(), scored_steps=1), make(StandardNormal(), scored_steps=1)
    means = [[_mean(one, values) for values in (x, other)] for one in (model, off)]
    assert ((means[0][0] - means[0][1]).abs() > 1e-4).all()
    assert (means[1][0] == means[1][1]).all()


def _mean(model: Forecaster, x: Tensor) -> Tensor:
    """Locations of the forecasts of the deterministic twin."""
    node = pyro.poutine.trace(deterministic(model)).get_trace(x).nodes["y"]
    loc: Tensor = node["fn"].loc.squeeze(-2)
    return loc


@pytest.mark.parametrize("loss", ["local", "closed form"])
def test_deterministic_twin(loss: str, x: Tensor, y: Tensor) -> None:
    model = make(autoregressive())
    twin = deterministic(model)
    values = [
        LOSSES[loss]().terms(twin, NeuronGuide(twin), x, y) for _ in range(2)
    ]  # without a seed between them
    assert values[0].loss == values[1].loss
    assert (values[0].kl["neurons"] == 0).all()
    window = normalise_window(x)
    h = model.encoder(window.values)
    prior = model.neurons.prior(h).expand((ROWS, TIME, UNITS))
    z = model.neurons.posterior(h, prior).mean
    loc = window.units.restore(model.readout(z))
    torch.testing.assert_close(_mean(model, x), loc)


@pytest.mark.parametrize("loss", ["local", "closed form", "trace"])
@pytest.mark.parametrize("prior", [autoregressive, StandardNormal])
def test_a_missing_window_tells_the_neurons_nothing(
    prior: Any, loss: str, x: Tensor, y: Tensor
) -> None:
    model = make(prior())
    gap, other = x.clone(), x.clone()
    gap[1, 2, 5] = torch.nan
    other[1, 2] = torch.nan
    results = [
        loss_and_grads(LOSSES[loss](), model, NeuronGuide(model), values, y, of=model)
        for values in (gap, other)
    ]
    assert results[0].loss == results[1].loss
    assert all(grad.isfinite().all() for grad in results[0].grads.values())
    offered = pyro.poutine.trace(NeuronGuide(model)).get_trace(gap, y).nodes["neurons.z"]["fn"]
    expected = model.neurons.prior(torch.zeros(TIME, 7))
    if isinstance(model.neurons.prior, AutoregressiveNormal):
        torch.testing.assert_close(offered.coefficients[1, 2], expected.coefficients[0])
    center = offered.offset if isinstance(offered, GaussianChain) else offered.loc
    torch.testing.assert_close(offered.scale[1, 2], expected.scale.expand(TIME, UNITS)[2])
    assert (center[1, 2] == 0).all()
    assert (center[1, 1] != 0).all()


def test_a_missing_window_is_forecast_from_the_last_one(x: Tensor) -> None:
    model = make(StandardNormal())
    nn.init.zeros_(model.readout.linear.weight)
    gap = x.clone()
    gap[0, 1:3] = torch.nan
    gap[1, :2] = torch.nan
    loc, full = _mean(model, gap), _mean(model, x)
    torch.testing.assert_close(loc[0, 1:3], full[0, :1].expand(2, -1))
    torch.testing.assert_close(
        loc[1, :2], model.readout.linear.bias.expand(2, -1)
    )  # standard units
    torch.testing.assert_close(loc[[0, 1], -1], full[[0, 1], -1])


def test_hyper_priors_are_drawn_once_for_all_rows(x: Tensor, y: Tensor) -> None:
    memory = AutoregressiveNormal(UNITS, phi=dist.Uniform(0.0, 1.0), scale=0.5)
    model = make(memory, scored_steps=1)
    trace = pyro.poutine.trace(model).get_trace(x)
    assert trace.nodes["neurons.prior.phi"]["fn"].batch_shape == (UNITS,)
    guide = NeuronGuide(model, others=AutoNormal(without_neurons(model)))
    for loss in (LocalELBO(2), Trace_ELBO(2, vectorize_particles=True, max_plate_nesting=3)):
        assert torch.isfinite(torch.as_tensor(loss.loss(model, guide, x, y[:, -1:])))


def test_predicts_the_scored_windows(x: Tensor, y: Tensor) -> None:
    model = make(autoregressive(), scored_steps=2)
    gap = x.clone()
    gap[0, 1] = torch.nan
    prediction = predict(model, NeuronGuide(model), gap, y=y[:, -2:], num_samples=7)
    assert prediction.draws.shape == (7, ROWS, 2, HORIZON)
    assert prediction.log_prob_per_output.shape == (ROWS, 2, HORIZON)
    assert prediction.log_prob_joint.shape == (ROWS,)


def test_training_lowers_the_loss_in_single_precision(x: Tensor) -> None:
    model = make(autoregressive(), scored_steps=1).float()
    x = x.float()
    y = x[:, -1:, -1:] + x[:, -2:-1, :HORIZON]
    guide, loss = NeuronGuide(model), PACmELBO(closed_form=True)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        value = loss.differentiable_loss(model, guide, x, y)
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(value.item())
    assert value.dtype == torch.float32
    assert losses[-1] < losses[0] - 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scored_steps": 1}, r"scored_steps: expected None without a prior .* got 1.*memory="),
        ({"memory": StandardNormal(), "scored_steps": 0}, "scored_steps: expected a positive"),
        ({"memory": AutoregressiveNormal(UNITS + 1)}, f"expected a layer of {UNITS + 1} units"),
    ],
)
def test_refuses_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(ROWS, LENGTH), None, r"x: expected shape \(\.\.\., rows, time, 12\)"),
        (torch.zeros(ROWS, 0, LENGTH), None, "with at least one row and step"),
        (
            torch.zeros(ROWS, 1, LENGTH),
            None,
            "x: expected at least scored_steps=2 windows .* got 1",
        ),
        (torch.full((ROWS, 2, LENGTH), torch.inf), None, "x: expected finite values, or NaN"),
        (
            torch.zeros(ROWS, 3, LENGTH),
            torch.zeros(ROWS, 3, HORIZON),
            r"y: expected shape \(5, 2, 3\), got shape \(5, 3, 3\)",
        ),
        (
            torch.zeros(ROWS, 3, LENGTH),
            torch.full((ROWS, 2, HORIZON), -torch.inf),
            "y: expected finite values, or NaN",
        ),
    ],
)
def test_refuses_inputs(x: Tensor, y: Tensor | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(autoregressive(), scored_steps=2)(x, y)


@pytest.mark.parametrize("on", ["loc", "sample"])
def test_the_published_window_form_is_a_configuration(on: Literal["loc", "sample"]) -> None:
    """`NLL(current) + beta KL(current) + lambda mean_i (m - phi m')^2 / (2 s^2)`, by hand."""
    phi, scale, beta, weight, units = 0.95, 0.3, 0.01, 0.7, 5
    bare = Forecaster(
        8, 3, hidden=6, num_units=units, kernel_size=3, memory=StandardNormal(), scored_steps=1
    )
    cost = autoregressive_cost(phi, scale=scale, on=on, weight=weight / units)
    model = kl_weight(bare, {"neurons": torch.tensor([[0.0], [beta]])})
    model = penalize(model, {"neurons": cost}, name="memory")
    x, y = torch.randn(4, 2, 8), torch.randn(4, 1, 3)
    terms = LocalELBO().terms(model, NeuronGuide(model), x, y)
    windows = normalise_window(x)
    posterior = bare.neurons.posterior(bare.encoder(windows.values))
    mean, variance = posterior.mean, posterior.variance
    kl = 0.5 * (mean.square() + variance - variance.log() - 1)
    torch.testing.assert_close(terms.kl["neurons"].sum(), beta * kl[:, 1].sum())
    moved = (mean[:, 1] - phi * mean[:, 0]).square()
    if on == "sample":
        moved = moved + variance[:, 1] + phi**2 * variance[:, 0]
    expected = weight * (moved / (2 * scale**2)).mean(-1).sum()
    torch.testing.assert_close(terms.penalty["neurons"].sum(), expected)
    assert terms.log_likelihood["y"].numel() == 4
