"""`VariationalGPT`: the standard GPT without noise, causality with it, and what it refuses."""

from __future__ import annotations

import copy
from typing import Any, get_args

import pyro
import pytest
import torch
import torch.nn.functional as F
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import VariationalGPT
from pyro_vdn.models.language import TokenPrior, TokenScale
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO
from pyro_vdn.nn import ConditionalNormal, LearnedNormal, StandardNormal, VariationalNeurons
from pyro_vdn.poutine import PosteriorMessenger, deterministic, dropout, share_noise
from pyro_vdn.testing import loss_and_grads, randomise
from pyro_vdn.testing.language import gpt_by_hand

VOCABULARY, BLOCK, ROWS = 7, 8, 3
#: What every neuron layer adds to a GPT.
ADDED = (".raw_scale", ".prior.")


def make_gpt(**kwargs: Any) -> VariationalGPT:
    sizes = {"block_size": BLOCK, "num_layers": 2, "num_heads": 2, "width": 16} | kwargs
    model = VariationalGPT(VOCABULARY, **sizes)
    randomise(model, spread=0.2)
    return model


def make_tokens(rows: int = ROWS, time: int = BLOCK) -> tuple[Tensor, Tensor]:
    text = torch.randint(VOCABULARY, (rows, time + 1))
    return text[:, :-1], text[:, 1:]


def logits_of(program: Any, tokens: Tensor) -> Tensor:
    """Return normalised logits of a run whose neurons are drawn from their posteriors."""
    with PosteriorMessenger():
        trace = pyro.poutine.trace(program).get_trace(tokens)
    logits: Tensor = trace.nodes["next_token"]["fn"].logits
    return logits.squeeze(-2)


# --- the standard GPT ---


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=["64", "32"]
)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("neuron_layers", [None, (1,), ()])
@pytest.mark.parametrize("num_heads", [1, 4])
def test_the_deterministic_effect_is_the_standard_gpt(
    num_heads: int, neuron_layers: Any, bias: bool, dtype: torch.dtype, tolerance: float
) -> None:
    model = make_gpt(neuron_layers=neuron_layers, bias=bias, num_heads=num_heads).to(dtype)
    tokens, targets = make_tokens(time=BLOCK - 2)
    twin = deterministic(model)
    mine = loss_and_grads(LocalELBO(), twin, NeuronGuide(twin), tokens, targets, of=model)

    weights = dict(model.named_parameters())
    logits = gpt_by_hand(weights, tokens, num_heads=num_heads)
    assert logits.dtype == dtype
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]

    found = logits_of(twin, tokens)
    torch.testing.assert_close(found, logits.log_softmax(-1), rtol=0, atol=4 * tolerance)
    assert mine.loss == pytest.approx(loss.item(), rel=tolerance)
    largest = max(grad.abs().max().item() for grad in mine.grads.values())
    for name, parameter in model.named_parameters():
        if any(added in name for added in ADDED):
            assert parameter.grad is None
            assert not mine.grads[name].any()
            continue
        assert parameter.grad is not None
        away = (mine.grads[name] - parameter.grad).abs().max().item()
        assert away <= tolerance * max(1.0, largest), name


@pytest.mark.parametrize("scale", get_args(TokenScale))
@pytest.mark.parametrize("prior", get_args(TokenPrior))
def test_scales_and_priors_add_at_most_five_percent(prior: TokenPrior, scale: TokenScale) -> None:
    with torch.device("meta"):
        model = VariationalGPT(65, prior=prior, scale=scale)
        plain = VariationalGPT(65, neuron_layers=())
    counted = [sum(p.numel() for p in net.parameters()) for net in (model, plain)]
    # nanoGPT's own count for these sizes: embeddings, 12 width^2 and two norms per block, a norm.
    assert counted[1] == 65 * 128 + 64 * 128 + 4 * (12 * 128**2 + 2 * 128) + 128
    assert counted[1] < counted[0] <= 1.05 * counted[1]
    shapes = {name: p.shape for name, p in model.named_parameters()}
    kept = [shape for name, shape in shapes.items() if not any(added in name for added in ADDED)]
    assert sorted(kept) == sorted(p.shape for p in plain.parameters())


def test_a_full_map_for_the_scale_is_refused() -> None:
    with pytest.raises(
        InputError,
        match=r"^scale: expected one of \('shared', 'unit', 'relative', 'low_rank'\), "
        r"got 'input'\. Try: scale=\"low_rank\"",
    ):
        VariationalGPT(5, scale="input")  # type: ignore[arg-type]


