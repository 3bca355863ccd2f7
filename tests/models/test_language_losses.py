"""Losses on a `VariationalGPT`: against tensors alone, two passes, and particles run one by one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

import pyro
import pytest
import torch
from pyro.infer import Predictive, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import VariationalGPT
from pyro_vdn.models.language import TokenPrior, TokenScale
from torch import Tensor, nn

from pyro_vdn.infer import LocalELBO, PACmELBO
from pyro_vdn.nn import (
    CategoricalLikelihood,
    NormalPosterior,
    TransformerBlock,
    VariationalNeurons,
)
from pyro_vdn.poutine import (
    PosteriorMessenger,
    average_draws,
    clamp,
    deterministic,
    dropout,
    fix_noise,
    kl_weight,
    record,
    scale_noise,
    share_noise,
)
from pyro_vdn.testing import loss_and_grads, randomise
from pyro_vdn.testing.cases import LossAndGrads
from pyro_vdn.testing.language import NoiseTape, gpt_by_hand, normal_kl, units_by_hand

EXACT = {"rtol": 1e-10, "atol": 1e-10}
VOCABULARY, ROWS, TIME, S = 7, 3, 5, 3
NESTING = 3


def make_gpt(**kwargs: Any) -> VariationalGPT:
    sizes = {"block_size": 8, "num_layers": 2, "num_heads": 2, "width": 16} | kwargs
    model = VariationalGPT(VOCABULARY, **sizes)
    randomise(model, spread=0.2)
    return model


def make_data() -> tuple[Tensor, Tensor]:
    text = torch.randint(VOCABULARY, (ROWS, TIME + 1))
    return text[:, :-1], text[:, 1:]


def assert_same(mine: LossAndGrads, theirs: LossAndGrads) -> None:
    assert mine.loss == pytest.approx(theirs.loss, rel=1e-10)
    assert mine.grads.keys() == theirs.grads.keys()
    for name, grad in mine.grads.items():
        torch.testing.assert_close(grad, theirs.grads[name], **EXACT, msg=lambda m, n=name: n + m)


def gradients_of(loss: Tensor, model: nn.Module) -> LossAndGrads:
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    grads = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }
    return LossAndGrads(loss.item(), grads)


def stock(kind: Any, particles: int) -> Any:
    return kind(
        num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=NESTING
    )


# --- against tensors alone ---


def terms_by_hand(
    model: VariationalGPT, data: tuple[Tensor, Tensor], scale: str, prior: str, noise: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return `log p(y_t | z^s)`, (S, rows, time), and the sum of the KLs per particle."""
    weights, total = dict(model.named_parameters()), torch.zeros(())

    def draw(layer: int, loc: Tensor, h: Tensor) -> Tensor:
        nonlocal total
        q, p = units_by_hand(weights, layer, loc, h, scale, prior)
        each = normal_kl(q, p)
        total = total + each.expand(noise[layer].shape).sum() / len(noise[layer])
        return q.loc + q.scale * noise[layer]

    logits = gpt_by_hand(weights, data[0], num_heads=2, units=draw)
    log_probs = logits.log_softmax(-1)
    chosen = data[1].expand(log_probs.shape[:-1]).unsqueeze(-1)
    return log_probs.gather(-1, chosen).squeeze(-1), total


@pytest.mark.parametrize("prior", get_args(TokenPrior))
@pytest.mark.parametrize("scale", get_args(TokenScale))
def test_losses_equal_two_passes_and_tensors_alone(scale: TokenScale, prior: TokenPrior) -> None:
    model, data = make_gpt(scale=scale, prior=prior), make_data()
    guide, tape = NeuronGuide(model), NoiseTape()
    with tape.recording():
        mine = loss_and_grads(
            LocalELBO(S, max_plate_nesting=NESTING), model, guide, *data, of=model
        )
    assert [draw.shape for draw in tape.draws] == [(S, ROWS, TIME, 64)] * 2
    two_pass = stock(TraceMeanField_ELBO, S)
    assert_same(mine, loss_and_grads(two_pass, model, guide, *data, of=model))
    log_probs, kl = terms_by_hand(model, data, scale, prior, tape.draws)
    assert_same(mine, gradients_of(kl - log_probs.sum() / S, model))

    pacm = loss_and_grads(PACmELBO(S), model, guide, *data, of=model)
    log_probs, kl = terms_by_hand(model, data, scale, prior, tape.draws)
    averaged = log_probs.logsumexp(0) - math.log(S)
    assert_same(pacm, gradients_of(kl - averaged.sum(), model))
    assert pacm.loss < mine.loss


