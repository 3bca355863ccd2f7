"""One noise for a whole sequence: what is shared, what is not, and that marginals stay."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
from pyro.nn import PyroModule
from pyro_vdn.guides import NeuronGuide
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO
from pyro_vdn.nn import AutoregressiveNormal, LearnedNormal, NormalPosterior, VariationalNeurons
from pyro_vdn.poutine import (
    PosteriorMessenger,
    clamp,
    deterministic,
    dropout,
    fix_noise,
    scale_noise,
    share_noise,
)
from pyro_vdn.poutine.share_noise import SharedDroppedOut, SharedNormal
from pyro_vdn.testing import loss_and_grads, randomise
from pyro_vdn.testing.language import NoiseTape

ROWS, TIME, UNITS, S = 2, 5, 3, 4
MODES = ["shared", "unit", "relative", "input", "low_rank"]


class TwoLayers(PyroModule):
    """Two layers of neurons at every token, `y_t ~ Normal(z_t, 1)`."""

    def __init__(self, scale: Any = "unit", latent_dim: int = 1) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            VariationalNeurons(
                UNITS,
                UNITS,
                latent_dim=latent_dim,
                prior=LearnedNormal(),
                posterior=NormalPosterior(scale, rank=2),
            )
            for _ in range(2)
        )
        randomise(self)

    def forward(self, x: Tensor) -> Tensor:
        with pyro.plate("data", x.shape[-3], dim=-3), pyro.plate("time", x.shape[-2], dim=-2):
            for layer in self.layers:
                x = layer(x)
            pyro.sample("y", dist.Normal(x, 1.0), obs=torch.ones(ROWS, TIME, UNITS))
        return x


def make_input() -> Tensor:
    return torch.randn(ROWS, TIME, UNITS, generator=torch.Generator().manual_seed(5))


def sites_of(program: Callable[..., Any], particles: int = 0) -> list[dict[str, Any]]:
    """Run a program from a fixed seed, drawn from posteriors, and return its neurons' sites."""
    pyro.set_rng_seed(1)
    repeat = pyro.plate("draws", particles, dim=-4) if particles else nullcontext()
    with pyro.poutine.trace() as traced, PosteriorMessenger(), repeat:
        program(make_input())
    return [dict(node) for name, node in traced.trace.nodes.items() if name.endswith(".z")]


def noise_of(site: dict[str, Any]) -> Tensor:
    fn = site["fn"]
    noise: Tensor = (site["value"] - fn.mean) / fn.variance.sqrt()
    base = fn.base_dist if fn.event_dim else fn
    if getattr(base, "is_gain", False):  # each location takes it with its own sign
        noise = noise * fn.mean.sign()
    return noise.detach()


def assert_shared(noise: Tensor, latent_dim: int = 1) -> None:
    """The noise is the same at all tokens and differs in all else."""
    dim = -2 if latent_dim == 1 else -3
    torch.testing.assert_close(noise, noise.narrow(dim, 0, 1).expand(noise.shape))
    one = noise.select(dim, 0).flatten()
    assert len(one.round(decimals=8).unique()) == len(one)


# --- what is shared ---


@pytest.mark.parametrize("particles", [0, S])
@pytest.mark.parametrize("latent_dim", [1, 2])
@pytest.mark.parametrize("scale", MODES)
def test_a_sequence_has_one_noise_per_unit(scale: str, latent_dim: int, particles: int) -> None:
    model = TwoLayers(scale, latent_dim)
    first, second = (noise_of(site) for site in sites_of(share_noise(model), particles))
    shape = (ROWS, TIME, UNITS) if latent_dim == 1 else (ROWS, TIME, UNITS, latent_dim)
    assert first.shape == ((particles, *shape) if particles else shape)
    assert_shared(first, latent_dim)
    assert_shared(second, latent_dim)
    assert (first - second).abs().min() > 1e-9
    plain = noise_of(sites_of(model, particles)[0])
    assert len(plain.round(decimals=8).unique()) == plain.numel()


