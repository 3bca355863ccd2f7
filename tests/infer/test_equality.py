"""The single pass equals two-pass losses and hand-written programs for the same noise."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro_vdn.guides import NeuronGuide
from torch import Tensor, nn

from pyro_vdn.infer import LocalELBO
from pyro_vdn.nn import ConditionalNormal, LearnedNormal
from pyro_vdn.poutine import clamp, deterministic, dropout, kl_weight, record
from pyro_vdn.testing import NeuronStack, hand_written_guide, loss_and_grads, randomise
from pyro_vdn.testing.cases import LossAndGrads

EXACT = {"rtol": 1e-10, "atol": 1e-10}
ROWS = 6


def make_stack(**kwargs: Any) -> NeuronStack:
    model = NeuronStack(**kwargs)
    randomise(model)
    return model


def make_data() -> tuple[Tensor, Tensor]:
    return torch.randn(ROWS, 4), torch.randn(ROWS, 2)


def options(num_particles: int) -> dict[str, Any]:
    return {"num_particles": num_particles, "max_plate_nesting": 2, "vectorize_particles": True}


def assert_same(mine: LossAndGrads, theirs: LossAndGrads) -> None:
    assert mine.loss == pytest.approx(theirs.loss, rel=1e-10, abs=1e-10)
    assert mine.grads.keys() == theirs.grads.keys()
    for name, grad in mine.grads.items():
        torch.testing.assert_close(grad, theirs.grads[name], **EXACT, msg=lambda m, n=name: n + m)


def assert_moves(result: LossAndGrads, *, but: tuple[str, ...] = ()) -> None:
    still = [name for name, grad in result.grads.items() if not grad.abs().sum() > 0]
    assert [name for name in still if not name.endswith(but)] == []


class LaplacePrior(nn.Module):
    """A prior of two lines, whose closed form torch knows."""

    def forward(self, h: Tensor) -> dist.Distribution:
        return dist.Laplace(torch.zeros(()), torch.tensor(0.8))


class StudentTPrior(nn.Module):
    """A prior without a closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(0.2))

    def forward(self, h: Tensor) -> dist.Distribution:
        return dist.StudentT(torch.tensor(4.0), torch.zeros(()), self.log_scale.exp())


@pytest.mark.parametrize("guide_of", [NeuronGuide, hand_written_guide])
@pytest.mark.parametrize("num_particles", [1, 5])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("scale", ["shared", "unit", "input", "low_rank"])
def test_equals_two_passes(
    scale: Any, num_layers: int, num_particles: int, guide_of: Callable[..., Any]
) -> None:
    model, data = make_stack(num_layers=num_layers, scale=scale), make_data()
    mine = loss_and_grads(
        LocalELBO(**options(num_particles)), model, NeuronGuide(model), *data, of=model
    )
    stock = TraceMeanField_ELBO(**options(num_particles))
    assert_same(mine, loss_and_grads(stock, model, guide_of(model), *data, of=model))
    assert_moves(mine)


@pytest.mark.parametrize("num_particles", [1, 5])
@pytest.mark.parametrize("pool", ["mean", "sum", "flatten"])
@pytest.mark.parametrize("scale", ["shared", "unit", "input", "low_rank"])
def test_equals_two_passes_with_several_latent_dimensions(
    scale: Any, pool: Any, num_particles: int
) -> None:
    model = make_stack(num_layers=2, scale=scale, latent_dim=3, pool=pool)
    data = make_data()
    mine = loss_and_grads(
        LocalELBO(**options(num_particles)), model, NeuronGuide(model), *data, of=model
    )
    stock = TraceMeanField_ELBO(**options(num_particles))
    assert_same(mine, loss_and_grads(stock, model, hand_written_guide(model), *data, of=model))
    assert_moves(mine)


@pytest.mark.parametrize("make_prior", [LearnedNormal, ConditionalNormal, LaplacePrior])
@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize("local", [False, True], ids=["plain", "local"])
def test_equals_two_passes_for_learned_priors(
    make_prior: Callable[[], nn.Module], latent_dim: int, local: bool
) -> None:
    model = make_stack(
        num_layers=2, latent_dim=latent_dim, make_prior=make_prior, local_reconstruction=local
    )
    data = make_data()
    mine = loss_and_grads(LocalELBO(**options(5)), model, NeuronGuide(model), *data, of=model)
    stock = TraceMeanField_ELBO(**options(5))
    assert_same(mine, loss_and_grads(stock, model, hand_written_guide(model), *data, of=model))
    assert_moves(mine)