EFFECTS: dict[str, Callable[[Any], Any]] = {
    "none": lambda m: m,
    "shared": share_noise,
    "averaged": lambda m: average_draws(m, 2),
    "scaled": lambda m: scale_noise(m, {"blocks.1.neurons": 0.3}),
    "fixed": lambda m: fix_noise(m, 0.2),
    "dropout": lambda m: dropout(m, 0.3),
    "shared dropout": lambda m: share_noise(dropout(m, 0.3)),
    "averaged dropout": lambda m: average_draws(dropout(m, 0.3), 2),
    "averaged shared": lambda m: average_draws(share_noise(m), 2),
    "scaled shared": lambda m: scale_noise(share_noise(m), 0.5),
    "weighted fixed averaged": lambda m: kl_weight(fix_noise(average_draws(m, 2), 0.5), 0.1),
    "held": lambda m: clamp(
        share_noise(scale_noise(m, 0.5)), {"blocks.0.neurons": {0: 1.0, 3: "mean", 5: "prior"}}
    ),
    "held within": lambda m: average_draws(
        scale_noise(clamp(m, {"blocks.0.neurons": {0: 1.0, 3: "mean", 5: "prior"}}), 0.5), 2
    ),
    "points": lambda m: average_draws(share_noise(scale_noise(deterministic(m), 2.0)), 3),
}


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.parametrize("prior", ["learned", "conditional"])
def test_effects_equal_two_passes(prior: TokenPrior, name: str) -> None:
    model, data = make_gpt(prior=prior, scale="low_rank"), make_data()
    program = EFFECTS[name](model)
    guide = NeuronGuide(program)
    mine = loss_and_grads(LocalELBO(S, max_plate_nesting=NESTING), program, guide, *data, of=model)
    two_pass = stock(TraceMeanField_ELBO, S)
    assert_same(mine, loss_and_grads(two_pass, program, guide, *data, of=model))
    plain = loss_and_grads(
        LocalELBO(S, max_plate_nesting=NESTING), model, NeuronGuide(model), *data, of=model
    )
    assert (mine.loss == plain.loss) == (name == "none")


@pytest.mark.parametrize("name", EFFECTS)
def test_effects_are_recorded_and_serve_trace_elbo(name: str) -> None:
    model, data = make_gpt(), make_data()
    program = EFFECTS[name](model)
    with record() as seen:
        kl = LocalELBO().terms(program, NeuronGuide(program), *data).kl["blocks.1.neurons"]
    layer = seen["blocks.1.neurons"]
    weight = 0.1 if "weighted" in name else 1.0
    torch.testing.assert_close(weight * layer.kl.mean * ROWS * TIME, kl.detach())
    assert math.isfinite(stock(Trace_ELBO, 1).loss(program, NeuronGuide(program), *data))


# --- particles ---


@pytest.mark.parametrize("name", [name for name in EFFECTS if "held" not in name])
def test_particles_equal_as_many_passes_with_the_same_noise(name: str) -> None:
    model, data, tape = make_gpt(prior="conditional", scale="relative"), make_data(), NoiseTape()
    program = EFFECTS[name](model)
    guide = NeuronGuide(program)
    with tape.recording():
        together = loss_and_grads(
            LocalELBO(S, max_plate_nesting=NESTING), program, guide, *data, of=model
        )
    alone, dim = [], int("averaged" in name)  # there, draws to be averaged stand first
    for particle in range(S):
        with tape.replaying(particle, dim=dim):
            alone.append(loss_and_grads(LocalELBO(), program, guide, *data, of=model))
    assert (len({one.loss for one in alone}) == S) == (name != "points")
    mean = {name: sum(one.grads[name] for one in alone) / S for name in together.grads}
    assert_same(together, LossAndGrads(sum(one.loss for one in alone) / S, mean))  # type: ignore[arg-type]


@pytest.mark.parametrize("neuron_layers", [None, (2,), (1,), ()])
def test_what_stands_before_the_first_neurons_is_computed_once(neuron_layers: Any) -> None:
    model, data = make_gpt(num_layers=3, neuron_layers=neuron_layers), make_data()
    shapes: list[tuple[int, ...]] = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))
        block.neurons_norm.register_forward_pre_hook(
            lambda _, args: shapes.append(tuple(args[0].shape))
        )
    LocalELBO(S, max_plate_nesting=NESTING).loss(model, NeuronGuide(model), *data)
    alone, drawn = (ROWS, TIME, 16), (S, ROWS, TIME, 16)
    first = min(model.neuron_layers, default=2)
    assert shapes == [alone] * 2 * (first + 1) + [drawn] * 2 * (2 - first)


# --- nets of one's own, and Pyro's tools ---