@pytest.mark.parametrize("particles", [0, S])
@pytest.mark.parametrize("latent_dim", [1, 2])
@pytest.mark.parametrize("posterior", [True, False], ids=["posterior", "prior"])
def test_a_sequence_has_one_mask_of_dropout(
    posterior: bool, latent_dim: int, particles: int
) -> None:
    model = TwoLayers(latent_dim=latent_dim)
    program = share_noise(dropout(model, 0.5))
    if posterior:
        sites = sites_of(program, particles)
    else:  # a program that knows nothing of posteriors
        repeat = pyro.plate("draws", particles, dim=-4) if particles else nullcontext()
        with pyro.poutine.trace() as traced, repeat:
            program(make_input())
        nodes = traced.trace.nodes
        sites = [dict(nodes[f"layers.{layer}.z"]) for layer in range(2)]
    dim = -2 if latent_dim == 1 else -3
    for site in sites:
        kept = site["value"] / site["fn"].mean
        torch.testing.assert_close(kept, kept.narrow(dim, 0, 1).expand(kept.shape))
        values = kept.detach().round(decimals=6).unique().tolist()
        assert values == [0.0, 2.0]
        assert kept.select(dim, 0).detach().flatten(0, -2).std(0).max() > 0


def test_another_dimension() -> None:
    noise = noise_of(sites_of(share_noise(TwoLayers(), dim=-3))[0])
    torch.testing.assert_close(noise, noise[:1].expand(noise.shape))
    assert len(noise[0].flatten().round(decimals=8).unique()) == TIME * UNITS


# --- marginals ---


@pytest.mark.parametrize("scale", MODES)
def test_the_marginals_of_each_token_stay(scale: str) -> None:
    model, count = TwoLayers(scale), 20_000
    (site, _), (plain, _) = sites_of(share_noise(model)), sites_of(model)
    fn = site["fn"]
    assert isinstance(fn, SharedNormal)
    draws = fn.expand([count, ROWS, TIME, UNITS]).rsample().detach()
    error = plain["fn"].stddev.detach() / count**0.5
    assert ((draws.mean(0) - plain["fn"].mean).abs() < 5 * error).all()
    torch.testing.assert_close(draws.std(0), plain["fn"].stddev.detach(), rtol=0.03, atol=0)
    value = torch.randn(ROWS, TIME, UNITS)
    torch.testing.assert_close(fn.log_prob(value), plain["fn"].log_prob(value))
    between = draws[:, 0, 0] - draws[:, 0, 1]  # tokens move together
    apart = (plain["fn"].stddev[0, 0] - plain["fn"].stddev[0, 1]).abs().detach()
    torch.testing.assert_close(between.std(0), apart, rtol=0.03, atol=1e-9)


@pytest.mark.parametrize("event_dim", [0, 1])
def test_the_marginals_of_dropout_stay(event_dim: int) -> None:
    loc = torch.rand(TIME, UNITS, 2) + 1
    fn = SharedDroppedOut(loc, 0.3, event_dim, dim=-3 + event_dim)
    draws = fn.expand([20_000, *fn.batch_shape]).rsample()
    error = fn.variance.sqrt() / 20_000**0.5
    assert ((draws.mean(0) - loc).abs() < 5 * error).all()
    torch.testing.assert_close(draws.std(0), fn.variance.sqrt(), rtol=0.03, atol=0)
    kept = draws / loc
    torch.testing.assert_close(kept, kept[:, :1].expand(kept.shape))


@pytest.mark.parametrize("latent_dim", [1, 2])
@pytest.mark.parametrize("scale", MODES)
def test_the_kl_of_the_first_layer_stays(scale: str, latent_dim: int) -> None:
    model = TwoLayers(scale, latent_dim)
    found, plain = (
        LocalELBO().terms(program, NeuronGuide(program), make_input()).kl["layers.0"]
        for program in (share_noise(model), model)
    )
    torch.testing.assert_close(found, plain)


# --- gradients ---


