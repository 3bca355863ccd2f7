"""From text to integers and back: characters, bytes, and the contract they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pyro_vdn.datasets.checks import unknown_name
from pyro_vdn.datasets.utf8 import shown, utf8
from pyro_vdn.errors import InputError
from pyro_vdn.tokens import check_sequence


@runtime_checkable
class Tokenizer(Protocol):
    """What every tokeniser can do; `decode(encode(text)) == text` for every text it accepts.

    Example:
        >>> isinstance(ByteTokenizer(), Tokenizer)
        True
    """

    @property
    def vocab_size(self) -> int:
        """Number of tokens; they are the integers from 0 to `vocab_size - 1`."""
        ...

    def encode(self, text: str) -> Tensor:
        """Turn a text into tokens, int64 `(time,)`."""
        ...

    def decode(self, tokens: Tensor) -> str:
        """Turn tokens `(time,)` into text."""
        ...

    def token(self, index: int) -> str:
        r"""Say what one token stands for; bytes that are no text alone are written as ``\xc3``."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Give all there is to know as plain JSON values, for `tokenizer_from_dict`."""
        ...


@dataclass(frozen=True)
class CharTokenizer:
    """A token per character of an alphabet.

    Args:
        alphabet: The characters in ascending order, each once; token `i` is `alphabet[i]`.

    Raises:
        InputError: If the alphabet is empty or not in strictly ascending order.

    Example:
        >>> tokenizer = CharTokenizer.of("hello")
        >>> tokenizer.alphabet, tokenizer.encode("hole")
        ('ehlo', tensor([1, 3, 2, 0]))
        >>> tokenizer.decode(torch.tensor([1, 0, 2, 2, 3]))
        'hello'
    """

    alphabet: str

    def __post_init__(self) -> None:
        """Check the alphabet."""
        if not self.alphabet or list(self.alphabet) != sorted(set(self.alphabet)):
            raise InputError(
                "alphabet",
                expected="at least one character, in ascending order, each once",
                got=repr(self.alphabet) if len(self.alphabet) < 200 else "another order",
                hint="CharTokenizer.of(text)",
            )

    @classmethod
    def of(cls, text: str) -> CharTokenizer:
        """Make the tokeniser whose alphabet is the characters of a text.

        Args:
            text: The text, of at least one character.

        Returns:
            The tokeniser.

        Raises:
            InputError: If the text is empty.
        """
        return cls("".join(sorted(set(text))))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CharTokenizer:
        """Make the tokeniser that `to_dict` wrote."""
        return cls(values["alphabet"])

    @property
    def vocab_size(self) -> int:
        """Number of characters in the alphabet."""
        return len(self.alphabet)

    def encode(self, text: str) -> Tensor:
        """Turn a text into tokens, int64 `(characters,)`.

        Args:
            text: The text, perhaps empty.

        Returns:
            A token per character.

        Raises:
            InputError: If a character is not in the alphabet; it names the first one.
        """
        codes, alphabet = _codes(text), _codes(self.alphabet)
        tokens = np.searchsorted(alphabet, codes)
        known = alphabet[np.minimum(tokens, len(alphabet) - 1)] == codes
        if not known.all():
            raise self._unknown(text, int(known.argmin()))
        return torch.from_numpy(tokens.astype(np.int64))

    def decode(self, tokens: Tensor) -> str:
        """Turn tokens `(time,)` into text.

        Args:
            tokens: Integers.

        Returns:
            A character per token.

        Raises:
            InputError: If they are not one sequence of tokens of this alphabet.
        """
        check_sequence("tokens", tokens, self.vocab_size)
        codes = _codes(self.alphabet)[tokens.cpu().numpy()]
        content: bytes = codes.tobytes()
        return content.decode("utf-32-le", "surrogatepass")

    def token(self, index: int) -> str:
        """Say what one token stands for."""
        return self.alphabet[index]

    def to_dict(self) -> dict[str, Any]:
        """Give all there is to know as plain JSON values."""
        return {"kind": "char", "alphabet": self.alphabet}

    def _unknown(self, text: str, place: int) -> InputError:
        line = text.count("\n", 0, place) + 1
        column = place - text.rfind("\n", 0, place)
        return InputError(
            "text",
            expected=f"the {self.vocab_size} characters that this tokenizer knows",
            got=f"{text[place]!r} (U+{ord(text[place]):04X}) at character {place} "
            f"(line {line}, column {column})",
            hint="ByteTokenizer(), which knows every text, or CharTokenizer.of(...) with this "
            "text included",
        )


@dataclass(frozen=True)
class ByteTokenizer:
    r"""A token per byte of the text in UTF-8: 256 of them, for any text.

    Example:
        >>> tokens = ByteTokenizer().encode("né")
        >>> tokens, ByteTokenizer().decode(tokens)
        (tensor([110, 195, 169]), 'né')
        >>> ByteTokenizer().token(195)
        '\\xc3'
    """

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ByteTokenizer:
        """Make the tokeniser that `to_dict` wrote."""
        return cls()

    @property
    def vocab_size(self) -> int:
        """The number 256."""
        return 256

    def encode(self, text: str) -> Tensor:
        """Turn a text into tokens, int64 `(bytes,)`.

        Args:
            text: The text, perhaps empty.

        Returns:
            A token per byte.

        Raises:
            InputError: If the text holds half a surrogate pair, which UTF-8 cannot write.
        """
        values = np.frombuffer(utf8(text), dtype=np.uint8)
        return torch.from_numpy(values.astype(np.int64))

    def decode(self, tokens: Tensor) -> str:
        """Turn tokens `(time,)` into text; bytes that are not UTF-8 become U+FFFD.

        Args:
            tokens: Integers below 256.

        Returns:
            The text.

        Raises:
            InputError: If they are not one sequence of bytes.
        """
        check_sequence("tokens", tokens, 256)
        return bytes(tokens.tolist()).decode("utf-8", "replace")

    def token(self, index: int) -> str:
        """Say what one token stands for."""
        return shown(bytes([index]))

    def to_dict(self) -> dict[str, Any]:
        """Give all there is to know as plain JSON values."""
        return {"kind": "byte"}


def tokenizer_from_dict(values: Mapping[str, Any]) -> Tokenizer:
    """Make the tokeniser that some `to_dict` wrote.

    Args:
        values: What `to_dict` gave, perhaps read back from JSON.

    Returns:
        A tokeniser equal to the first.

    Raises:
        InputError: If it is not of a known kind, or a value is missing.

    Example:
        >>> tokenizer_from_dict(CharTokenizer.of("hello").to_dict())
        CharTokenizer(alphabet='ehlo')
    """
    from pyro_vdn.datasets.bpe import BPETokenizer  # it builds on this module

    kinds: dict[str, Callable[[Mapping[str, Any]], Tokenizer]] = {
        "char": CharTokenizer.from_dict,
        "byte": ByteTokenizer.from_dict,
        "bpe": BPETokenizer.from_dict,
    }
    kind = str(values.get("kind"))
    if kind not in kinds:
        raise unknown_name("kind of tokenizer", kind, tuple(kinds))
    try:
        return kinds[kind](values)
    except KeyError as error:
        raise InputError(
            f"tokenizer of kind {kind!r}",
            expected=f"an entry {error}",
            got=f"entries {', '.join(map(repr, values))}",
            hint="what to_dict() gave, whole",
        ) from error


def _codes(text: str) -> npt.NDArray[np.uint32]:
    """Give the code points, `(characters,)`."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
