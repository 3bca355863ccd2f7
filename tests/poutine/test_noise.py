"""How much noise neurons have: scaled, fixed, annealed, by layer, among other effects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from pyro_vdn.guides import NeuronGuide
from torch import Tensor

from pyro_vdn.errors import InputError, OneSidedEffectError
from pyro_vdn.infer import LocalELBO
from pyro_vdn.nn import AutoregressiveNormal, LearnedNormal, NormalPosterior, VariationalNeurons
from pyro_vdn.poutine import (
    NoiseMessenger,
    PosteriorMessenger,
    average_draws,
    clamp,
    deterministic,
    dropout,
    fix_noise,
    record,
    scale_noise,
    share_noise,
)
from pyro_vdn.testing import NeuronStack, loss_and_grads, posterior_by_hand, randomise

ROWS, UNITS = 5, 3
PER_UNIT = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
EFFECTS = {"scale": scale_noise, "fix": fix_noise}


def make_layer(scale: Any = "unit", latent_dim: int = 1) -> VariationalNeurons:
    posterior = NormalPosterior(scale, rank=2)
    layer = VariationalNeurons(
        4, UNITS, latent_dim=latent_dim, prior=LearnedNormal(), posterior=posterior
    )
    randomise(layer)
    return layer


def make_input() -> Tensor:
    return torch.linspace(-1, 1, ROWS * 4).reshape(ROWS, 4)


def site_of(program: Callable[..., Any]) -> dict[str, Any]:
    """Run a program from a fixed seed, drawn from posteriors, and return its neurons' site."""
    pyro.set_rng_seed(1)
    with PosteriorMessenger():
        trace = pyro.poutine.trace(program).get_trace(make_input())
    return dict(trace.nodes["z"])


def scale_of(program: Callable[..., Any]) -> Tensor:
    variance: Tensor = site_of(program)["fn"].variance
    return variance.sqrt().detach()


AMOUNTS: dict[str, Any] = {
    "number": 0.4,
    "integer": 2,
    "tensor": torch.tensor(0.4),
    "per unit": PER_UNIT,
    "in single precision": PER_UNIT.float(),
    "by layer": {"": PER_UNIT},
    "per row": torch.linspace(0.1, 2.0, ROWS).unsqueeze(-1),
}


@pytest.mark.parametrize("amount", AMOUNTS.values(), ids=AMOUNTS)
@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("latent_dim", [1, 2, UNITS])
@pytest.mark.parametrize("scale", ["shared", "unit", "input", "low_rank"])
def test_scales_are_changed_and_locations_left(
    scale: Any, latent_dim: int, effect: str, amount: Any
) -> None:
    layer = make_layer(scale, latent_dim)
    loc, sigma = (one.detach() for one in posterior_by_hand(layer, make_input()))
    value = torch.as_tensor(amount[""] if isinstance(amount, dict) else amount).double()
    value = value.unsqueeze(-1) if latent_dim > 1 and value.dim() else value
    expected = (value * sigma) if effect == "scale" else value.expand(sigma.shape)

    plain, site = site_of(layer), site_of(EFFECTS[effect](layer, amount))
    torch.testing.assert_close(site["fn"].mean.detach(), loc)
    torch.testing.assert_close(site["fn"].variance.sqrt().detach(), expected)
    noise = (plain["value"].detach() - loc) / sigma  # the same seed draws the same noise
    torch.testing.assert_close(site["value"].detach(), loc + expected * noise)
    assert site["value"].dtype == torch.float64


class Gain(PyroModule):
    """A layer whose squared output is gained."""

    def __init__(self, layer: VariationalNeurons) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, h: Tensor) -> None:
        with pyro.plate("rows", ROWS, dim=-2):
            pyro.factor("gain", self.layer(h).square().sum(-1, keepdim=True))