@pytest.mark.parametrize("particles", [1, S])
@pytest.mark.parametrize("as_context", [False, True])
@pytest.mark.parametrize("scale", ["unit", "relative"])
def test_loss_and_gradients_by_hand(scale: str, as_context: bool, particles: int) -> None:
    model, x, tape = TwoLayers(scale), make_input(), NoiseTape()
    results = []
    for kind in (LocalELBO, TraceMeanField_ELBO):
        loss = kind(num_particles=particles, vectorize_particles=True, max_plate_nesting=3)
        program = model if as_context else share_noise(model)
        with tape.recording(), share_noise() if as_context else nullcontext():
            results.append(loss_and_grads(loss, program, NeuronGuide(program), x, of=model))
    lead = (particles,) if particles > 1 else ()
    assert [draw.shape for draw in tape.draws] == [(*lead, ROWS, 1, UNITS)] * 2

    h, kl = x, torch.zeros(())
    for layer, noise in zip(model.layers, tape.draws, strict=True):
        weights = dict(layer.named_parameters())
        loc = h @ weights["posterior.loc.weight"].T + weights["posterior.loc.bias"]
        sigma = torch.nn.functional.softplus(weights["posterior.raw_scale.value"])
        sigma = 1e-3 + (sigma * loc.abs() if scale == "relative" else sigma.expand(loc.shape))
        s = 1e-3 + torch.nn.functional.softplus(weights["prior.raw_scale"])
        away = (sigma**2 + (loc - weights["prior.loc"]) ** 2) / (2 * s**2)
        each = torch.log(s / sigma) + away - 0.5
        kl = kl + each.expand(*lead, ROWS, TIME, UNITS).sum()
        h = loc + (torch.copysign(sigma, loc) if scale == "relative" else sigma) * noise
    total = (kl - torch.distributions.Normal(h, 1.0).log_prob(torch.ones(())).sum()) / particles
    model.zero_grad()
    total.backward()
    for result in results:
        assert result.loss == pytest.approx(total.item(), rel=1e-10)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(result.grads[name], parameter.grad, rtol=1e-10, atol=1e-10)


# --- among other effects ---


@pytest.mark.parametrize(
    "around",
    [
        lambda m: share_noise(scale_noise(m, 0.5)),
        lambda m: scale_noise(share_noise(m), 0.5),
        lambda m: share_noise(fix_noise(m, 0.2)),
        lambda m: fix_noise(share_noise(m), 0.2),
        lambda m: share_noise(share_noise(m)),
    ],
    ids=["outside scale", "inside scale", "outside fix", "inside fix", "twice"],
)
def test_noise_stays_shared_whatever_its_scale(around: Any) -> None:
    for site in sites_of(around(TwoLayers()), S):
        assert_shared(noise_of(site))


@pytest.mark.parametrize("outside", [False, True])
def test_held_units_stay_held_and_the_others_share(outside: bool) -> None:
    model, holds = TwoLayers(), {"layers.0": {0: 1.5, 2: "mean"}}
    program = share_noise(clamp(model, holds)) if outside else clamp(share_noise(model), holds)
    site = sites_of(program, S)[0]
    assert (site["value"][..., 0] == 1.5).all()
    assert not site["fn"].variance[..., [0, 2]].any()
    noise = noise_of(site)[..., 1]
    torch.testing.assert_close(noise, noise[..., :1].expand(noise.shape))
    assert len(noise[..., 0].flatten().round(decimals=8).unique()) == S * ROWS


@pytest.mark.parametrize("effect", [deterministic, lambda m: clamp(m, {"layers.0": "mean"})])
def test_points_stay_points(effect: Any) -> None:
    model = TwoLayers()
    expected, found = (
        sites_of(one)[0]["value"] for one in (effect(model), share_noise(effect(model)))
    )
    assert torch.equal(found, expected)


# --- what is refused ---


@pytest.mark.parametrize("dim", [-1, 0, 2])
def test_units_do_not_share(dim: int) -> None:
    message = rf"^dim: expected a dimension left of that of the units, -2 or less, got {dim}. Try: "
    with pytest.raises(InputError, match=message):
        share_noise(TwoLayers(), dim=dim)


class Uniform(nn.Module):
    """A posterior that is not normal."""

    def forward(self, h: Tensor) -> dist.Distribution:
        return dist.Uniform(h.new_zeros(()), h.new_ones(()))


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"posterior": Uniform()}, "Uniform"),
        ({"prior": AutoregressiveNormal(UNITS), "steps": "markov"}, "ChainStep"),
    ],
)
def test_other_posteriors_are_refused(arguments: dict[str, Any], kind: str) -> None:
    layer = VariationalNeurons(UNITS, UNITS, **arguments)
    message = (
        rf"^shared noise of layer '': expected a normal posterior, or dropout, got a {kind}. Try: "
        r"NormalPosterior\(...\), and over time steps=\"parallel\""
    )
    with pytest.raises(InputError, match=message), PosteriorMessenger():
        share_noise(layer)(make_input())


def test_neurons_with_memory_share_along_their_time() -> None:
    layer = VariationalNeurons(UNITS, UNITS, prior=AutoregressiveNormal(UNITS))

    def model(x: Tensor) -> None:
        with pyro.plate("rows", ROWS, dim=-3):
            layer(x)

    with PosteriorMessenger():
        trace = pyro.poutine.trace(share_noise(model)).get_trace(make_input())
    assert_shared(noise_of(trace.nodes["z"]))
