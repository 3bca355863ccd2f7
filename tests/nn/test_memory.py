"""Layers with memory: missing steps, sequences of different lengths, plates, and all of Pyro."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro_vdn.guides import (
    FilteringPosterior,
    NeuronGuide,
    SmoothingPosterior,
    StructuredPosterior,
)
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO
from pyro_vdn.nn import (
    AutoregressiveNormal,
    ConditionalNormal,
    LearnedNormal,
    NormalPosterior,
    StandardNormal,
    VariationalNeurons,
    closed_form_kl,
)
from pyro_vdn.nn.neurons import Steps
from pyro_vdn.poutine import PosteriorMessenger
from pyro_vdn.testing import FixedNoise, MemoryNet, randomise

ROWS, TIME, UNITS = 3, 7, 4
POSTERIORS: dict[str, Callable[[], nn.Module]] = {
    "factorised": lambda: NormalPosterior("input"),
    "filtering": lambda: FilteringPosterior(NormalPosterior("input")),
    "smoothing": lambda: SmoothingPosterior(NormalPosterior("input")),
    "structured": lambda: StructuredPosterior(NormalPosterior("input")),
}
STEPS: list[Steps] = ["parallel", "markov"]
PHI = torch.tensor([0.8, -0.3, 0.2])
LENGTHS = [7, 4, 1]


def make_net(posterior: str, order: int = 1, steps: Steps = "parallel", **kwargs: Any) -> MemoryNet:
    prior = AutoregressiveNormal(UNITS, phi=PHI[:order], order=order)
    model = MemoryNet(prior, POSTERIORS[posterior](), steps=steps, **kwargs)
    randomise(model)
    return model


def chains(layer: VariationalNeurons, h: Tensor, mask: Tensor | None = None) -> tuple[Any, Any]:
    """Posterior and prior of a layer, as distributions over all steps."""
    with PosteriorMessenger(), pyro.poutine.trace() as seen:
        layer(h, mask)
    site = seen.trace.nodes["z"]
    return site["fn"], site["infer"]["vdn_prior"]


def kl_of(layer: VariationalNeurons, h: Tensor, mask: Tensor | None = None) -> Tensor:
    kl = closed_form_kl(*chains(layer, h, mask))
    assert kl is not None
    return kl.detach().expand(*h.shape[:-1], UNITS)


def make_layer(posterior: str, order: int = 1) -> VariationalNeurons:
    return make_net(posterior, order).neurons


def loss_of(
    model: MemoryNet, loss: Any, noise: Tensor, *args: Tensor
) -> tuple[float, list[Tensor]]:
    with FixedNoise(noise):
        value = loss.differentiable_loss(model, NeuronGuide(model), *args)
    grads = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
    return value.item(), [
        torch.zeros_like(p) if g is None else g
        for g, p in zip(grads, model.parameters(), strict=True)
    ]


# --- sequences of different lengths ---


@pytest.mark.parametrize("local", [False, True], ids=["plain", "local"])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("loss", [Trace_ELBO, TraceMeanField_ELBO, LocalELBO])
@pytest.mark.parametrize("posterior", POSTERIORS)
def test_padded_ends_are_separate_sequences(
    posterior: str, loss: Any, steps: Steps, local: bool
) -> None:
    model = make_net(posterior, 2, steps, local_reconstruction=local)
    x, y = torch.randn(ROWS, TIME, 3), torch.randn(ROWS, TIME, 2)
    noise = torch.randn(ROWS, TIME, UNITS)
    mask = torch.arange(TIME) < torch.tensor(LENGTHS)[:, None]
    value, grads = loss_of(model, loss(), noise, x, y, mask)
    total, sums = 0.0, [torch.zeros_like(grad) for grad in grads]
    for row, length in enumerate(LENGTHS):
        own = slice(row, row + 1), slice(0, length)
        one, parts = loss_of(model, loss(), noise[own], x[own], y[own])
        total, sums = total + one, [a + b for a, b in zip(sums, parts, strict=True)]
    assert value == pytest.approx(total, rel=1e-10)
    for mine, theirs in zip(grads, sums, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("order", [1, 3])
def test_kl_and_moments_of_padded_ends(order: int, posterior: str) -> None:
    layer, h = make_layer(posterior, order), torch.randn(ROWS, TIME, 3)
    mask = torch.arange(TIME) < torch.tensor(LENGTHS)[:, None]
    q, _ = chains(layer, h, mask)
    kl = kl_of(layer, h, mask)
    for row, length in enumerate(LENGTHS):
        alone, _ = chains(layer, h[row, :length])
        torch.testing.assert_close(q.mean[row, :length], alone.mean)
        torch.testing.assert_close(q.variance[row, :length], alone.variance)
        torch.testing.assert_close(kl[row, :length], kl_of(layer, h[row, :length]))
        assert float(kl[row, length:].abs().sum()) < 1e-12


@pytest.mark.parametrize("order", [1, 3])
def test_padded_starts_cost_the_exact_posterior_nothing(order: int) -> None:
    layer, h = make_layer("structured", order), torch.randn(ROWS, TIME, 3)
    mask = torch.arange(TIME).flip(0) < torch.tensor(LENGTHS)[:, None]
    q, _ = chains(layer, h, mask)
    kl = kl_of(layer, h, mask)
    for row, length in enumerate(LENGTHS):
        alone, _ = chains(layer, h[row, -length:])
        torch.testing.assert_close(q.mean[row, -length:], alone.mean)
        torch.testing.assert_close(q.variance[row, -length:], alone.variance)
        torch.testing.assert_close(kl[row].sum(0), kl_of(layer, h[row, -length:]).sum(0))


@pytest.mark.parametrize("posterior", ["factorised", "filtering", "smoothing"])
def test_padded_starts_follow_the_prior(posterior: str) -> None:
    layer, h = make_layer(posterior), torch.randn(ROWS, TIME, 3)
    if posterior == "smoothing":  # a look ahead from where there is no input is left out
        layer.posterior.informed = lambda mask: mask  # type: ignore[union-attr, assignment]
    mask = torch.arange(TIME).flip(0) < torch.tensor(LENGTHS)[:, None]
    q, p = chains(layer, h, mask)
    kl = kl_of(layer, h, mask)
    for row, length in enumerate(LENGTHS):
        missing = TIME - length
        torch.testing.assert_close(q.variance[row, :missing], p.variance[row, :missing])
        assert bool((q.mean[row, :missing] == 0).all())
        assert float(kl[row, :missing].abs().sum()) < 1e-12
        assert bool((kl[row, missing:].abs() > 1e-6).all())


# --- missing steps ---


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("posterior", ["factorised", "filtering"])
def test_missing_steps_follow_the_prior_given_the_past(posterior: str, order: int) -> None:
    layer, h = make_layer(posterior, order), torch.randn(ROWS, TIME, 3)
    mask = torch.rand(ROWS, TIME) > 0.4
    q, p = chains(layer, h, mask)
    z = torch.randn(ROWS, TIME, UNITS)
    missing = ~mask
    torch.testing.assert_close(q.log_prob(z)[missing], p.log_prob(z)[missing])
    assert not bool(torch.isclose(q.log_prob(z)[mask], p.log_prob(z)[mask]).any())
    kl = kl_of(layer, h, mask)
    assert float(kl[missing].abs().max()) < 1e-12
    assert bool((kl[mask] > 1e-6).all())


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_no_input_at_all_leaves_the_prior(posterior: str) -> None:
    layer, h = make_layer(posterior, 2), torch.randn(ROWS, TIME, 3)
    mask = torch.zeros(ROWS, TIME, dtype=torch.bool)
    q, p = chains(layer, h, mask)
    torch.testing.assert_close(q.mean, torch.zeros(ROWS, TIME, UNITS))
    torch.testing.assert_close(q.variance, p.variance)
    assert float(kl_of(layer, h, mask).abs().max()) < 1e-12


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_a_mask_of_all_steps_is_no_mask(posterior: str) -> None:
    layer, h = make_layer(posterior, 2), torch.randn(ROWS, TIME, 3)
    mask = torch.ones(ROWS, TIME, dtype=torch.bool)
    (q, _), (plain, _) = chains(layer, h, mask), chains(layer, h)
    torch.testing.assert_close(q.mean, plain.mean)
    torch.testing.assert_close(q.variance, plain.variance)
    torch.testing.assert_close(kl_of(layer, h, mask), kl_of(layer, h))


@pytest.mark.parametrize("local", [False, True], ids=["plain", "local"])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("posterior", POSTERIORS)
def test_missing_steps_are_not_read(posterior: str, steps: Steps, local: bool) -> None:
    model = make_net(posterior, 2, steps, local_reconstruction=local)
    model.encode = nn.Identity()
    y, mask = torch.randn(ROWS, TIME, 2), torch.rand(ROWS, TIME) > 0.4
    noise, results = torch.randn(ROWS, TIME, UNITS), []
    x = torch.randn(ROWS, TIME, 3)
    for filler in (0.0, torch.nan, torch.inf):
        h = torch.where(mask[..., None], x, filler).requires_grad_()
        with FixedNoise(noise):
            value = LocalELBO().differentiable_loss(model, NeuronGuide(model), h, y, mask)
        grads = torch.autograd.grad(value, [h, *model.parameters()])
        assert bool((grads[0][~mask] == 0).all())
        assert bool((grads[0][mask] != 0).any())
        results.append((value, *grads))
    for other in results[1:]:
        for mine, theirs in zip(results[0], other, strict=True):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("order", [1, 2])
def test_one_mask_for_all_rows(order: int) -> None:
    layer, h = make_layer("structured", order), torch.randn(ROWS, TIME, 3)
    mask = torch.rand(TIME) > 0.4
    shared, each = kl_of(layer, h, mask), kl_of(layer, h, mask.expand(ROWS, TIME))
    torch.testing.assert_close(shared, each)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(ROWS, TIME), r"mask: expected booleans, got torch.float.*isfinite"),
        (torch.ones(ROWS, TIME, dtype=torch.long), r"mask: expected booleans, got torch.int64"),
        (torch.ones(ROWS, 2, dtype=torch.bool), r"mask: expected shape \(3, 7\), got shape \(3, 2"),
        (torch.ones(TIME, ROWS, dtype=torch.bool), r"mask: expected shape \(3, 7\), got shape"),
        (torch.ones(ROWS, dtype=torch.bool), r"mask: expected shape \(7,\), got shape \(3,\)"),
        (
            torch.ones(ROWS, TIME, 3, dtype=torch.bool),
            r"mask: expected shape \(3, 7\), got shape \(3, 7, 3\)",
        ),
    ],
)
@pytest.mark.parametrize("prior", [StandardNormal, lambda: AutoregressiveNormal(UNITS)])
def test_wrong_masks_are_refused(prior: Any, mask: Tensor, message: str) -> None:
    layer = VariationalNeurons(3, UNITS, prior=prior())
    with pytest.raises(InputError, match=message):
        layer(torch.zeros(ROWS, TIME, 3), mask)


@pytest.mark.parametrize("latent_dim", [1, 2])
@pytest.mark.parametrize("make_prior", [StandardNormal, LearnedNormal, ConditionalNormal])
def test_mask_of_a_layer_without_memory(make_prior: Any, latent_dim: int) -> None:
    layer = VariationalNeurons(3, UNITS, prior=make_prior(), latent_dim=latent_dim)
    randomise(layer)
    h, mask = torch.randn(ROWS, TIME, 3), torch.rand(ROWS, TIME) > 0.4
    h = torch.where(mask[..., None], h, torch.nan)
    q, p = chains(layer, h, mask)
    plain, prior = chains(layer, torch.nan_to_num(h))
    torch.testing.assert_close(q.mean[mask], plain.mean[mask])
    torch.testing.assert_close(q.variance[mask], plain.variance[mask])
    torch.testing.assert_close(q.mean[~mask], prior.mean[~mask])
    torch.testing.assert_close(q.variance[~mask], prior.variance[~mask])
    kl = closed_form_kl(q, p)
    assert kl is not None
    kl = kl.expand(ROWS, TIME, UNITS)
    assert bool((kl[~mask] == 0).all())
    assert bool((kl[mask] > 0).all())


def test_the_posterior_of_a_masked_layer_is_normal() -> None:
    class LaplacePosterior(nn.Module):
        def forward(self, h: Tensor) -> dist.Distribution:
            return dist.Laplace(torch.zeros(*h.shape[:-1], UNITS), 1.0)

    layer = VariationalNeurons(
        3, UNITS, prior=AutoregressiveNormal(UNITS), posterior=LaplacePosterior()
    )
    mask = torch.ones(ROWS, TIME, dtype=torch.bool)
    with pytest.raises(InputError, match="expected a Normal or a GaussianChain, got Laplace"):
        PosteriorMessenger()(layer)(torch.zeros(ROWS, TIME, 3), mask)


# --- rolling forward ---


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_steps_to_come_spread_as_the_prior_says(posterior: str) -> None:
    layer, h, last = make_layer(posterior), torch.randn(ROWS, TIME, 3), 2
    mask = (torch.arange(TIME) <= last).expand(ROWS, TIME)
    q, p = chains(layer, h, mask)
    phi, s = layer.prior.coefficients()[:, 0], layer.prior.innovation_scale()  # type: ignore[operator]
    for k in range(TIME - last):
        torch.testing.assert_close(q.mean[:, last + k], phi**k * q.mean[:, last])
        expected = phi ** (2 * k) * q.variance[:, last]
        expected = expected + s**2 * (1 - phi ** (2 * k)) / (1 - phi**2)
        torch.testing.assert_close(q.variance[:, last + k], expected)
    assert bool((q.variance[:, last:].diff(dim=1) > 0).all())
    assert bool((q.variance < p.variance + 1e-12).all())


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_steps_to_come_follow_the_recursion_of_any_order(posterior: str) -> None:
    layer, h, last = make_layer(posterior, 3), torch.randn(ROWS, TIME, 3), 3
    mask = (torch.arange(TIME) <= last).expand(ROWS, TIME)
    q, _ = chains(layer, h, mask)
    phi = layer.prior.coefficients()  # type: ignore[operator]
    for step in range(last + 1, TIME):
        expected = sum(phi[:, lag] * q.mean[:, step - 1 - lag] for lag in range(3))
        torch.testing.assert_close(q.mean[:, step], expected)


# --- shapes ---


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("time", [1, 2, TIME])
@pytest.mark.parametrize("lead", [(), (1,), (3,), (2, 3)])
def test_shapes(lead: tuple[int, ...], time: int, posterior: str, steps: Steps) -> None:
    layer = make_net(posterior, 2, steps).neurons
    h = torch.randn(*lead, time, 3)
    assert layer(h).shape == PosteriorMessenger()(layer)(h).shape == (*lead, time, UNITS)
    if steps == "parallel":
        q, p = chains(layer, h)
        assert q.batch_shape == p.batch_shape == (*lead, time, UNITS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("posterior", POSTERIORS)
def test_dtype_is_kept(posterior: str, steps: Steps, dtype: torch.dtype) -> None:
    model = make_net(posterior, 2, steps).to(dtype)
    x, y = torch.randn(ROWS, TIME, 3).to(dtype), torch.randn(ROWS, TIME, 2).to(dtype)
    mask = torch.rand(ROWS, TIME) > 0.3
    assert LocalELBO().differentiable_loss(model, NeuronGuide(model), x, y, mask).dtype == dtype
    assert model.neurons(x).dtype == dtype


# --- plates ---


@pytest.mark.parametrize("steps", STEPS)
def test_a_plate_of_time_around_the_layer_is_refused(steps: Steps) -> None:
    layer = VariationalNeurons(3, UNITS, prior=AutoregressiveNormal(UNITS), steps=steps)
    message = (
        r"layer '': expected a layer with memory outside of plates at dim -2, where it has its "
        r"time, got one inside of plate 'steps'.*plate\(\"rows\", len\(x\), dim=-3\)"
    )
    with pytest.raises(InputError, match=message), pyro.plate("steps", TIME, dim=-2):
        layer(torch.zeros(TIME, 3))


def test_plates_of_the_site() -> None:
    trace = pyro.poutine.trace(make_net("factorised")).get_trace(torch.randn(ROWS, TIME, 3))
    frames = trace.nodes["neurons.z"]["cond_indep_stack"]
    plates = {frame.name: (frame.dim, frame.size) for frame in frames}
    assert plates == {
        "rows": (-3, ROWS),
        "neurons.time": (-2, TIME),
        "neurons.units": (-1, UNITS),
    }
    assert "neurons.time" not in {frame.name for frame in trace.nodes["y"]["cond_indep_stack"]}


def test_a_subsample_of_rows_is_scaled_up() -> None:
    layer, h = make_layer("structured"), torch.randn(ROWS, TIME, 3)

    def model() -> None:
        with pyro.plate("rows", 10 * ROWS, dim=-3, subsample_size=ROWS):
            layer(h)

    terms = LocalELBO().terms(model, NeuronGuide(model))
    torch.testing.assert_close(terms.loss, 10 * kl_of(layer, h).sum())


# --- everything in Pyro ---


def make_case(steps: Steps = "parallel") -> tuple[MemoryNet, Tensor, Tensor]:
    model = make_net("filtering", 2, steps)
    return model, torch.randn(ROWS, TIME, 3), torch.randn(ROWS, TIME, 2)


def test_condition_on_the_whole_site() -> None:
    model, x, y = make_case()
    z = torch.randn(ROWS, TIME, UNITS)
    conditioned = pyro.poutine.condition(model, {"neurons.z": z})
    trace = pyro.poutine.trace(conditioned).get_trace(x, y)
    expected = model.neurons.prior(x).log_prob(z).sum()
    expected = expected + dist.Normal(model.readout(torch.tanh(z)), 0.5).log_prob(y).sum()
    torch.testing.assert_close(trace.log_prob_sum(), expected)
    loss = LocalELBO().differentiable_loss(conditioned, NeuronGuide(conditioned), x, y)
    torch.testing.assert_close(-loss, expected)


def test_a_condition_for_all_rows_counts_once_a_row() -> None:
    model, x, y = make_case()
    z = torch.randn(TIME, UNITS)
    traces = [
        pyro.poutine.trace(pyro.poutine.condition(model, {"neurons.z": value})).get_trace(x, y)
        for value in (z, z.expand(ROWS, TIME, UNITS).clone())
    ]
    torch.testing.assert_close(traces[0].log_prob_sum(), traces[1].log_prob_sum())


@pytest.mark.parametrize("steps", STEPS)
def test_replay(steps: Steps) -> None:
    model, x, y = make_case(steps)
    guide = pyro.poutine.trace(NeuronGuide(model)).get_trace(x, y)
    replayed = pyro.poutine.trace(pyro.poutine.replay(model, trace=guide)).get_trace(x, y)
    names = [name for name in guide.stochastic_nodes if name.startswith("neurons.z")]
    assert len(names) == (1 if steps == "parallel" else TIME)
    for name in names:
        assert torch.equal(guide.nodes[name]["value"], replayed.nodes[name]["value"])
    estimate = replayed.log_prob_sum() - guide.log_prob_sum()
    assert bool(estimate.isfinite())


@pytest.mark.parametrize("steps", STEPS)
def test_scale_and_mask(steps: Steps) -> None:
    model, x, y = make_case(steps)
    noise = torch.randn(ROWS, TIME, UNITS)

    def density(program: Any) -> Tensor:
        with FixedNoise(noise):
            trace = pyro.poutine.trace(program).get_trace(x, y)
        total: Tensor = trace.log_prob_sum()
        return total

    plain = density(model)
    torch.testing.assert_close(density(pyro.poutine.scale(model, 0.3)), 0.3 * plain)
    rows = [density(pyro.poutine.mask(model, one_row(row))) for row in range(ROWS)]
    torch.testing.assert_close(sum(rows), plain)
    assert bool(density(pyro.poutine.mask(model, torch.tensor(False))) == 0)


def one_row(row: int) -> Tensor:
    return (torch.arange(ROWS) == row).reshape(ROWS, 1, 1)


def test_block_hides_the_neurons() -> None:
    model, x, _ = make_case()
    hidden = pyro.poutine.block(model, hide=["neurons.z"])
    trace = pyro.poutine.trace(hidden).get_trace(x)
    assert "neurons.z" not in trace.nodes
    assert "y" in trace.nodes


def test_uncondition() -> None:
    model, x, y = make_case()
    trace = pyro.poutine.trace(pyro.poutine.uncondition(model)).get_trace(x, y)
    assert not trace.nodes["y"]["is_observed"]
    assert not torch.equal(trace.nodes["y"]["value"], y)


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("steps", STEPS)
def test_predictive(steps: Steps, parallel: bool) -> None:
    model, x, _ = make_case(steps)
    number = 400 if parallel else 40
    draws = Predictive(model, guide=NeuronGuide(model), num_samples=number, parallel=parallel)(x)
    assert draws["y"].shape == (number, ROWS, TIME, 2)
    names = ["neurons.z"] if steps == "parallel" else [f"neurons.z_{t}" for t in range(TIME)]
    z = torch.cat([draws[name] for name in names], -2)
    q = model.neurons.posterior(model.encode(x), model.neurons.prior(x).expand(z.shape[1:]), None)
    error = q.variance.sqrt() / number**0.5
    assert bool(((z.mean(0) - q.mean).abs() < 5 * error).all())


@pytest.mark.parametrize("steps", STEPS)
def test_program_can_be_rendered(steps: Steps) -> None:
    pytest.importorskip("graphviz")
    model, x, y = make_case(steps)
    graph = str(pyro.render_model(model, model_args=(x, y)))
    assert "neurons.z" in graph
    assert "y" in graph


@pytest.mark.parametrize("steps", STEPS)
def test_state_round_trips(steps: Steps) -> None:
    model, x, y = make_case(steps)
    other = MemoryNet(AutoregressiveNormal(UNITS, order=2), POSTERIORS["filtering"](), steps=steps)
    other.load_state_dict(model.state_dict())
    noise = torch.randn(ROWS, TIME, UNITS)
    assert loss_of(model, LocalELBO(), noise, x, y)[0] == pytest.approx(
        loss_of(other, LocalELBO(), noise, x, y)[0], rel=1e-12
    )


def test_two_layers_in_a_stack() -> None:
    class Stack(pyro.nn.PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.first = VariationalNeurons(3, UNITS, prior=AutoregressiveNormal(UNITS))
            self.second = VariationalNeurons(
                UNITS, 2, prior=AutoregressiveNormal(2), posterior=StructuredPosterior()
            )

        def forward(self, x: Tensor) -> Tensor:
            with pyro.plate("rows", len(x), dim=-3):
                h: Tensor = self.second(torch.tanh(self.first(x)))
                return h

    stack = Stack()
    trace = pyro.poutine.trace(stack).get_trace(torch.randn(ROWS, TIME, 3))
    assert {"first.z", "second.z", "first.time", "second.time"} <= set(trace.nodes)
    loss = LocalELBO(num_particles=3).differentiable_loss(
        stack, NeuronGuide(stack), torch.randn(ROWS, TIME, 3)
    )
    loss.backward()
    assert [name for name, p in stack.named_parameters() if p.grad is None] == []