def test_initial_weights_are_those_of_gpt2() -> None:
    model = VariationalGPT(500, block_size=400, num_layers=2, num_heads=2, width=64, bias=True)
    expected = {"project": 0.02 / 2, "attention.project": 0.02 / 2}
    for name, parameter in model.named_parameters():
        if any(added in name for added in ADDED) or "norm" in name:
            continue
        if name.endswith("bias"):
            assert not parameter.any(), name
        else:
            part = name.removesuffix(".weight").split(".", 2)[-1]
            std = expected.get(part, 0.02)
            assert parameter.std().item() == pytest.approx(std, rel=0.1), name


# --- which layers, which priors ---


def test_layers_and_priors_are_as_chosen() -> None:
    model = make_gpt(num_layers=3, neuron_layers=(2, 0), prior=["conditional", "standard"])
    kinds = [type(block.neurons) is VariationalNeurons for block in model.blocks]
    assert kinds == [True, False, True]
    assert model.neuron_layers == (0, 2)
    assert isinstance(model.blocks[0].neurons.prior, ConditionalNormal)
    assert isinstance(model.blocks[2].neurons.prior, StandardNormal)
    assert isinstance(make_gpt().blocks[1].neurons.prior, LearnedNormal)
    trace = pyro.poutine.trace(model).get_trace(*make_tokens())
    assert [name for name in trace.nodes if name.endswith(".z")] == [
        "blocks.0.neurons.z",
        "blocks.2.neurons.z",
    ]
    assert trace.nodes["blocks.2.neurons.z"]["fn"].batch_shape == (ROWS, BLOCK, 64)
    assert trace.nodes["next_token"]["fn"].batch_shape == (ROWS, BLOCK, 1)


@pytest.mark.parametrize("prior", get_args(TokenPrior))
@pytest.mark.parametrize("scale", get_args(TokenScale))
@pytest.mark.parametrize("bias", [False, True])
def test_every_parameter_has_a_gradient(bias: bool, scale: TokenScale, prior: TokenPrior) -> None:
    model = VariationalGPT(  # as it starts, not randomised
        VOCABULARY,
        block_size=BLOCK,
        num_layers=2,
        num_heads=2,
        width=16,
        prior=prior,
        scale=scale,
        bias=bias,
    )
    result = loss_and_grads(LocalELBO(), model, NeuronGuide(model), *make_tokens(), of=model)
    assert [name for name, grad in result.grads.items() if not grad.any()] == []
    keys = [name for name in result.grads if name.endswith("queries_keys_values.bias")]
    assert len(keys) == 2 * bias


# --- causality ---


@pytest.mark.parametrize(
    "effect",
    [deterministic, lambda m: m, share_noise, lambda m: dropout(m, 0.3)],
    ids=["deterministic", "noise", "shared noise", "dropout"],
)
def test_a_token_never_changes_what_is_said_of_those_before(effect: Any) -> None:
    model, (tokens, _) = make_gpt(prior="conditional", scale="low_rank"), make_tokens(1)
    program = effect(model)
    pyro.set_rng_seed(1)
    before = logits_of(program, tokens)
    for time in range(BLOCK):
        changed = tokens.clone()
        changed[:, time] = (changed[:, time] + 1) % VOCABULARY
        pyro.set_rng_seed(1)
        after = logits_of(program, changed)
        torch.testing.assert_close(after[:, :time], before[:, :time], rtol=0, atol=1e-13)
        assert ((after[:, time:] - before[:, time:]).abs().amax(-1) > 1e-9).all()


def test_a_shorter_sequence_is_the_start_of_a_longer_one() -> None:
    twin, (tokens, _) = deterministic(make_gpt()), make_tokens()
    whole = logits_of(twin, tokens)
    for time in (1, 5):
        part = logits_of(twin, tokens[:, :time])
        torch.testing.assert_close(part, whole[:, :time], rtol=0, atol=1e-13)
    torch.testing.assert_close(logits_of(twin, tokens[1:2]), whole[1:2], rtol=0, atol=1e-13)


# --- in and out ---