@pytest.mark.parametrize("scale", ["unit", "low_rank", "relative"])
@pytest.mark.parametrize("effect", EFFECTS)
def test_loss_and_gradients_by_hand(effect: str, scale: Any) -> None:
    layer, x = make_layer(scale), make_input()
    program = EFFECTS[effect](Gain(layer), PER_UNIT)
    mine, theirs = (
        loss_and_grads(loss, program, NeuronGuide(program), x, of=layer)
        for loss in (LocalELBO(), TraceMeanField_ELBO())
    )
    layer.zero_grad()
    pyro.set_rng_seed(0)
    noise = torch.empty(ROWS, UNITS).normal_()
    raw = layer.posterior.raw_scale(x)
    loc = layer.posterior.loc(x)
    sigma = torch.nn.functional.softplus(raw) * (loc.abs() if scale == "relative" else 1)
    sigma = PER_UNIT * (1e-3 + sigma) if effect == "scale" else PER_UNIT.expand(ROWS, UNITS)
    prior_scale = 1e-3 + torch.nn.functional.softplus(layer.prior.raw_scale)
    away = (sigma**2 + (loc - layer.prior.loc) ** 2) / (2 * prior_scale**2)
    kl = (torch.log(prior_scale / sigma) + away - 0.5).expand(ROWS, UNITS).sum()
    loss = kl - (loc + sigma * noise).square().sum()
    loss.backward()
    for result in (mine, theirs):
        assert len(result.grads) == len(list(layer.parameters()))
        assert result.loss == pytest.approx(loss.item(), rel=1e-10)
        for name, parameter in layer.named_parameters():
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(result.grads[name], grad, rtol=1e-10, atol=1e-10)
            is_scale = "raw_scale" in name and "posterior" in name
            assert bool(result.grads[name].any()) == (not is_scale or effect == "scale")


# --- where the effect stands ---


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("stock", [TraceMeanField_ELBO, Trace_ELBO, LocalELBO])
def test_around_the_model_or_as_a_context(stock: Any, effect: str) -> None:
    stack, data = NeuronStack(num_layers=2), (torch.randn(ROWS, 4), torch.randn(ROWS, 2))
    randomise(stack)
    program = EFFECTS[effect](stack, 0.5)
    around = loss_and_grads(stock(), program, NeuronGuide(program), *data, of=stack)
    with EFFECTS[effect](None, 0.5):
        inside = loss_and_grads(stock(), stack, NeuronGuide(stack), *data, of=stack)
    plain = loss_and_grads(stock(), stack, NeuronGuide(stack), *data, of=stack)
    assert around.loss == inside.loss != plain.loss
    torch.testing.assert_close(around.grads, inside.grads, rtol=0, atol=0)


def test_around_the_guide_alone_is_refused_by_a_single_pass() -> None:
    stack, data = NeuronStack(), (torch.randn(ROWS, 4), torch.randn(ROWS, 2))
    guide = scale_noise(NeuronGuide(stack), 0.5)
    with pytest.raises(OneSidedEffectError, match="an effect wrapped around the guide"):
        LocalELBO().loss(stack, guide, *data)
    program = scale_noise(stack, 0.5)  # two passes take the noise of the guide alone
    losses = []
    for one in (guide, NeuronGuide(program)):
        pyro.set_rng_seed(0)
        losses.append(TraceMeanField_ELBO().loss(stack, one, *data))
    assert losses[0] == losses[1]


def test_a_program_that_draws_from_the_prior_does_not_change() -> None:
    layer = make_layer()
    values = []
    for program in (layer, scale_noise(layer, 3.0), fix_noise(layer, 3.0)):
        pyro.set_rng_seed(1)
        values.append(program(make_input()))
    assert torch.equal(values[0], values[1])
    assert torch.equal(values[0], values[2])


def test_amounts_by_layer_and_between_steps() -> None:
    stack, x = NeuronStack(num_layers=2), torch.randn(ROWS, 4)
    scales = [layer.posterior.scale_of_units() for layer in stack.neuron_layers]

    def seen_with(program: Any) -> list[Tensor]:
        with record() as seen, PosteriorMessenger():
            program(x)
        return [seen[f"layers.{layer}"].scale.mean for layer in range(2)]

    with scale_noise(factor={"layers.1": PER_UNIT}) as effect:
        found = seen_with(stack)
        torch.testing.assert_close(found, [scales[0], PER_UNIT * scales[1]])
        effect.amount = {"layers.0": 0.0, "layers.1": 0.5}
        found = seen_with(stack)
        torch.testing.assert_close(found, [0 * scales[0], 0.5 * scales[1]])
        effect.amount = 3.0
        torch.testing.assert_close(seen_with(stack), [3 * scale for scale in scales])


def test_a_factor_can_be_learned() -> None:
    layer, factor = make_layer(), PER_UNIT.clone().requires_grad_()
    noise = (site_of(layer)["value"] - layer.posterior(make_input()).mean) / layer.posterior(
        make_input()
    ).stddev
    value = site_of(scale_noise(layer, factor))["value"]
    (grad,) = torch.autograd.grad(value.sum(), factor)
    expected = (noise * layer.posterior(make_input()).stddev).sum(0)
    torch.testing.assert_close(grad, expected.detach())


# --- among other effects ---


