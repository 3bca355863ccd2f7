"""Draws of next tokens: against tensors alone, draw by draw, and what neurons did at each token."""

from __future__ import annotations

from typing import Any, get_args

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import VariationalGPT
from pyro_vdn.models.language import TokenPrior, TokenScale
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer.token_draws import TokenDraws, token_draws
from pyro_vdn.poutine import (
    average_draws,
    clamp,
    deterministic,
    dropout,
    kl_weight,
    scale_noise,
    share_noise,
)
from pyro_vdn.testing import randomise
from pyro_vdn.testing.language import NoiseTape, gpt_by_hand, normal_kl, units_by_hand

VOCABULARY, ROWS, TIME, S = 7, 3, 5, 4
LAYERS = ["blocks.0.neurons", "blocks.1.neurons"]


def make_gpt(**kwargs: Any) -> VariationalGPT:
    model = VariationalGPT(
        VOCABULARY, **({"block_size": 8, "num_layers": 2, "num_heads": 2, "width": 16} | kwargs)
    )
    randomise(model, spread=0.2)
    return model


def make_tokens() -> Tensor:
    return torch.randint(VOCABULARY, (ROWS, TIME))


def draws_of(program: Any, tokens: Tensor, num_samples: int = S) -> TokenDraws:
    return token_draws(program, NeuronGuide(program), tokens, num_samples=num_samples)


@pytest.mark.parametrize("prior", get_args(TokenPrior))
@pytest.mark.parametrize("scale", get_args(TokenScale))
def test_against_tensors_alone(scale: TokenScale, prior: TokenPrior) -> None:
    model, tokens, tape = make_gpt(scale=scale, prior=prior), make_tokens(), NoiseTape()
    with tape.recording():
        draws = draws_of(model, tokens)
    weights, kl, sigma = dict(model.named_parameters()), [], []

    def units(layer: int, loc: Tensor, h: Tensor) -> Tensor:
        q, p = units_by_hand(weights, layer, loc, h, scale, prior)
        kl.append(normal_kl(q, p).expand(S, ROWS, TIME, 64).sum(-1).mean(0))
        sigma.append(q.scale.expand(S, ROWS, TIME, 64).mean((0, -1)))
        return q.loc + q.scale * tape.draws[layer]

    logits = gpt_by_hand(weights, tokens, num_heads=2, units=units)
    assert draws.log_probs.shape == (S, ROWS, TIME, VOCABULARY)
    torch.testing.assert_close(draws.log_probs, logits.log_softmax(-1))
    assert list(draws.kl) == list(draws.scale) == LAYERS
    for layer, path in enumerate(LAYERS):
        torch.testing.assert_close(draws.kl[path], kl[layer])
        torch.testing.assert_close(draws.scale[path], sigma[layer])
    assert not any(one.requires_grad for one in (draws.log_probs, *draws.kl.values()))


EFFECTS: dict[str, Any] = {
    "none": (lambda m: m, 0),
    "shared": (share_noise, 0),
    "dropout": (lambda m: dropout(m, 0.3), 0),
    "shared dropout": (lambda m: share_noise(dropout(m, 0.3)), 0),
    "scaled": (lambda m: scale_noise(m, 2.0), 0),
    "averaged": (lambda m: average_draws(m, 2), 1),
}


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.parametrize("neuron_layers", [None, (1,), (0,)])
def test_all_draws_at_once_equal_one_after_the_other(neuron_layers: Any, name: str) -> None:
    effect, dim = EFFECTS[name]
    model, tokens, tape = make_gpt(neuron_layers=neuron_layers), make_tokens(), NoiseTape()
    program = effect(model)
    with tape.recording():
        together = draws_of(program, tokens)
    alone = []
    for particle in range(S):
        with tape.replaying(particle, dim=dim):
            alone.append(draws_of(program, tokens, 1))
    log_probs = torch.cat([one.log_probs for one in alone])
    torch.testing.assert_close(together.log_probs, log_probs, rtol=0, atol=1e-12)
    assert (log_probs.std(0).amax(-1) > 1e-9).all()  # every token's prediction differs by draw
    for kind in ("kl", "scale"):
        for path, value in getattr(together, kind).items():
            mean = torch.stack([getattr(one, kind)[path] for one in alone]).mean(0)
            torch.testing.assert_close(value, mean)


def test_points_are_all_the_same() -> None:
    model, tokens = make_gpt(), make_tokens()
    draws = draws_of(deterministic(model), tokens)
    logits = gpt_by_hand(dict(model.named_parameters()), tokens, num_heads=2).log_softmax(-1)
    torch.testing.assert_close(draws.log_probs, logits.expand(S, *logits.shape))
    for path in LAYERS:
        assert draws.kl[path].shape == draws.scale[path].shape == (ROWS, TIME)
        assert not draws.kl[path].any()
        assert not draws.scale[path].any()


def test_a_plain_gpt_has_no_neurons_to_tell_of() -> None:
    draws = draws_of(make_gpt(neuron_layers=()), make_tokens())
    assert draws.log_probs.shape == (S, ROWS, TIME, VOCABULARY)
    assert draws.kl == draws.scale == {}


