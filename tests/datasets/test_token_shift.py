from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_vdn.datasets import TokenBlocks, TokenGroups, corrupt_tokens, rare_tokens
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


def brute_force(tokens, vocab_size, rare, common):
    counts = [tokens.tolist().count(token) for token in range(vocab_size)]
    labels = []
    for count in counts:
        at_most = sum(other for other in counts if other <= count)
        above = sum(other for other in counts if other > count)
        labels.append(
            0 if at_most <= rare * len(tokens) else 2 * (above < common * len(tokens)) or 1
        )
    return labels


@pytest.mark.parametrize(("rare", "common"), [(0.1, 0.5), (0.25, 0.75), (0.02, 0.2)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_groups_by_brute_force(rare, common, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = (30 * torch.rand(400, generator=generator) ** 3).long()
    groups = rare_tokens(tokens, 33, rare=rare, common=common)
    assert groups.names == ("rare", "medium", "common")
    assert groups.labels.tolist() == brute_force(tokens, 33, rare, common)
    labels = groups.of(tokens)
    assert (labels == 0).double().mean() <= rare
    assert (labels == 2).double().mean() >= common
    assert bool((groups.labels[30:] == 0).all())  # they never occur


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32])
def test_tokens_of_any_integer_type(dtype):
    tokens = torch.arange(7).repeat_interleave(torch.arange(7))
    labels = rare_tokens(tokens, 7).labels
    assert torch.equal(rare_tokens(tokens.to(dtype), 7).labels, labels)
    noisy = corrupt_tokens(tokens.to(dtype), 0.3, 7, seed=0)
    assert noisy.dtype == dtype
    assert torch.equal(noisy.long(), corrupt_tokens(tokens, 0.3, 7, seed=0))


def test_tokens_of_equal_count_are_together():
    groups = rare_tokens(torch.arange(10).repeat(3), 12, rare=0.3, common=0.5)
    assert groups.labels.tolist() == [2] * 10 + [0] * 2


@pytest.mark.parametrize(
    ("counts", "labels"),
    [
        ([5, 4, 1, 0], [2, 1, 0, 0]),  # the first alone reaches a half, the third is a tenth
        ([4, 4, 2, 0], [2, 2, 1, 0]),
        ([10, 0, 0, 0], [2, 0, 0, 0]),
    ],
)
def test_shares_are_reached_exactly(counts, labels):
    tokens = torch.arange(4).repeat_interleave(torch.tensor(counts))
    assert rare_tokens(tokens, 4, rare=0.1, common=0.5).labels.tolist() == labels


def test_labels_of_targets_have_their_shape():
    groups = TokenGroups(torch.tensor([2, 1, 0]), ("rare", "medium", "common"))
    assert groups.of(torch.tensor([[0, 2], [1, 1]], dtype=torch.int32)).tolist() == [[2, 0], [1, 1]]
    with pytest.raises(InputError, match="tokens: expected tokens in 0 to 2, got 3"):
        groups.of(torch.tensor([3]))


@pytest.mark.parametrize(("rare", "common"), [(0.6, 0.5), (0.0, 0.5), (0.1, 0.0)])
def test_shares_of_the_training_text(rare, common):
    message = (
        rf"shares of the training text: .*together at most 1, got rare={rare}, common={common}"
    )
    with pytest.raises(InputError, match=message):
        rare_tokens(torch.arange(5), 5, rare=rare, common=common)


def test_no_training_tokens():
    with pytest.raises(InputError, match="train_tokens: expected at least one token, got none"):
        rare_tokens(torch.empty(0, dtype=torch.long), 5)
    with pytest.raises(InputError, match="train_tokens: expected tokens in 0 to 3"):
        rare_tokens(torch.arange(5), 4)
