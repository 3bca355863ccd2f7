from __future__ import annotations

import sys

import pytest
import torch
from tokenizers import pre_tokenizers

from pyro_vdn.datasets import BPETokenizer, ByteTokenizer, bpe, load_text
from pyro_vdn.errors import InputError


@pytest.fixture(scope="module")
def text():
    return load_text("pydoc").content[:40_000]


def test_bytes_are_written_as_the_package_writes_them():
    assert set(bpe._LETTERS) == set(pre_tokenizers.ByteLevel.alphabet())
    for byte in range(0x80):  # one character, one byte
        written = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(chr(byte))
        assert written[0][0] == bpe._LETTERS[byte]


def test_merges_by_hand():
    # "ab" stands five times, "abc" three times; then nothing stands twice.
    tokenizer = BPETokenizer.train("abc abd\nabc\nabe\nabc", 300)
    a, b, c = b"abc"
    assert tokenizer.merges == ((a, b), (256, c))
    assert tokenizer.encode("abcab c").tolist() == [257, 256, 32, c]


def test_trained_merges_shorten_the_text_and_training_repeats(text):
    tokenizer = BPETokenizer.train(text, 400)
    assert tokenizer.vocab_size == 400
    assert len(tokenizer.encode(text)) < 0.6 * len(ByteTokenizer().encode(text))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert BPETokenizer.train(text, 400) == tokenizer
    assert BPETokenizer.train(text[::-1], 400) != tokenizer
    assert tokenizer.merges[:50] == BPETokenizer.train(text, 306).merges


def test_encoding_is_that_of_the_package(text):
    tokenizer = BPETokenizer.train(text, 400)
    package = bpe.import_tokenizers()
    machine = bpe._machine(package, package.models.BPE())
    trainer = package.trainers.BpeTrainer(
        vocab_size=400,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    machine.train_from_iterator([text], trainer)
    names = machine.encode(text[:5000]).tokens
    numbers = {letter: byte for byte, letter in enumerate(bpe._LETTERS)}
    words = [bytes(numbers[letter] for letter in name) for name in names]
    assert [tokenizer._words[token] for token in tokenizer.encode(text[:5000])] == words


def test_two_pairs_of_the_same_bytes_are_one_token():
    a, b, c = b"abc"
    tokenizer = BPETokenizer(((a, b), (b, c), (256, c), (a, 257), (258, 258)))
    assert tokenizer.vocab_size == 256 + 4
    assert tokenizer.token(259) == "abcabc"
    assert bpe._pairs([("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc"), ("abc", "abc")]) == (
        tokenizer.merges
    )
    assert tokenizer.encode("abcabcbc").tolist() == [259, 257]


def test_without_merges_it_is_the_byte_tokenizer():
    tokenizer = BPETokenizer.train("ab ab", 256)
    assert tokenizer.merges == ()
    assert torch.equal(tokenizer.encode("né ab"), ByteTokenizer().encode("né ab"))


def test_size_below_the_bytes():
    with pytest.raises(InputError, match="vocab_size: expected at least 256, the number of bytes"):
        BPETokenizer.train("text", 255)


@pytest.mark.parametrize("pair", [(97, 257), (-1, 97)])
def test_merge_of_what_is_not_there_yet(pair):
    with pytest.raises(InputError, match=r"merge 1: expected a pair of tokens in 0 to 256, got \("):
        BPETokenizer(((97, 98), pair))


def test_package_is_asked_for(monkeypatch):
    tokenizer = BPETokenizer(((97, 98),))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    message = r"byte pair encoding: expected the package tokenizers.*pyro-vdn\[text\].*ByteTokeniz"
    with pytest.raises(InputError, match=message):
        BPETokenizer.train("text")
    with pytest.raises(InputError, match=message):
        tokenizer.encode("text")
    assert tokenizer.decode(torch.tensor([256, 99])) == "abc"