def test_sampled_tokens_follow_the_predictive_distribution() -> None:
    twin, (tokens, _) = deterministic(make_gpt()), make_tokens(1, 2)
    drawn = twin(tokens.expand(20_000, 2))
    assert drawn.shape == (20_000, 2)
    shares = F.one_hot(drawn, VOCABULARY).double().mean(0)
    expected = logits_of(twin, tokens)[0].exp()
    error = (expected * (1 - expected) / 20_000).sqrt()
    assert ((shares - expected).abs() < 5 * error).all()


def test_targets_are_observed_and_returned() -> None:
    model, (tokens, targets) = make_gpt(), make_tokens()
    assert torch.equal(model(tokens, targets), targets)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32])
def test_tokens_of_any_integer_type(dtype: torch.dtype) -> None:
    model, (tokens, targets) = make_gpt(), make_tokens()
    losses = [
        loss_and_grads(
            LocalELBO(), model, NeuronGuide(model), tokens.to(kind), targets.to(kind), of=model
        ).loss
        for kind in (dtype, torch.int64)
    ]
    assert losses[0] == losses[1]
    assert model(tokens.to(dtype)).dtype == torch.int64


def test_copies_and_saved_states_say_the_same() -> None:
    model, data = make_gpt(prior="conditional", scale="low_rank"), make_tokens()
    loaded = make_gpt(prior="conditional", scale="low_rank")
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.zero_()
    loaded.load_state_dict(model.state_dict())
    losses = [
        loss_and_grads(LocalELBO(), one, NeuronGuide(one), *data, of=one).loss
        for one in (model, copy.deepcopy(model), loaded)
    ]
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.double(), r"^tokens: expected integer tokens, got torch.float64. Try: `token"),
        (lambda x: x > 2, r"^tokens: expected integer tokens, got torch.bool"),
        (lambda x: x[0], r"1 to block_size=8 tokens each, got shape \(8,\). Try: `tokens\[None"),
        (lambda x: torch.cat([x, x], -1), r"of 1 row or more, .* got shape \(3, 16\)"),
        (lambda x: x[:, :0], r"got shape \(3, 0\)"),
        (lambda x: x[:0], r"of 1 row or more, .* got shape \(0, 8\)"),
        (lambda x: x.index_fill(1, torch.tensor([4]), 7), r"in 0 to 6, got 7 at \(0, 4\)"),
        (lambda x: x.index_fill(0, torch.tensor([2]), -1), r"got -1 at \(2, 0\). Try: the tok"),
    ],
    ids=["floats", "booleans", "one sequence", "long", "no token", "no row", "above", "below"],
)
def test_tokens_are_checked(change: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_gpt()(change(make_tokens()[0]))


def test_targets_are_checked() -> None:
    model, (tokens, targets) = make_gpt(), make_tokens()
    with pytest.raises(InputError, match=r"^targets: expected shape \(3, 8\), got shape \(3, 7\)"):
        model(tokens, targets[:, 1:])
    with pytest.raises(InputError, match=r"^targets: expected tokens in 0 to 6, got 9 at \(0, 0\)"):
        model(tokens, targets + 9 - targets[0, 0])
    with pytest.raises(InputError, match=r"^targets: expected integer tokens"):
        model(tokens, targets.float())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"neuron_layers": (0, 2)},
            r"^neuron_layers: expected different layers in 0 to 1, got \(0",
        ),
        ({"neuron_layers": (-1,)}, r"^neuron_layers: .* Try: neuron_layers=None for all of them"),
        ({"neuron_layers": (1, 1)}, r"^neuron_layers: .* got \(1, 1\)"),
        ({"prior": "flat"}, r"^prior: expected one of \('standard', 'learned', 'conditional'\)"),
        ({"prior": ["learned"]}, r"^prior: expected one, or one for each of the 2 layers of neur"),
        ({"prior": ["learned", "flat"]}, r"^prior: expected one of .* got 'flat'"),
        ({"scale": "row"}, r"^scale: expected one of"),
        ({"num_heads": 3}, r"^num_heads: expected a divisor of width=16, got 3. Try: width=18"),
        ({"num_heads": 0}, r"^num_heads: expected"),
        ({"num_layers": 0}, r"^num_layers: expected"),
        ({"block_size": 0}, r"^block_size: expected"),
        ({"width": 0}, r"^width: expected"),
        ({"initial_scale": 1e-4}, r"^initial_scale: expected a value above min_scale"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_gpt(**arguments)
    with pytest.raises(InputError, match=r"^vocab_size: expected"):
        VariationalGPT(0)