@pytest.mark.parametrize("latent_dim", [1, 3])
def test_twice_multiplies_and_the_outer_fix_holds(latent_dim: int) -> None:
    layer = make_layer(latent_dim=latent_dim)
    sigma = scale_of(layer)
    torch.testing.assert_close(scale_of(scale_noise(scale_noise(layer, 0.5), 3.0)), 1.5 * sigma)
    fixed = torch.full_like(sigma, 0.2)
    torch.testing.assert_close(scale_of(fix_noise(scale_noise(layer, 9.0), 0.2)), fixed)
    torch.testing.assert_close(scale_of(scale_noise(fix_noise(layer, 0.1), 2.0)), fixed)


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("latent_dim", [1, 3])
def test_held_units_stay_held(latent_dim: int, outside: bool) -> None:
    layer, holds = make_layer(latent_dim=latent_dim), {"": {0: 1.5, 2: "mean"}}
    program = (
        scale_noise(clamp(layer, holds), 2.0) if outside else clamp(scale_noise(layer, 2.0), holds)
    )
    site, loc = site_of(program), site_of(layer)["fn"].mean
    assert (site["value"][:, 0] == 1.5).all()
    torch.testing.assert_close(site["value"][:, 2], loc[:, 2])
    sigma = scale_of(layer)
    torch.testing.assert_close(scale_of(program)[:, 1], 2 * sigma[:, 1])
    assert not scale_of(program)[:, 0].any()


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize(
    "silent", [deterministic, lambda m: dropout(m, 0.5)], ids=["point", "drop"]
)
def test_without_a_scale_there_is_nothing_to_change(silent: Any, effect: str) -> None:
    layer = make_layer()
    plain, site = site_of(silent(layer)), site_of(EFFECTS[effect](silent(layer), 7.0))
    assert torch.equal(site["value"], plain["value"])
    inside = site_of(silent(EFFECTS[effect](layer, 7.0)))
    assert torch.equal(inside["value"], plain["value"])


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("latent_dim", [1, 3])
def test_shared_and_averaged_noise_stays_so(latent_dim: int, outside: bool) -> None:
    layer = make_layer(latent_dim=latent_dim)
    sigma = scale_of(layer)
    shared = (
        scale_noise(share_noise(layer), 2.0) if outside else share_noise(scale_noise(layer, 2.0))
    )
    site = site_of(shared)
    noise = (site["value"] - site["fn"].mean) / (2 * sigma)
    torch.testing.assert_close(noise, noise[:1].expand(noise.shape))
    torch.testing.assert_close(scale_of(shared), 2 * sigma)
    averaged = (
        scale_noise(average_draws(layer, 4), 2.0)
        if outside
        else average_draws(scale_noise(layer, 2.0), 4)
    )
    torch.testing.assert_close(scale_of(averaged), sigma)


# --- what is refused ---


class Uniform(torch.nn.Module):
    """A posterior that is not normal."""

    def forward(self, h: Tensor) -> dist.Distribution:
        return dist.Uniform(h.new_zeros(()), h.new_ones(()))


def test_posteriors_that_are_not_normal_are_refused() -> None:
    layer = VariationalNeurons(4, UNITS, posterior=Uniform())
    message = (
        r"^noise of layer '': expected a normal posterior, got a Uniform. Try: name the layers "
        r"whose posterior is normal"
    )
    with pytest.raises(InputError, match=message):
        site_of(scale_noise(layer, 0.5))


@pytest.mark.parametrize("steps", ["parallel", "markov"])
def test_neurons_with_memory(steps: Any) -> None:
    layer = VariationalNeurons(4, UNITS, prior=AutoregressiveNormal(UNITS), steps=steps)
    program = scale_noise(layer, 2.0)
    if steps == "markov":  # the moments of the past would still be those of the old scale
        with pytest.raises(InputError, match=r"got a ChainStep. .* steps=\"parallel\" over time"):
            site_of(program)
    else:
        torch.testing.assert_close(scale_of(program), 2 * scale_of(layer))


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize(
    "amount", [-0.1, torch.inf, torch.nan, {"": -1.0}, torch.tensor([1.0, -1])]
)
def test_amounts_are_checked_at_once_and_when_they_change(amount: Any, effect: str) -> None:
    message = r"^noise: expected finite factors or scales of at least 0, got .* Try: scale_noise"
    with pytest.raises(InputError, match=message):
        EFFECTS[effect](make_layer(), amount)
    messenger = EFFECTS[effect]()
    assert isinstance(messenger, NoiseMessenger)
    with pytest.raises(InputError, match=message):
        messenger.amount = amount


def test_a_layer_that_does_not_run_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"^Noise: expected names of layers that run: \[''\], got 'a'"
    ):
        site_of(scale_noise(make_layer(), {"a": 0.5}))
