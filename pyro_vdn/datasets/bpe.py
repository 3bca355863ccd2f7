"""Byte pair encoding: frequent sequences of bytes become tokens of their own."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pyro_vdn.datasets.utf8 import shown, utf8
from pyro_vdn.errors import InputError
from pyro_vdn.tokens import check_sequence


@dataclass(frozen=True)
class BPETokenizer:
    r"""Tokens made of bytes: the 256 bytes themselves, then merged pairs, the most frequent first.

    Byte `b` is token `b`, as in `ByteTokenizer`; a pair that makes new bytes is the next free
    token. So any text is encoded and comes back exactly, and the merges say everything. Words are
    parted as in GPT-2 before they are merged. Training and encoding need the package `tokenizers`
    (`pip install 'pyro-vdn[text]'`); decoding does not.

    Args:
        merges: Pairs of tokens, in the order in which they were merged.

    Raises:
        InputError: If a pair holds a token that does not exist yet.

    Source:
        R. Sennrich, B. Haddow and A. Birch, Neural machine translation of rare words with subword
        units, ACL 2016; byte level: A. Radford et al., GPT-2, 2019.

    Example:
        >>> tokenizer = BPETokenizer(((116, 104), (256, 101)))
        >>> tokenizer.vocab_size, tokenizer.token(256), tokenizer.token(257)
        (258, 'th', 'the')
        >>> tokenizer.encode("the thé")
        tensor([257,  32, 256, 195, 169])
        >>> tokenizer.decode(tokenizer.encode("the thé"))
        'the thé'
    """

    merges: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        """Check the merges."""
        len(self._words)

    @classmethod
    def train(cls, text: str, vocab_size: int = 1024) -> BPETokenizer:
        """Find the merges of a text; give it the training part alone.

        Args:
            text: The text.
            vocab_size: Number of tokens wanted, 256 or more; a short text, in which no pair is
                left that occurs twice, yields fewer.

        Returns:
            The tokeniser, the same every time.

        Raises:
            InputError: If the size is below 256, the text is not Unicode, or the package
                `tokenizers` is missing.

        Example:
            >>> BPETokenizer.train("low lower lowest", 258).token(257)
            'low'
        """
        if vocab_size < 256:
            raise InputError(
                "vocab_size",
                expected="at least 256, the number of bytes",
                got=str(vocab_size),
                hint="vocab_size=1024",
            )
        utf8(text)
        package = import_tokenizers()
        machine = _machine(package, package.models.BPE())
        trainer = package.trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            show_progress=False,
            initial_alphabet=_LETTERS,
        )
        machine.train_from_iterator([text], trainer)
        names = json.loads(machine.to_str())["model"]["merges"]
        return cls(_pairs([(left, right) for left, right in names]))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BPETokenizer:
        """Make the tokeniser that `to_dict` wrote."""
        return cls(tuple((left, right) for left, right in values["merges"]))

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return len(self._words)

    def encode(self, text: str) -> Tensor:
        """Turn a text into tokens, int64 `(time,)`.

        Args:
            text: The text, perhaps empty.

        Returns:
            The tokens.

        Raises:
            InputError: If the text is not Unicode, or the package `tokenizers` is missing.
        """
        utf8(text)
        return torch.tensor(self._encoder.encode(text).ids, dtype=torch.long)

    def decode(self, tokens: Tensor) -> str:
        """Turn tokens `(time,)` into text; bytes that are not UTF-8 become U+FFFD.

        Args:
            tokens: Integers.

        Returns:
            The text.

        Raises:
            InputError: If they are not one sequence of tokens of this vocabulary.
        """
        check_sequence("tokens", tokens, self.vocab_size)
        return b"".join(self._words[token] for token in tokens.tolist()).decode("utf-8", "replace")

    def token(self, index: int) -> str:
        """Say what one token stands for."""
        return shown(self._words[index])

    def to_dict(self) -> dict[str, Any]:
        """Give all there is to know as plain JSON values."""
        return {"kind": "bpe", "merges": [[*pair] for pair in self.merges]}

    @cached_property
    def _words(self) -> list[bytes]:
        words = [bytes([byte]) for byte in range(256)]
        known = set(words)
        for place, (left, right) in enumerate(self.merges):
            if not (0 <= left < len(words) and 0 <= right < len(words)):
                raise InputError(
                    f"merge {place}",
                    expected=f"a pair of tokens in 0 to {len(words) - 1}",
                    got=f"({left}, {right})",
                    hint="BPETokenizer.train(text, vocab_size)",
                )
            word = words[left] + words[right]
            if word not in known:  # two pairs may make the same bytes: one token
                known.add(word)
                words.append(word)
        return words

    @cached_property
    def _encoder(self) -> Any:
        package = import_tokenizers()
        names = ["".join(_LETTERS[byte] for byte in word) for word in self._words]
        vocabulary = {name: token for token, name in enumerate(names)}
        pairs = [(names[left], names[right]) for left, right in self.merges]
        return _machine(package, package.models.BPE(vocabulary, pairs))


def import_tokenizers() -> ModuleType:
    """Import the package `tokenizers` when it is first needed.

    Returns:
        The module.

    Raises:
        InputError: If it is not installed.

    Example:
        >>> import_tokenizers().__name__
        'tokenizers'
    """
    try:
        return importlib.import_module("tokenizers")
    except ImportError as error:
        raise InputError(
            "byte pair encoding",
            expected="the package tokenizers",
            got=str(error),
            hint="pip install 'pyro-vdn[text]'; or ByteTokenizer(), which needs nothing",
        ) from error


def _machine(package: ModuleType, model: Any) -> Any:
    """Build the package's encoder for a model of merges, which parts words as GPT-2 does."""
    machine = package.Tokenizer(model)
    machine.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return machine


def _letters() -> list[str]:
    """Give the letter by which the package writes each byte: itself where it is printable."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


_LETTERS = _letters()


def _pairs(merges: Sequence[tuple[str, str]]) -> tuple[tuple[int, int], ...]:
    """Number the pairs of names that the package gives, as `BPETokenizer` numbers tokens."""
    numbers = {letter: byte for byte, letter in enumerate(_LETTERS)}
    pairs = []
    for left, right in merges:
        pairs.append((numbers[left], numbers[right]))
        numbers.setdefault(left + right, len(numbers))
    return tuple(pairs)
