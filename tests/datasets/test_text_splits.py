from __future__ import annotations

import pytest
import torch

from pyro_vdn.datasets import (
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    Text,
    TokenBlocks,
    evaluation_batches,
    load_text,
    text_spans,
    text_splits,
)
from pyro_vdn.errors import InputError

# Every character says where it stands, so a token that leaks is seen.
PLACES = "".join(chr(0x4E00 + place) for place in range(1000))


def test_customary_split_of_tiny_shakespeare():
    n = 1_115_394
    spans = text_spans(n)
    assert spans.train == (0, int(0.9 * n))
    validation, test = (end - begin for begin, end in spans[1:])
    assert validation == test == (n - int(0.9 * n)) // 2
    assert spans.test[1] == n


@pytest.mark.parametrize(
    ("n", "train", "validation", "ends"),
    [(10, 0.7, 0.1, (7, 8)), (100, 0.57, 0.29, (57, 86)), (7, 0.5, 0.25, (3, 5))],
)
def test_decimal_shares_are_exact(n, train, validation, ends):
    spans = text_spans(n, train=train, validation=validation)
    assert spans == ((0, ends[0]), ends, (ends[1], n))


@pytest.mark.parametrize("share", [1.0, 0.1, 0.013])
def test_share_keeps_the_beginning_of_the_training_part(share):
    whole, part = text_splits(PLACES), text_splits(PLACES, train_share=share)
    assert torch.equal(part.train, whole.train[: int(900 * share)])
    assert torch.equal(part.validation, whole.validation)
    assert torch.equal(part.test, whole.test)
    assert part.spans.train == (0, len(part.train))


@pytest.mark.parametrize("kind", ["char", "byte"])
def test_nothing_leaks(kind):
    splits = text_splits(PLACES, kind)
    decode = splits.tokenizer.decode
    parts = [decode(tokens) for tokens in splits[:3]]
    assert "".join(parts) == PLACES
    assert [PLACES[begin:end] for begin, end in splits.spans] == parts


@pytest.mark.parametrize("block_size", [4, 40])
def test_no_block_crosses_a_border(block_size):
    splits = text_splits(PLACES)  # token i is the character at place i
    x, y = TokenBlocks(splits.train, block_size).tensors()
    assert (int(x.min()), int(x.max()), int(y.max())) == (0, 898, 899)
    seen = set()
    for part, (begin, end) in zip(splits[1:3], splits.spans[1:], strict=True):
        batches = list(evaluation_batches(part, block_size, 3))
        inputs = torch.cat([x.flatten() for x, _ in batches]).tolist()
        targets = torch.cat([y.flatten() for _, y in batches]).tolist()
        assert inputs == list(range(begin, end - 1))
        assert targets == list(range(begin + 1, end))
        seen |= {*inputs, *targets}
    assert seen == set(range(900, 1000))


def test_pair_encoding_learns_of_the_kept_training_part_alone():
    text = "ab" * 45 + "cd" * 45 + "xy" * 10
    assert text_splits(text, "bpe").tokenizer == BPETokenizer.train(text[:180])
    few = text_splits(Text("t", text), "bpe", train_share=0.5)
    assert few.tokenizer == BPETokenizer.train("ab" * 45)
    assert few.tokenizer.decode(few.test) == "xy" * 5
    assert text_splits(text, "bpe", vocab_size=257).tokenizer.vocab_size == 257


def test_characters_per_token_follow_the_part():
    text = "a" * 900 + "é" * 50 + "北" * 50
    splits = text_splits(text, "byte")
    shares = [splits.characters_per_token(part) for part in ("train", "validation", "test")]
    assert shares == pytest.approx([1, 1 / 2, 1 / 3])
    part = text_splits(text, "char", train_share=0.1)
    assert (part.characters_per_token("train"), len(part.train)) == (1.0, 90)


def test_made_and_given_tokenizers():
    text = "to be or not to be" * 10 + "Z"
    assert text_splits(text).tokenizer == CharTokenizer.of(text)
    assert text_splits(text, "byte").tokenizer == ByteTokenizer()
    mine = CharTokenizer.of(text + "0123")
    splits = text_splits(Text("t", text), mine)
    assert splits.tokenizer is mine
    assert splits.train.tolist() == mine.encode(text[: len(splits.train)]).tolist()
    with pytest.raises(InputError, match="'Z'"):
        text_splits(text, CharTokenizer.of("to be or not"))


def test_default_text():
    text = load_text("pydoc")
    splits = text_splits(text)
    assert splits.tokenizer.vocab_size == len(set(text.content))
    assert sum(map(len, splits[:3])) == len(text)


@pytest.mark.parametrize(
    ("train", "validation"),
    [(0.95, 0.05), (0.0, 0.5), (0.9, 0.0), (1.2, -0.3), (0.9, float("nan"))],
)
def test_shares_of_the_text(train, validation):
    message = (
        rf"shares of the text: expected train and .*got train={train}, validation={validation}"
    )
    with pytest.raises(InputError, match=message):
        text_spans(1000, train=train, validation=validation)


@pytest.mark.parametrize("share", [0.0, 1.5, -0.1])
def test_share_of_the_training_part(share):
    with pytest.raises(InputError, match=rf"train_share: expected a share .*got {share}"):
        text_spans(1000, train_share=share)


def test_unknown_tokenizer():
    with pytest.raises(InputError, match=r"tokenizer: expected one of .*got 'chars'. Try: 'char'"):
        text_splits(PLACES, "chars")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0123456789", "validation part of the text: expected at least two tokens, got none of th"),
        ("0123456789" * 3, "validation part of the text: expected at least two tokens, got 1 of a"),
    ],
)
def test_text_too_short(content, message):
    with pytest.raises(InputError, match=message):
        text_splits(content)
    with pytest.raises(InputError, match=r"train part of the text: .*got 1 of"):
        text_splits(PLACES, train_share=0.0012)