@pytest.mark.parametrize("stock", [Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize("num_particles", [1, 5])
def test_equals_two_passes_without_a_closed_form(
    latent_dim: int, num_particles: int, stock: Any
) -> None:
    model = make_stack(num_layers=3, latent_dim=latent_dim, make_prior=StudentTPrior)
    data = make_data()
    mine = loss_and_grads(
        LocalELBO(**options(num_particles)), model, NeuronGuide(model), *data, of=model
    )
    two_pass = stock(**options(num_particles))
    assert_same(mine, loss_and_grads(two_pass, model, hand_written_guide(model), *data, of=model))
    assert_moves(mine)


@pytest.mark.parametrize("stock", [Trace_ELBO, TraceMeanField_ELBO])
def test_sequential_particles_equal_two_passes(stock: Any) -> None:
    model, data = make_stack(make_prior=StudentTPrior), make_data()
    sequential = {"num_particles": 3, "vectorize_particles": False}
    mine = loss_and_grads(LocalELBO(**sequential), model, NeuronGuide(model), *data, of=model)
    assert_same(
        mine, loss_and_grads(stock(**sequential), model, hand_written_guide(model), *data, of=model)
    )


def test_plate_nesting_is_found() -> None:
    model, data = make_stack(num_layers=2), make_data()
    loss = LocalELBO(num_particles=5)
    found = loss_and_grads(loss, model, NeuronGuide(model), *data, of=model)
    assert loss.max_plate_nesting == 3
    assert found.loss == pytest.approx(
        loss_and_grads(LocalELBO(**options(400)), model, NeuronGuide(model), *data, of=model).loss,
        rel=0.2,
    )


# --- effects ---

PER_UNIT = torch.tensor([0.1, 1.0, 2.5], dtype=torch.float64)
ROW_MASK = torch.tensor([[True], [False], [True], [True], [False], [True]])

#: Each applies an effect to a model, or makes it a context where the model is None.
EFFECTS: dict[str, Callable[[Any], Any]] = {
    "kl_weight": lambda m: kl_weight(m, 0.3),
    "kl_weight zero": lambda m: kl_weight(m, 0.0),
    "kl_weight per unit": lambda m: kl_weight(m, PER_UNIT),
    "kl_weight per layer": lambda m: kl_weight(m, {"layers.0": 0.2, "layers.2": PER_UNIT}),
    "deterministic": deterministic,
    "dropout": lambda m: dropout(m, 0.4),
    "clamp": lambda m: clamp(m, {"layers.0": {0: 1.5, 2: "mean"}, "layers.1": "mean"}),
    "clamp to the prior": lambda m: clamp(m, {"layers.2": {1: "prior"}}),
    "scale": lambda m: pyro.poutine.scale(m, 0.4),
    "mask": lambda m: pyro.poutine.mask(m, ROW_MASK),
    "both": lambda m: kl_weight(clamp(m, {"layers.1": {0: 0.5}}), PER_UNIT) if m else None,
}


def record_around(model: Any) -> Any:
    return record(model)[0] if model else record()


def condition_second(model: Any) -> Any:
    latent = model.neuron_layers[1].shape.latent
    value = torch.linspace(-1, 1, ROWS).reshape(ROWS, *(1 for _ in latent)).expand(ROWS, *latent)
    return pyro.poutine.condition(model, {"layers.1.z": value})


WRAPPERS = EFFECTS | {"record": record_around, "condition": condition_second}
CONTEXTS = {name: effect for name, effect in WRAPPERS.items() if name not in ("both", "condition")}


@pytest.mark.parametrize("num_particles", [1, 5])
@pytest.mark.parametrize("stock", [Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize("name", WRAPPERS)
def test_effects_around_the_model_equal_two_passes(
    name: str, latent_dim: int, stock: Any, num_particles: int
) -> None:
    # A sampled KL for Trace_ELBO, which knows no other; a closed form for TraceMeanField_ELBO.
    make_prior = StudentTPrior if stock is Trace_ELBO else LearnedNormal
    stack = make_stack(num_layers=3, latent_dim=latent_dim, make_prior=make_prior)
    model, data = WRAPPERS[name](stack), make_data()
    mine = loss_and_grads(
        LocalELBO(**options(num_particles)), model, NeuronGuide(model), *data, of=stack
    )
    two_pass = stock(**options(num_particles))
    assert_same(mine, loss_and_grads(two_pass, model, NeuronGuide(model), *data, of=stack))
    plain = loss_and_grads(
        LocalELBO(**options(num_particles)), stack, NeuronGuide(stack), *data, of=stack
    )
    assert (mine.loss == pytest.approx(plain.loss, rel=1e-9)) == (name == "record")


@pytest.mark.parametrize("stock", [Trace_ELBO, TraceMeanField_ELBO, LocalELBO])
@pytest.mark.parametrize("num_particles", [1, 5])
@pytest.mark.parametrize("name", CONTEXTS)
def test_effects_as_contexts_equal_effects_around_the_model(
    name: str, num_particles: int, stock: Any
) -> None:
    make_prior = StudentTPrior if stock is Trace_ELBO else LearnedNormal
    stack, data = make_stack(num_layers=3, make_prior=make_prior), make_data()
    model = CONTEXTS[name](stack)
    wrapped = loss_and_grads(
        LocalELBO(**options(num_particles)), model, NeuronGuide(model), *data, of=stack
    )
    context = context_of(name)
    with ExitStack() as effects:
        effects.enter_context(context)
        inside = loss_and_grads(
            stock(**options(num_particles)), stack, NeuronGuide(stack), *data, of=stack
        )
    assert_same(wrapped, inside)


def context_of(name: str) -> Any:
    if name == "scale":
        return pyro.poutine.scale(scale=0.4)
    if name == "mask":
        return pyro.poutine.mask(mask=ROW_MASK)
    return CONTEXTS[name](None)


# --- plain PyTorch ---


def standard_normal(*shape: int) -> Tensor:
    """Draw as `Normal.rsample` does: the same call of the generator."""
    return torch.normal(torch.zeros(shape), torch.ones(shape))


def loss_in_torch(
    model: NeuronStack,
    x: Tensor,
    y: Tensor,
    *,
    weight: Tensor | float = 1.0,
    silent: bool = False,
    rows: Tensor | float = 1.0,
    particles: int = 1,
) -> Tensor:
    """The negative ELBO of a stack with per-unit scales and N(0, 1) priors, without Pyro."""
    lead = (particles,) if particles > 1 else ()
    h, kl = model.encode(x), torch.zeros(())
    for layer in model.neuron_layers:
        mu = h @ layer.posterior.loc.weight.T + layer.posterior.loc.bias
        sigma = 1e-3 + torch.log1p(layer.posterior.raw_scale.value.exp())
        noise = 0.0 if silent else standard_normal(*lead, ROWS, 3)
        each = 0.5 * (mu**2 + sigma**2 - 2 * sigma.log() - 1)
        kl = kl + (0.0 if silent else (rows * weight * each).expand(*lead, ROWS, 3).sum())
        h = torch.tanh(mu + sigma * noise)
    mean = h @ model.readout.weight.T + model.readout.bias
    s = model.noise
    log_prob = -0.5 * ((y - mean) / s) ** 2 - s.log() - 0.5 * torch.log(torch.tensor(2 * torch.pi))
    return (kl - (rows * log_prob).sum()) / particles


TORCH_CASES: dict[str, tuple[Callable[[Any], Any], dict[str, Any]]] = {
    "plain": (lambda m: m, {}),
    "particles": (lambda m: m, {"particles": 5}),
    "kl_weight": (lambda m: kl_weight(m, 0.3), {"weight": 0.3}),
    "kl_weight per unit": (lambda m: kl_weight(m, PER_UNIT), {"weight": PER_UNIT, "particles": 5}),
    "deterministic": (deterministic, {"silent": True}),
    "scale": (lambda m: pyro.poutine.scale(m, 0.4), {"rows": 0.4}),
    "mask": (lambda m: pyro.poutine.mask(m, ROW_MASK), {"rows": ROW_MASK.double()}),
}


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("case", TORCH_CASES)
def test_equals_pathwise_gradient_written_by_hand(case: str, num_layers: int) -> None:
    stack, (x, y) = make_stack(num_layers=num_layers), make_data()
    effect, arguments = TORCH_CASES[case]
    model = effect(stack)
    loss = LocalELBO(**options(arguments.get("particles", 1)))
    mine = loss_and_grads(loss, model, NeuronGuide(model), x, y, of=stack)
    stack.zero_grad()
    pyro.set_rng_seed(0)
    by_hand = loss_in_torch(stack, x, y, **arguments)
    by_hand.backward()
    assert mine.loss == pytest.approx(by_hand.item(), rel=1e-10)
    for name, parameter in stack.named_parameters():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(mine.grads[name], expected, **EXACT)
