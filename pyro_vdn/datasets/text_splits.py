"""Dividing a text into what is trained on, chosen by and reported."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal, NamedTuple

from torch import Tensor

from pyro_vdn.datasets.bpe import BPETokenizer
from pyro_vdn.datasets.checks import unknown_name
from pyro_vdn.datasets.text import Text
from pyro_vdn.datasets.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer
from pyro_vdn.errors import InputError

TokenizerKind = Literal["char", "byte", "bpe"]
TOKENIZER_KINDS = ("char", "byte", "bpe")


class TextSpans(NamedTuple):
    """Which characters of a text each part holds, as `(begin, end)`; `end` is one past the last.

    Args:
        train: Characters trained on.
        validation: Characters to choose by.
        test: Characters to report on.

    Example:
        >>> text_spans(1_115_394)
        TextSpans(train=(0, 1003854), validation=(1003854, 1059624), test=(1059624, 1115394))
    """

    train: tuple[int, int]
    validation: tuple[int, int]
    test: tuple[int, int]


class TextSplits(NamedTuple):
    """The tokens of the three parts of a text.

    Every part is encoded by itself, so blocks cut from one never reach into another.

    Args:
        train: Tokens to fit on, int64 `(time,)`.
        validation: Tokens to choose by.
        test: Tokens to report on.
        tokenizer: What made them.
        spans: The characters of each part; their number turns nats per token into bits per
            character.

    Example:
        >>> splits = text_splits(Text("digits", "0123456789" * 10))
        >>> [len(tokens) for tokens in splits[:3]], splits.tokenizer.vocab_size
        ([90, 5, 5], 10)
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    tokenizer: Tokenizer
    spans: TextSpans

    def characters_per_token(self, part: Literal["train", "validation", "test"]) -> float:
        """Say how much text a token stands for, to compare tokenisers.

        A loss of `L` nats per token is `L / (ln 2 * characters_per_token)` bits per character.

        Args:
            part: Which part of the text.

        Returns:
            Characters over tokens of that part.

        Example:
            >>> text_splits("né" * 50, "byte").characters_per_token("train")
            0.6666666666666666
        """
        begin, end = getattr(self.spans, part)
        return float((end - begin) / len(getattr(self, part)))


def text_spans(
    num_characters: int,
    *,
    train: float = 0.9,
    validation: float = 0.05,
    train_share: float = 1.0,
) -> TextSpans:
    """Say where the parts of a text of so many characters lie, one after the other.

    Training takes the first `floor(train n)` characters, validation ends at
    `floor((train + validation) n)`, and the rest is test. On Tiny Shakespeare the defaults make
    validation and test the two halves of the customary validation part, the last 10 %.

    Args:
        num_characters: Length of the text, `n`.
        train: Share of the text to train on.
        validation: Share of the text to choose by.
        train_share: How much of the training part to keep, from its beginning: 0.1 for a setting
            with little data and the same validation and test parts.

    Returns:
        The spans.

    Raises:
        InputError: If a share is not between 0 and 1, or nothing is left for a part.

    Example:
        >>> text_spans(100, train=0.8, validation=0.1, train_share=0.5)
        TextSpans(train=(0, 40), validation=(80, 90), test=(90, 100))
    """
    _require_shares(train, validation, train_share)
    # Decimal fractions: floats make (0.7 + 0.1) * 10 less than 8.
    fit, choose, keep = (Fraction(str(share)) for share in (train, validation, train_share))
    end = int(fit * num_characters)
    middle = int((fit + choose) * num_characters)
    spans = TextSpans((0, int(keep * end)), (end, middle), (middle, num_characters))
    for name, (begin, stop) in zip(spans._fields, spans, strict=True):
        if stop <= begin:
            raise _too_short(name, f"none of the {num_characters} characters")
    return spans


def text_splits(
    text: Text | str,
    tokenizer: Tokenizer | TokenizerKind = "char",
    *,
    train: float = 0.9,
    validation: float = 0.05,
    train_share: float = 1.0,
    vocab_size: int = 1024,
) -> TextSplits:
    """Divide a text into tokens to train on, to choose by and to report on.

    Args:
        text: The text.
        tokenizer: A tokeniser, or one to be made: `"char"` with the characters of the whole text,
            which is all it learns of validation and test, `"byte"`, or `"bpe"` trained on the
            training part that is kept alone.
        train: Share of the text to train on.
        validation: Share of the text to choose by.
        train_share: How much of the training part to keep, from its beginning.
        vocab_size: Number of tokens of a `"bpe"`.

    Returns:
        The tokens of each part.

    Raises:
        InputError: As for `text_spans` and for making and using the tokeniser, or if a part holds
            fewer than two tokens.

    Example:
        >>> from pyro_vdn.datasets import load_text
        >>> splits = text_splits(load_text("pydoc"), "byte", train_share=0.1)
        >>> splits.train.dtype, splits.tokenizer.vocab_size
        (torch.int64, 256)
    """
    content = text if isinstance(text, str) else text.content
    spans = text_spans(len(content), train=train, validation=validation, train_share=train_share)
    pieces = [content[begin:end] for begin, end in spans]
    if isinstance(tokenizer, str):
        tokenizer = _make_tokenizer(tokenizer, content, pieces[0], vocab_size)
    parts = [tokenizer.encode(piece) for piece in pieces]
    for name, part in zip(spans._fields, parts, strict=True):
        if len(part) < 2:
            raise _too_short(name, f"{len(part)} of a text of {len(content)} characters")
    return TextSplits(parts[0], parts[1], parts[2], tokenizer, spans)


def _make_tokenizer(kind: str, content: str, training: str, vocab_size: int) -> Tokenizer:
    if kind == "char":
        return CharTokenizer.of(content)
    if kind == "byte":
        return ByteTokenizer()
    if kind == "bpe":
        return BPETokenizer.train(training, vocab_size)
    raise unknown_name("tokenizer", kind, TOKENIZER_KINDS)


def _require_shares(train: float, validation: float, train_share: float) -> None:
    if not (0 < train < 1 and 0 < validation < 1 and train + validation < 1):
        raise InputError(
            "shares of the text",
            expected="train and validation above 0, and together below 1",
            got=f"train={train}, validation={validation}",
            hint="train=0.9, validation=0.05, which leave 0.05 for test",
        )
    if not 0 < train_share <= 1:
        raise InputError(
            "train_share",
            expected="a share of the training part in (0, 1]",
            got=str(train_share),
            hint="train_share=0.1 for the first tenth of it",
        )


def _too_short(part: str, got: str) -> InputError:
    return InputError(
        f"{part} part of the text",
        expected="at least two tokens",
        got=got,
        hint="a longer text, or other shares",
    )
