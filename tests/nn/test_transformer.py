"""Attention and blocks: against softmax written out, particle by particle, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.nn import TransformerBlock, VariationalNeurons
from pyro_vdn.nn.transformer import CausalSelfAttention
from pyro_vdn.poutine import deterministic
from pyro_vdn.testing import randomise

WIDTH = 8


def attended_by_hand(attention: CausalSelfAttention, x: Tensor) -> Tensor:
    """Attend token by token and head by head, for `x` of shape `(time, width)`."""
    size = WIDTH // attention.num_heads
    q, k, v = attention.queries_keys_values(x).chunk(3, -1)
    rows = []
    for time in range(len(x)):
        heads = []
        for head in range(attention.num_heads):
            own = slice(head * size, (head + 1) * size)
            score = k[: time + 1, own] @ q[time, own] / math.sqrt(size)
            heads.append(score.softmax(0) @ v[: time + 1, own])
        rows.append(torch.cat(heads))
    result: Tensor = attention.project(torch.stack(rows))
    return result


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("num_heads", [1, 2, 8])
@pytest.mark.parametrize("lead", [(), (3,), (1, 1), (4, 3), (2, 1, 3)])
def test_attention_is_that_of_each_sequence_by_itself(
    lead: tuple[int, ...], num_heads: int, bias: bool
) -> None:
    attention = CausalSelfAttention(WIDTH, num_heads, bias=bias)
    randomise(attention)
    assert (attention.project.bias is not None) == bias
    x = torch.randn(*lead, 5, WIDTH, requires_grad=True)
    mine = attention(x)
    plain = torch.stack([attended_by_hand(attention, one) for one in x.reshape(-1, 5, WIDTH)])
    plain = plain.reshape(x.shape)
    torch.testing.assert_close(mine, plain, rtol=0, atol=1e-13)
    leaves = [x, *attention.parameters()]
    weights = torch.randn_like(mine)
    grads = [torch.autograd.grad((weights * one).sum(), leaves) for one in (mine, plain)]
    torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(0, 5, WIDTH), (3, 1, WIDTH), (2, 0, 4, WIDTH)])
def test_shapes_at_the_border(shape: tuple[int, ...]) -> None:
    attention = CausalSelfAttention(WIDTH, 2)
    assert attention(torch.zeros(shape)).shape == shape
    if shape[-2] == 1:  # a token alone attends to itself
        x = torch.randn(shape)
        values = attention.queries_keys_values(x)[..., 2 * WIDTH :]
        torch.testing.assert_close(attention(x), attention.project(values))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_block_keeps_the_dtype_and_adds_to_its_input(dtype: torch.dtype) -> None:
    block = TransformerBlock(WIDTH, 2, nn.Sequential(nn.Linear(WIDTH, 12), nn.GELU()), 12).to(dtype)
    randomise(block)
    x = torch.randn(3, 5, WIDTH, dtype=dtype)
    between = x + block.attention(block.attention_norm(x))
    expected = between + block.project(block.neurons(block.neurons_norm(between)))
    assert block(x).dtype == dtype
    torch.testing.assert_close(block(x), expected)
    with torch.no_grad():
        block.project.weight.zero_()
        block.attention.project.weight.zero_()
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("bias", [False, True])
def test_biases_of_a_block(bias: bool) -> None:
    block = TransformerBlock(WIDTH, 2, nn.Identity(), WIDTH, bias=bias)
    assert {name.split(".")[-1] for name, _ in block.named_parameters()} == (
        {"weight", "bias"} if bias else {"weight"}
    )


def test_neurons_of_a_block_are_a_site_and_their_mean_its_twin() -> None:
    neurons = VariationalNeurons(WIDTH, 12)
    block = TransformerBlock(WIDTH, 2, neurons, 12)
    x = torch.randn(3, 5, WIDTH)
    site = pyro.poutine.trace(block).get_trace(x).nodes["neurons.z"]
    assert site["fn"].batch_shape == (3, 5, 12)
    plain = TransformerBlock(WIDTH, 2, neurons.posterior.loc, 12)
    named = {name.replace("neurons.posterior.loc.", "neurons."): p for name, p in _shared(block)}
    plain.load_state_dict(named)
    torch.testing.assert_close(deterministic(block)(x), plain(x))


def _shared(block: nn.Module) -> list[tuple[str, Any]]:
    return [(name, p) for name, p in block.state_dict().items() if "raw_scale" not in name]


@pytest.mark.parametrize(
    ("width", "num_heads", "message"),
    [
        (8, 3, r"^num_heads: expected a divisor of width=8, got 3. Try: width=9, or fewer heads"),
        (4, 5, r"got 5. Try: width=5"),
        (8, 0, r"^num_heads: expected"),
        (0, 1, r"^width: expected"),
    ],
)
def test_heads_divide_the_width(width: int, num_heads: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        CausalSelfAttention(width, num_heads)