class OwnNet(PyroModule):
    """Blocks around several kinds of neurons, within a net and program of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 8)
        several = VariationalNeurons(8, 12, latent_dim=2, posterior=NormalPosterior("input"))
        self.blocks = nn.Sequential(
            TransformerBlock(8, 2, nn.Sequential(nn.Linear(8, 12), nn.ReLU()), 12),
            TransformerBlock(8, 4, VariationalNeurons(8, 12), 12, bias=True),
            TransformerBlock(8, 1, several, 12),
        )
        self.likelihood = CategoricalLikelihood()

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        with pyro.plate("data", len(tokens), dim=-3), pyro.plate("time", tokens.shape[1], dim=-2):
            logits = self.blocks(self.embed(tokens)) @ self.embed.weight.T
            observed = None if targets is None else targets.unsqueeze(-1)
            drawn: Tensor = pyro.sample("y", self.likelihood(logits), obs=observed)
        return drawn


@pytest.mark.parametrize("name", [n for n in EFFECTS if "held" not in n and n != "scaled"])
def test_blocks_in_a_net_of_one_s_own(name: str) -> None:
    net, data = OwnNet(), make_data()
    randomise(net)
    program = EFFECTS[name](net)
    mine = loss_and_grads(
        LocalELBO(S, max_plate_nesting=NESTING), program, NeuronGuide(program), *data, of=net
    )
    two_pass = stock(TraceMeanField_ELBO, S)
    assert_same(mine, loss_and_grads(two_pass, program, NeuronGuide(program), *data, of=net))
    if name == "none":
        assert [key for key, grad in mine.grads.items() if not grad.any()] == []
        trace = pyro.poutine.trace(net).get_trace(*data)
        sites = [key for key in trace.nodes if key.endswith(".z")]
        assert sites == ["blocks.1.neurons.z", "blocks.2.neurons.z"]


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive_draws_tokens(parallel: bool) -> None:
    model, (tokens, _) = make_gpt(), make_data()
    draws = Predictive(model, guide=NeuronGuide(model), num_samples=4, parallel=parallel)(tokens)
    assert draws["next_token"].shape == (4, ROWS, TIME, 1)
    assert draws["next_token"].unique().numel() > 1
    z = draws["blocks.0.neurons.z"]
    assert z.shape == (4, ROWS, TIME, 64)
    assert (z.std(0) > 0).all()


def test_a_renyi_bound_lies_above_the_elbo() -> None:
    model, data = make_gpt(num_layers=1, prior="standard"), make_data()
    with torch.no_grad():  # a posterior near its prior, where few particles tell something
        model.blocks[0].neurons.posterior.raw_scale.value.fill_(0.5)
    losses = []
    for kind in (stock(Trace_ELBO, 200), RenyiELBO(0.0, 200, 3, vectorize_particles=True)):
        pyro.set_rng_seed(1)
        losses.append(kind.loss(model, NeuronGuide(model), *data))
    assert losses[1] < losses[0]


def test_conditioned_neurons_are_observed() -> None:
    model, data = make_gpt(), make_data()
    value = torch.randn(ROWS, TIME, 64)
    held = pyro.poutine.condition(model, {"blocks.0.neurons.z": value})
    terms = LocalELBO(S, max_plate_nesting=NESTING).terms(held, NeuronGuide(held), *data)
    assert list(terms.kl) == ["blocks.1.neurons"]
    prior = model.blocks[0].neurons.prior(value)
    expected = torch.distributions.Normal(prior.loc, prior.scale).log_prob(value).sum(-1)
    torch.testing.assert_close(terms.log_likelihood["blocks.0.neurons.z"].squeeze(0), expected)
    weights = dict(model.named_parameters())
    with PosteriorMessenger():
        trace = pyro.poutine.trace(deterministic(held)).get_trace(*data)
    logits = gpt_by_hand(
        weights, data[0], num_heads=2, units=lambda layer, loc, _: loc if layer else value
    )
    found = trace.nodes["next_token"]["fn"].logits.squeeze(-2)
    torch.testing.assert_close(found, logits.log_softmax(-1), **EXACT)


def test_the_model_is_drawn() -> None:
    pytest.importorskip("graphviz")
    drawn = pyro.render_model(make_gpt(), model_args=make_data()).source
    assert '"blocks.1.neurons.z" -> next_token' in drawn
    assert '"blocks.0.neurons.z" -> "blocks.1.neurons.z"' not in drawn  # a learned prior
    drawn = pyro.render_model(make_gpt(prior="conditional"), model_args=make_data()).source
    assert '"blocks.0.neurons.z" -> "blocks.1.neurons.z"' in drawn