def test_weights_of_the_kl_do_not_count_and_held_units_have_none() -> None:
    model, tokens = make_gpt(), make_tokens()
    holds = {LAYERS[0]: 0.0}
    programs = (model, kl_weight(model, 0.1), clamp(model, holds))
    plain, weighted, held = (_seeded(program, tokens) for program in programs)
    torch.testing.assert_close(plain.kl, weighted.kl)
    assert (plain.kl[LAYERS[0]] > 0).all()
    assert not held.kl[LAYERS[0]].any()
    assert not held.scale[LAYERS[0]].any()
    assert (held.kl[LAYERS[1]] > 0).all()
    averaged = _seeded(average_draws(model, 4), tokens)
    torch.testing.assert_close(averaged.kl[LAYERS[0]], plain.kl[LAYERS[0]])
    torch.testing.assert_close(averaged.scale[LAYERS[0]], plain.scale[LAYERS[0]] / 2)


def _seeded(program: Any, tokens: Tensor) -> TokenDraws:
    pyro.set_rng_seed(1)
    return draws_of(program, tokens)


@pytest.mark.parametrize("shape", [(1, 1), (1, TIME), (ROWS, 1), (ROWS, 8)])
@pytest.mark.parametrize("num_samples", [1, 2])
def test_shapes_at_the_border(num_samples: int, shape: tuple[int, int]) -> None:
    draws = draws_of(make_gpt(), torch.zeros(shape, dtype=torch.uint8), num_samples)
    assert draws.log_probs.shape == (num_samples, *shape, VOCABULARY)
    total = draws.log_probs.exp().sum(-1)
    torch.testing.assert_close(total, torch.ones(num_samples, *shape))
    assert draws.kl[LAYERS[0]].shape == draws.scale[LAYERS[1]].shape == shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_that_of_the_model(dtype: torch.dtype) -> None:
    draws = draws_of(make_gpt().to(dtype), make_tokens())
    assert (
        draws.log_probs.dtype == draws.kl[LAYERS[0]].dtype == draws.scale[LAYERS[0]].dtype == dtype
    )


def test_a_change_of_a_token_is_not_seen_before_it() -> None:
    model, tokens = make_gpt(), make_tokens()
    changed = tokens.clone()
    changed[:, 3] = (changed[:, 3] + 1) % VOCABULARY
    before, after = _seeded(model, tokens), _seeded(model, changed)
    assert torch.equal(before.log_probs[:, :, :3], after.log_probs[:, :, :3])
    assert torch.equal(before.kl[LAYERS[1]][:, :3], after.kl[LAYERS[1]][:, :3])
    assert not torch.isclose(before.kl[LAYERS[1]][:, 3:], after.kl[LAYERS[1]][:, 3:]).any()


def coins(tokens: Tensor) -> None:
    """A program whose site has logits, but no classes."""
    with pyro.plate("rows", ROWS, dim=-3), pyro.plate("time", TIME, dim=-2):
        pyro.sample("y", dist.Bernoulli(logits=tokens.unsqueeze(-1)))


def test_another_site_is_refused() -> None:
    model, tokens = make_gpt(), make_tokens()
    message = r"^site: expected a categorical site, one of \['next_token'\], got 'y'. Try: site='ne"
    with pytest.raises(InputError, match=message):
        token_draws(model, NeuronGuide(model), tokens, site="y")
    with pytest.raises(InputError, match=r"^site: expected a categorical site, one of \['y'\]"):
        token_draws(coins, coins, torch.zeros(ROWS, TIME), site="y")
    with pytest.raises(InputError, match=r"^num_samples: expected"):
        draws_of(model, tokens, 0)
    with pytest.raises(InputError, match=r"^tokens: expected tokens in 0 to 6"):
        draws_of(model, tokens + VOCABULARY)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_half_precision_is_left_before_it_is_summed(dtype: torch.dtype) -> None:
    def half(tokens: Tensor) -> None:  # a program that leaves its logits as they are
        with pyro.plate("data", ROWS, dim=-3), pyro.plate("tokens", TIME, dim=-2):
            pyro.sample("next_token", dist.Categorical(logits=logits.unsqueeze(-2)))

    logits = (4 * torch.randn(ROWS, TIME, 200)).to(dtype)
    draws = token_draws(half, half, make_tokens())
    assert draws.log_probs.dtype == torch.float32
    assert draws.log_probs.logsumexp(-1).abs().max() < 1e-5

    model = make_gpt(scale="low_rank").to(dtype)
    draws, exact = (draws_of(program, make_tokens()) for program in (model, make_gpt()))
    for name in LAYERS:
        assert draws.kl[name].dtype == draws.scale[name].dtype == torch.float32
        assert exact.kl[name].dtype == torch.float64


def test_sequences_in_more_dimensions_are_refused() -> None:
    with pytest.raises(InputError, match=r"tokens: .*\(rows, time\).*got shape \(2, 3, 5\).*flat"):
        draws_of(make_gpt(), make_tokens().expand(2, ROWS, TIME))
