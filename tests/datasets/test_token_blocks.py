from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from pyro_vdn.datasets import TokenBlocks, corrupt_tokens, evaluation_batches
from pyro_vdn.errors import InputError


@pytest.mark.parametrize("stride", [1, 2, 4, 7])
@pytest.mark.parametrize("block_size", [1, 4])
@pytest.mark.parametrize("count", [5, 6, 30])
def test_blocks_by_hand(count, block_size, stride):
    tokens = torch.randint(9, (count,))
    blocks = TokenBlocks(tokens, block_size, stride=stride)
    starts = range(0, count - block_size, stride)
    assert len(blocks) == len(starts)
    x, y = blocks.tensors()
    for row, start in enumerate(starts):
        assert torch.equal(x[row], tokens[start : start + block_size])
        assert torch.equal(y[row], tokens[start + 1 : start + block_size + 1])


def test_index_gives_one_block_or_several():
    blocks = TokenBlocks(torch.arange(10), 3)
    x, y = blocks[torch.tensor([6, 0])]
    assert (x.tolist(), y.tolist()) == ([[6, 7, 8], [0, 1, 2]], [[7, 8, 9], [1, 2, 3]])
    assert blocks[-1][1].tolist() == [7, 8, 9]
    batches = list(DataLoader(blocks, batch_size=4))
    assert [tuple(x.shape) for x, _ in batches] == [(4, 3), (3, 3)]


def test_all_blocks_of_a_long_text_take_no_memory():
    tokens = torch.zeros(1_000_001, dtype=torch.long)
    x, y = TokenBlocks(tokens, 64).tensors()
    assert x.shape == y.shape == (999_937, 64)
    memory = [each.untyped_storage().data_ptr() for each in (x, y, tokens)]
    assert memory == memory[-1:] * 3


@settings(max_examples=60, deadline=None, database=None)
@given(
    count=st.integers(2, 60),
    block_size=st.integers(1, 20),
    batch_size=st.integers(1, 5),
)
def test_every_target_exactly_once_in_order(count, block_size, batch_size):
    tokens = torch.arange(count)
    batches = list(evaluation_batches(tokens, block_size, batch_size))
    assert torch.cat([y.flatten() for _, y in batches]).tolist() == list(range(1, count))
    assert all(torch.equal(x + 1, y) for x, y in batches)
    shapes = [tuple(x.shape) for x, _ in batches]
    assert all(rows <= batch_size and time <= block_size for rows, time in shapes)
    whole = (count - 1) // block_size
    assert len(shapes) == -(-whole // batch_size) + bool((count - 1) % block_size)


def test_corrupted_context_with_clean_targets():
    tokens = torch.randint(5, (200,))
    noisy = corrupt_tokens(tokens, 0.3, 5, seed=1)
    x, y = TokenBlocks(tokens, 8, inputs=noisy).tensors()
    clean_x, clean_y = TokenBlocks(tokens, 8).tensors()
    assert torch.equal(y, clean_y)
    assert torch.equal(x, TokenBlocks(noisy, 8).tensors()[0])
    assert not torch.equal(x, clean_x)
    batches = list(evaluation_batches(tokens, 8, 4, inputs=noisy))
    assert torch.equal(torch.cat([y.flatten() for _, y in batches]), tokens[1:])
    assert torch.equal(torch.cat([x.flatten() for x, _ in batches]), noisy[:-1])


@pytest.mark.parametrize("count", [0, 4])
def test_too_few_tokens(count):
    tokens = torch.zeros(count, dtype=torch.long)
    message = rf"tokens: expected at least 5, a block and the token after it, got {count}"
    with pytest.raises(InputError, match=message):
        TokenBlocks(tokens, 4)
    if count < 2:
        with pytest.raises(InputError, match="tokens: expected at least 2, one to predict from"):
            evaluation_batches(tokens, 4, 1)


@pytest.mark.parametrize(
    ("cut", "name"),
    [
        (lambda tokens: TokenBlocks(tokens, 0), "block_size"),
        (lambda tokens: TokenBlocks(tokens, 4, stride=0), "stride"),
        (lambda tokens: evaluation_batches(tokens, 0, 2), "block_size"),
        (lambda tokens: evaluation_batches(tokens, 4, 0), "batch_size"),
    ],
)
def test_lengths_are_positive(cut, name):
    with pytest.raises(InputError, match=f"{name}: expected at least 1, got 0"):
        cut(torch.arange(9))


@pytest.mark.parametrize(
    "cut", [TokenBlocks, lambda *args, **more: evaluation_batches(*args, 2, **more)]
)
def test_what_is_no_sequence_is_refused_at_once(cut):
    tokens = torch.arange(9)
    with pytest.raises(InputError, match=r"tokens: expected one sequence.*\(1, 9\)"):
        cut(tokens[None], 4)
    with pytest.raises(InputError, match="tokens: expected integer tokens, got torch"):
        cut(tokens.float(), 4)
    with pytest.raises(InputError, match="inputs: expected as many as tokens, 9, got 8"):
        cut(tokens, 4, inputs=tokens[1:])
    with pytest.raises(InputError, match="inputs: expected integer tokens"):
        cut(tokens, 4, inputs=tokens.double())
