"""A penalty at the neurons' sites: the loss plus what it costs, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import DeepRegression, Regression
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO, PACmELBO, Terms, log_density, predict, predict_closed_form
from pyro_vdn.nn import LearnedNormal, VariationalNeurons
from pyro_vdn.poutine import PenaltyMessenger, clamp, deterministic, kl_weight, penalize
from pyro_vdn.testing import (
    NeuronStack,
    hand_written_guide,
    loss_and_grads,
    posterior_by_hand,
    randomise,
)
from pyro_vdn.testing.cases import LossAndGrads, pool_by_hand

EXACT = {"rtol": 1e-10, "atol": 1e-10}
ROWS = 6


def distance(posterior: dist.Distribution, prior: dist.Distribution) -> Tensor:
    """Twice the mean squared distance of the locations, per unit."""
    squares: Tensor = 2.0 * (posterior.mean - prior.mean).square()
    if posterior.event_dim:
        squares = squares.sum(-1)
    return squares.reshape(-1, squares.shape[-1]).mean(0)


def make_stack(**kwargs: Any) -> NeuronStack:
    model = NeuronStack(**{"make_prior": LearnedNormal, **kwargs})
    randomise(model)
    return model


def make_data() -> tuple[Tensor, Tensor]:
    return torch.randn(ROWS, 4), torch.randn(ROWS, 2)


def all_layers(model: NeuronStack, cost: Any = distance) -> dict[str, Any]:
    return {f"layers.{index}": cost for index in range(len(model.neuron_layers))}


def penalty_by_hand(model: NeuronStack, x: Tensor, particles: int) -> dict[str, Tensor]:
    """What each layer pays per row, along the path that seed 0 draws, per unit."""
    pyro.set_rng_seed(0)
    lead = (particles,) if particles > 1 else ()
    h, paid = model.encode(x), {}
    for index, layer in enumerate(model.neuron_layers):
        mu, sigma = posterior_by_hand(layer, h)
        squares = 2.0 * (mu - layer.prior.loc).square()
        squares = squares.sum(-1) if layer.shape.latent_dim > 1 else squares
        paid[f"layers.{index}"] = squares.reshape(-1, 3).mean(0)
        shape = (*lead, ROWS, *layer.shape.latent)
        z = mu + sigma * torch.normal(torch.zeros(shape), torch.ones(shape))
        h = torch.tanh(pool_by_hand(layer, z))
    return paid


def grads_of(model: nn.Module, value: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    value.backward()  # type: ignore[no-untyped-call]
    named = model.named_parameters()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in named}


def assert_sum(whole: LossAndGrads, part: LossAndGrads, extra: Tensor, model: nn.Module) -> None:
    """Loss and gradients are those of a part, and of an extra term written by hand."""
    assert extra > 0.01
    assert whole.loss == pytest.approx(part.loss + extra.item(), rel=1e-10)
    grads = grads_of(model, extra)
    summed = {name: part.grads[name] + grads[name] for name in grads}
    torch.testing.assert_close(whole.grads, summed, **EXACT)


@pytest.mark.parametrize("loss", [LocalELBO, PACmELBO, Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("particles", [1, 5])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("latent_dim", [1, 3])
def test_the_loss_grows_by_the_penalty(
    latent_dim: int, num_layers: int, particles: int, loss: Any
) -> None:
    model, data = make_stack(num_layers=num_layers, latent_dim=latent_dim), make_data()
    options: dict[str, Any] = {"num_particles": particles, "max_plate_nesting": 2}
    if loss in (Trace_ELBO, TraceMeanField_ELBO):
        options["vectorize_particles"] = True
    penalised = penalize(model, all_layers(model))
    mine = loss_and_grads(loss(**options), penalised, NeuronGuide(penalised), *data, of=model)
    plain = loss_and_grads(loss(**options), model, NeuronGuide(model), *data, of=model)
    paid = penalty_by_hand(model, data[0], particles)
    assert_sum(mine, plain, ROWS * torch.stack(list(paid.values())).sum(), model)


@pytest.mark.parametrize("loss", [LocalELBO, Trace_ELBO])
def test_sequential_particles_pay_their_mean(loss: Any) -> None:
    model, data = make_stack(), make_data()
    options = {"num_particles": 3, "vectorize_particles": False}
    penalised = penalize(model, all_layers(model))
    mine = loss_and_grads(loss(**options), penalised, NeuronGuide(penalised), *data, of=model)
    plain = loss_and_grads(loss(**options), model, NeuronGuide(model), *data, of=model)
    paid = penalty_by_hand(model, data[0], 1)["layers.0"]  # the same whatever is drawn
    assert_sum(mine, plain, ROWS * paid.sum(), model)


@pytest.mark.parametrize("make", [Regression, DeepRegression], ids=["one layer", "two layers"])
def test_the_closed_form_grows_by_the_penalty(make: Any) -> None:
    model = make(4, 2)
    randomise(model)
    data, path = make_data(), "neurons" if make is Regression else "layers.0"
    first = model.neurons if make is Regression else model.layers[0]
    loss = PACmELBO(closed_form=True)
    penalised = penalize(model, {path: distance})
    mine = loss_and_grads(loss, penalised, NeuronGuide(penalised), *data, of=model)
    plain = loss_and_grads(loss, model, NeuronGuide(model), *data, of=model)
    h = model.encoder(data[0]) if make is Regression else data[0]
    squares = 2.0 * posterior_by_hand(first, h).loc.square()
    assert_sum(mine, plain, ROWS * squares.mean(0).sum(), model)


# --- the plates and effects it stands in ---


class Subsampled(PyroModule):
    """Sees five rows of twenty."""

    def __init__(self) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(4, 3)
        self.readout = nn.Linear(3, 2)

    def forward(self, x: Tensor, y: Tensor) -> Any:
        with pyro.plate("data", 20, subsample=torch.arange(5), dim=-2) as rows:
            z = self.neurons(x[rows])
            return pyro.sample("y", dist.Normal(self.readout(z), 1.0), obs=y[rows])


@pytest.mark.parametrize("loss", [LocalELBO, PACmELBO, Trace_ELBO, TraceMeanField_ELBO])
def test_a_subsample_is_scaled_up(loss: Any) -> None:
    model, x, y = Subsampled(), torch.randn(20, 4), torch.randn(20, 2)
    randomise(model)
    penalised = penalize(model, {"neurons": distance})
    mine = loss_and_grads(loss(), penalised, NeuronGuide(penalised), x, y, of=model)
    plain = loss_and_grads(loss(), model, NeuronGuide(model), x, y, of=model)
    squares = 2.0 * posterior_by_hand(model.neurons, x[:5]).loc.square()
    assert_sum(mine, plain, 20 * squares.mean(0).sum(), model)


ROW_MASK = torch.tensor([[True], [False], [True], [True], [False], [True]])
WRAPPED: dict[str, tuple[Callable[[Any], Any], float]] = {
    "scale": (lambda m: pyro.poutine.scale(m, 0.4), 0.4),
    "mask of rows": (lambda m: pyro.poutine.mask(m, ROW_MASK), 4 / 6),
    "mask of everything": (lambda m: pyro.poutine.mask(m, False), 0.0),
    "kl_weight": (lambda m: kl_weight(m, 0.1), 1.0),
}


@pytest.mark.parametrize("loss", [LocalELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("outside", [True, False])
@pytest.mark.parametrize("name", WRAPPED)
def test_effects_reach_it_as_they_reach_other_terms(name: str, outside: bool, loss: Any) -> None:
    model, data = make_stack(), make_data()
    effect, share = WRAPPED[name]
    costs = all_layers(model)
    penalised = effect(penalize(model, costs)) if outside else penalize(effect(model), costs)
    plain = effect(model)

    def value(program: Any) -> float:
        return loss_and_grads(loss(), program, NeuronGuide(program), *data, of=model).loss

    paid = ROWS * penalty_by_hand(model, data[0], 1)["layers.0"].sum().item()
    assert value(penalised) - value(plain) == pytest.approx(share * paid, abs=1e-9)


@pytest.mark.parametrize("weight", [0.3, torch.tensor([0.1, 0.0, 2.0])], ids=["all", "per unit"])
@pytest.mark.parametrize("outside", [True, False])
@pytest.mark.parametrize("loss", [LocalELBO, Trace_ELBO])
def test_what_is_part_of_the_kl_is_weighted_with_it(loss: Any, outside: bool, weight: Any) -> None:
    model, data = make_stack(num_layers=2), make_data()
    weight = torch.as_tensor(weight, dtype=torch.float64)
    costs = {"layers.0": distance}
    weighted = kl_weight(model, {"layers.0": weight})
    penalised = (
        kl_weight(penalize(model, costs, part_of_kl=True), {"layers.0": weight})
        if outside
        else penalize(weighted, costs, part_of_kl=True)
    )
    mine = loss_and_grads(loss(), penalised, NeuronGuide(penalised), *data, of=model)
    plain = loss_and_grads(loss(), weighted, NeuronGuide(weighted), *data, of=model)
    paid = penalty_by_hand(model, data[0], 1)["layers.0"]
    assert_sum(mine, plain, ROWS * (weight * paid).sum(), model)


@pytest.mark.parametrize("loss", [LocalELBO, Trace_ELBO, TraceMeanField_ELBO])
def test_a_context_equals_a_wrapper(loss: Any) -> None:
    model, data = make_stack(num_layers=2), make_data()
    penalised = penalize(model, all_layers(model))
    mine = loss_and_grads(loss(), penalised, NeuronGuide(penalised), *data, of=model)
    with penalize(costs=all_layers(model)):
        inside = loss_and_grads(loss(), model, NeuronGuide(model), *data, of=model)
    assert inside.loss == pytest.approx(mine.loss, rel=1e-12)
    torch.testing.assert_close(inside.grads, mine.grads, **EXACT)


@pytest.mark.parametrize("loss", [LocalELBO, Trace_ELBO])
def test_observed_neurons_pay_nothing(loss: Any) -> None:
    model, data = make_stack(num_layers=2), make_data()
    values = {"layers.0.z": torch.linspace(-1, 1, 3 * ROWS).reshape(ROWS, 3)}
    conditioned = pyro.poutine.condition(model, values)
    penalised = pyro.poutine.condition(penalize(model, {"layers.0": distance}), values)
    mine = loss_and_grads(loss(), penalised, NeuronGuide(penalised), *data, of=model)
    plain = loss_and_grads(loss(), conditioned, NeuronGuide(conditioned), *data, of=model)
    assert mine.loss == plain.loss
    torch.testing.assert_close(mine.grads, plain.grads)
    trace = pyro.poutine.trace(penalised).get_trace(*data)
    assert (trace.nodes["layers.0.penalty"]["fn"].log_factor == 0).all()


def energy(posterior: dist.Distribution, prior: dist.Distribution) -> Tensor:
    squares: Tensor = posterior.mean.square()
    return squares.reshape(-1, squares.shape[-1]).mean(0)


@pytest.mark.parametrize("outside", [True, False])
def test_the_twin_pays_for_its_locations(outside: bool) -> None:
    model, data = make_stack(), make_data()
    costs = all_layers(model, energy)
    twin = (
        penalize(deterministic(model), costs) if outside else deterministic(penalize(model, costs))
    )
    terms = LocalELBO().terms(twin, NeuronGuide(twin), *data)
    loc = posterior_by_hand(model.neuron_layers[0], model.encode(data[0])).loc
    torch.testing.assert_close(terms.penalty["layers.0"], ROWS * loc.square().mean(0))


def test_a_clamped_unit_pays_for_where_it_is_held() -> None:
    model, data = make_stack(), make_data()
    held = clamp(penalize(model, all_layers(model, energy)), {"layers.0": {1: 3.0}})
    terms = LocalELBO().terms(held, NeuronGuide(held), *data)
    assert terms.penalty["layers.0"][1].item() == pytest.approx(ROWS * 9.0)


# --- terms ---


def terms_of(program: Any, *data: Tensor, loss: Any = None) -> Terms:
    pyro.set_rng_seed(0)
    terms: Terms = (loss or LocalELBO()).terms(program, NeuronGuide(program), *data)
    return terms


@pytest.mark.parametrize("loss", [LocalELBO(), LocalELBO(5), PACmELBO(5)], ids=["1", "5", "pacm"])
def test_terms_tell_it_apart(loss: Any) -> None:
    model, data = make_stack(num_layers=2, local_reconstruction=True), make_data()
    penalised = penalize(model, {"layers.0": distance})
    terms, plain = (terms_of(program, *data, loss=loss) for program in (penalised, model))
    paid = penalty_by_hand(model, data[0], 1)["layers.0"]
    torch.testing.assert_close(terms.penalty, {"layers.0": ROWS * paid})
    assert plain.penalty == {}
    torch.testing.assert_close(terms.log_likelihood, plain.log_likelihood)
    torch.testing.assert_close(terms.kl, plain.kl)
    torch.testing.assert_close(terms.local, plain.local)
    torch.testing.assert_close(terms.elbo, plain.elbo)
    torch.testing.assert_close(terms.loss, plain.loss + ROWS * paid.sum())
    pyro.set_rng_seed(0)
    assert loss.loss(penalised, NeuronGuide(penalised), *data) == pytest.approx(terms.loss.item())


def test_penalties_of_one_layer_add_up() -> None:
    model, data = make_stack(), make_data()
    twice = penalize(
        penalize(model, all_layers(model), name="one"),
        {"layers.0": lambda q, p: torch.tensor([1.0, 2.0, 3.0])},
        name="two",
        part_of_kl=True,
    )
    once = terms_of(penalize(model, all_layers(model)), *data).penalty["layers.0"]
    both = kl_weight(twice, 0.5)
    expected = once + 0.5 * ROWS * torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(terms_of(both, *data).penalty["layers.0"], expected)
    trace = pyro.poutine.trace(both).get_trace(*data)
    assert {"layers.0.one", "layers.0.two"} <= set(trace.nodes)


def test_one_number_is_a_cost_of_every_unit() -> None:
    model, data = make_stack(), make_data()
    penalised = penalize(model, {"layers.0": lambda q, p: torch.tensor(0.25)})
    paid = terms_of(penalised, *data).penalty["layers.0"]
    torch.testing.assert_close(paid, torch.full((3,), ROWS * 0.25))


def test_posterior_and_prior_are_the_layer_s_own_in_every_program() -> None:
    model, data = make_stack(latent_dim=3), make_data()
    seen: list[tuple[Tensor, Tensor]] = []

    def note(posterior: dist.Distribution, prior: dist.Distribution) -> Tensor:
        seen.append((posterior.mean.detach(), prior.mean.detach()))
        return torch.zeros(3)

    penalised = penalize(model, {"layers.0": note})
    for program in (penalised, NeuronGuide(penalised)):
        program(*data)
    LocalELBO().loss(penalised, NeuronGuide(penalised), *data)
    Trace_ELBO().loss(penalised, NeuronGuide(penalised), *data)
    layer = model.neuron_layers[0]
    loc = posterior_by_hand(layer, model.encode(data[0])).loc.detach()
    assert len(seen) == 5  # model, guide, single pass, and guide and model of the two passes
    for posterior, prior in seen:
        torch.testing.assert_close(posterior.expand(loc.shape), loc)
        torch.testing.assert_close(
            prior.expand(loc.shape), layer.prior.loc.detach().expand(6, 3, 3)
        )


# --- prediction and Pyro's tools ---


def test_prediction_is_untouched() -> None:
    model, data = Regression(4, 2), make_data()
    penalised = penalize(model, {"neurons": distance})

    def predictions(program: Any) -> list[Tensor]:
        guide = NeuronGuide(program)
        pyro.set_rng_seed(0)
        drawn = predict(program, guide, data[0], y=data[1], num_samples=5)
        closed = predict_closed_form(program, guide, data[0], y=data[1], num_samples=5)
        assert closed is not None
        assert drawn.log_prob_joint is not None
        densities = log_density(program, guide, *data)
        assert densities[0] is not None
        return [drawn.draws, drawn.log_prob_joint, closed.mean, closed.variance, *densities]

    for mine, plain in zip(predictions(penalised), predictions(model), strict=True):
        assert torch.equal(mine, plain)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("guided", [False, True])
def test_predictive(guided: bool, parallel: bool) -> None:
    model, x = make_stack(num_layers=2), torch.randn(ROWS, 4)
    penalised = penalize(model, all_layers(model))

    def draw(program: Any) -> dict[str, Tensor]:
        guide = NeuronGuide(program) if guided else None
        pyro.set_rng_seed(0)
        predictive = Predictive(program, guide=guide, num_samples=4, parallel=parallel)
        drawn: dict[str, Tensor] = predictive(x)
        return drawn

    mine, plain = draw(penalised), draw(model)
    assert mine.keys() == plain.keys()
    assert all(torch.equal(mine[name], plain[name]) for name in plain)


def test_a_trace_shows_it_as_a_factor() -> None:
    model, data = make_stack(), make_data()
    trace = pyro.poutine.trace(penalize(model, all_layers(model), name="pull")).get_trace(*data)
    site = trace.nodes["layers.0.pull"]
    assert site["is_observed"]
    assert [frame.name for frame in site["cond_indep_stack"]] == ["data", "layers.0.units"]
    trace.compute_log_prob()
    paid = penalty_by_hand(model, data[0], 1)["layers.0"]
    torch.testing.assert_close(site["log_prob"], -paid.expand(ROWS, 3))


def test_the_drawing_of_the_model() -> None:
    model, data = make_stack(num_layers=2), make_data()
    graph = str(pyro.render_model(penalize(model, {"layers.1": distance}), data))
    assert "layers.1.penalty" in graph
    assert "layers.0.penalty" not in graph


def test_a_sampler_of_the_posterior_runs() -> None:
    model, (x, y) = make_stack(), make_data()
    penalised = penalize(model, all_layers(model))
    kernel = NUTS(penalised, max_tree_depth=2, jit_compile=False)
    mcmc = MCMC(kernel, num_samples=2, warmup_steps=2, disable_progbar=True)
    mcmc.run(x, y)
    assert mcmc.get_samples()["layers.0.z"].shape == (2, ROWS, 3)


# --- what is refused ---


@pytest.mark.parametrize("costs", [None, {}])
def test_no_costs(costs: Any) -> None:
    with pytest.raises(InputError, match=r"^costs: expected a cost function by layer path, got"):
        penalize(make_stack(), costs)


@pytest.mark.parametrize("name", ["a.b", "z", "local", "units", "", "two words", "1st"])
def test_names_that_are_taken_or_none(name: str) -> None:
    text = rf"^name: expected an identifier, other than z, .*, got {name!r}. Try: name=\"penalty\""
    with pytest.raises(InputError, match=text):
        penalize(make_stack(), {"layers.0": distance}, name=name)


def test_a_layer_that_does_not_run() -> None:
    penalised = penalize(make_stack(), {"layers.7": distance})
    with pytest.raises(InputError, match=r"Penalty: expected names of layers that run: \['layers"):
        penalised(*make_data())


def test_something_that_is_no_program() -> None:
    with pytest.raises(InputError, match=r"model: expected a callable Pyro program, got 0.3"):
        penalize(0.3, {"layers.0": distance})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cost", "got"),
    [
        (torch.zeros(4), r"shape \(4,\)"),
        (torch.zeros(1), r"shape \(1,\)"),
        (torch.zeros(ROWS, 3), r"shape \(6, 3\)"),
        (0.5, "float"),
        (None, "NoneType"),
    ],
)
def test_a_cost_of_another_shape(cost: Any, got: str) -> None:
    penalised = penalize(make_stack(), {"layers.0": lambda q, p: cost})
    text = rf"cost of layer 'layers.0': expected a tensor of shape \(3,\), got {got}. Try: a mean"
    with pytest.raises(InputError, match=text):
        penalised(*make_data())


@pytest.mark.parametrize("make", [hand_written_guide, AutoNormal], ids=["by hand", "AutoNormal"])
def test_a_guide_that_does_not_take_the_offer(make: Any) -> None:
    model, data = make_stack(), make_data()
    guide = make(model)
    guide(*data)
    penalised = penalize(model, all_layers(model), name="band")
    text = r"penalty 'band' of layer 'layers.0': expected neurons drawn from .*Try: NeuronGuide"
    with pytest.raises(InputError, match=text):
        LocalELBO().loss(penalised, guide, *data)


def test_no_cost_leaves_all_sites_alone() -> None:
    model, data = make_stack(), make_data()
    with PenaltyMessenger({}):
        trace = pyro.poutine.trace(model).get_trace(*data)
    assert trace.nodes.keys() == pyro.poutine.trace(model).get_trace(*data).nodes.keys()
