from __future__ import annotations

import json
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_vdn.datasets import (
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    Tokenizer,
    tokenizer_from_dict,
)
from pyro_vdn.errors import InputError

SAMPLE = 'naïve "tokens"\r\n\tof 北京 🙂🙂 \x00\u2028 tokens, tokens'
ALL = {
    "char": CharTokenizer.of(SAMPLE),
    "byte": ByteTokenizer(),
    "bpe": BPETokenizer.train(SAMPLE, 270),
}
each = pytest.mark.parametrize("tokenizer", ALL.values(), ids=ALL)
cheap = settings(max_examples=40, deadline=None, database=None)


@each
@pytest.mark.parametrize("text", ["", "t", SAMPLE, " \n\n  ", "🙂" * 3])
def test_round_trip(tokenizer, text):
    tokens = tokenizer.encode(text)
    assert (tokens.dtype, tokens.dim()) == (torch.int64, 1)
    assert tokenizer.decode(tokens) == text
    assert bool((tokens >= 0).all() and (tokens < tokenizer.vocab_size).all())
    assert tokenizer.decode(tokens.to(torch.int32)) == text


@cheap
@given(text=st.text())
@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_any_text_comes_back(kind, text):
    tokenizer = ALL[kind]
    assert tokenizer.decode(tokenizer.encode(text)) == text


@cheap
@given(text=st.text(alphabet=st.characters(), min_size=1))
def test_characters_are_numbered_in_order(text):
    tokenizer = CharTokenizer.of(text)
    assert tokenizer.encode(text).tolist() == [sorted(set(text)).index(c) for c in text]
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_bytes_are_utf8():
    assert ByteTokenizer().encode(SAMPLE).tolist() == list(SAMPLE.encode())


@each
def test_what_it_is_survives_json(tokenizer):
    assert isinstance(tokenizer, Tokenizer)
    back = tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict())))
    assert back == tokenizer
    assert torch.equal(back.encode(SAMPLE), tokenizer.encode(SAMPLE))
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert torch.equal(copy.encode(SAMPLE), tokenizer.encode(SAMPLE))


@each
def test_every_token_can_be_shown(tokenizer):
    names = [tokenizer.token(index) for index in range(tokenizer.vocab_size)]
    assert all(names)
    assert len(set(names)) == tokenizer.vocab_size
    assert names[int(tokenizer.encode("t"))] == "t"
    with pytest.raises(IndexError if tokenizer != ByteTokenizer() else ValueError, match="range"):
        tokenizer.token(tokenizer.vocab_size)


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_bytes_that_are_no_text(kind):
    assert ALL[kind].decode(torch.tensor([104, 0xC3, 105])) == "h\ufffdi"
    assert ALL[kind].token(0xC3) == r"\xc3"


@pytest.mark.parametrize(
    ("text", "character", "place"),
    [
        ("tokens é", r"'é' \(U\+00E9\)", r"7 \(line 1, column 8\)"),
        ("o\n\nÿ é", r"'ÿ' \(U\+00FF\)", r"3 \(line 3, column 1\)"),
        ("\U0010ffff", r"'\\U0010ffff' \(U\+10FFFF\)", r"0 \(line 1, column 1\)"),
        ("\x01", r"'\\x01' \(U\+0001\)", "0 "),
    ],
)
def test_unknown_character(text, character, place):
    tokenizer = ALL["char"]
    message = rf"text: expected the {tokenizer.vocab_size} characters that this tokenizer knows, "
    message += rf"got {character} at character {place}.*Try: ByteTokenizer\(\), .* this text incl"
    with pytest.raises(InputError, match=message):
        tokenizer.encode(text)


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_half_a_surrogate_pair(kind):
    message = r"text: expected characters that UTF-8 can write, got U\+D800 at character 2, half a"
    with pytest.raises(InputError, match=message):
        ALL[kind].encode("ab\ud800")


@each
def test_tokens_of_another_vocabulary(tokenizer):
    with pytest.raises(InputError, match=rf"in 0 to {tokenizer.vocab_size - 1}, got 999 at \(1,\)"):
        tokenizer.decode(torch.tensor([0, 999]))
    with pytest.raises(InputError, match="one sequence"):
        tokenizer.decode(torch.zeros(1, 2, dtype=torch.long))


@pytest.mark.parametrize("alphabet", ["", "ba", "aab"])
def test_alphabet_in_order(alphabet):
    message = rf"alphabet: expected at least one character, in ascending order.*got '{alphabet}'"
    with pytest.raises(InputError, match=message):
        CharTokenizer(alphabet)


def test_unknown_kind():
    with pytest.raises(InputError, match=r"kind of tokenizer: expected one of 'char', .*'bytes'"):
        tokenizer_from_dict({"kind": "bytes"})
    with pytest.raises(InputError, match=r"kind of tokenizer: .*got 'None'"):
        tokenizer_from_dict({})


@pytest.mark.parametrize(("kind", "entry"), [("char", "alphabet"), ("bpe", "merges")])
def test_incomplete_values(kind, entry):
    message = rf"tokenizer of kind '{kind}': expected an entry '{entry}', got entries 'kind'"
    with pytest.raises(InputError, match=message):
        tokenizer_from_dict({"kind": kind})
