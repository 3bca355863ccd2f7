from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_vdn.datasets import TokenBlocks, corrupt_tokens
from pyro_vdn.errors import InputError


@settings(max_examples=60, deadline=None, database=None)
@given(
    count=st.integers(0, 200),
    share=st.floats(0, 1),
    vocab_size=st.integers(2, 30),
    seed=st.integers(0, 2**31),
)
def test_exactly_the_share_and_never_the_same_token(count, share, vocab_size, seed):
    tokens = torch.randint(vocab_size, (count,))
    before = tokens.clone()
    noisy = corrupt_tokens(tokens, share, vocab_size, seed=seed)
    assert int((noisy != tokens).sum()) == round(share * count)
    assert torch.equal(tokens, before)
    assert bool((noisy >= 0).all() and (noisy < vocab_size).all())
    assert torch.equal(noisy, corrupt_tokens(tokens, share, vocab_size, seed=seed))


def test_places_and_replacements_are_uniform():
    tokens = torch.full((40_000,), 2)
    noisy = corrupt_tokens(tokens, 0.5, 5, seed=0)
    changed = noisy != tokens
    counts = torch.bincount(noisy[changed], minlength=5)
    assert counts[2] == 0
    spread = (20_000 * 0.25 * 0.75) ** 0.5
    assert bool(((counts[[0, 1, 3, 4]] - 5000).abs() < 4 * spread).all())
    quarters = changed.view(4, -1).sum(-1)
    assert bool(((quarters - 5000).abs() < 4 * 50).all())


def test_doses_are_nested_and_seeds_differ():
    tokens = torch.randint(7, (500,))
    low, high = (corrupt_tokens(tokens, share, 7, seed=3) for share in (0.05, 0.3))
    assert torch.equal(high[low != tokens], low[low != tokens])
    assert not torch.equal(high, corrupt_tokens(tokens, 0.3, 7, seed=4))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_shape_and_type_are_kept(dtype):
    tokens = torch.full((4, 25), 249, dtype=dtype)
    noisy = corrupt_tokens(tokens, 1.0, 250, seed=0)
    assert (noisy.shape, noisy.dtype) == (tokens.shape, dtype)
    assert bool((noisy < 249).all())


def test_overlapping_blocks_are_not_written_into():
    tokens = torch.randint(7, (50,))
    before = tokens.clone()
    x, _ = TokenBlocks(tokens, 10).tensors()
    noisy = corrupt_tokens(x, 0.2, 7, seed=0)
    assert torch.equal(tokens, before)
    assert int((noisy != x).sum()) == 80


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_share_of_the_tokens(share):
    with pytest.raises(InputError, match=rf"share: expected a share .* in \[0, 1\], got {share}"):
        corrupt_tokens(torch.arange(5), share, 5, seed=0)


def test_vocabulary_with_another_token():
    with pytest.raises(InputError, match="vocab_size: expected at least 2, a token and another"):
        corrupt_tokens(torch.zeros(5, dtype=torch.long), 0.5, 1, seed=0)
    with pytest.raises(InputError, match="tokens: expected tokens in 0 to 3, got 4 at"):
        corrupt_tokens(torch.arange(5), 0.5, 4, seed=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32])
def test_tokens_of_any_integer_type(dtype):
    tokens = torch.arange(7).repeat_interleave(torch.arange(7))
    noisy = corrupt_tokens(tokens.to(dtype), 0.3, 7, seed=0)
    assert noisy.dtype == dtype
    assert torch.equal(noisy.long(), corrupt_tokens(tokens, 0.3, 7, seed=0))
