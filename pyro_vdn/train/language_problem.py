"""The text of a language run, cut into tokens to train on, to choose by and to report on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vdn import __version__
from pyro_vdn.datasets import (
    TokenBlocks,
    Tokenizer,
    evaluation_batches,
    load_text,
    text_splits,
    tokenizer_from_dict,
)
from pyro_vdn.errors import InputError
from pyro_vdn.train.batches import Pair
from pyro_vdn.train.language_recipe import LanguageRecipe
from pyro_vdn.train.problem import Source
from pyro_vdn.train.tasks import FORMAT

_ROWS = 16
_UNITS = {"char": "characters", "byte": "bytes", "bpe": "tokens"}


@dataclass(frozen=True, eq=False)
class LanguageProblem:
    """The tokens of a text.

    Args:
        recipe: How a model of it is made and trained.
        source: Where the text comes from.
        tokenizer: What made tokens of it.
        sha256: Of the text.
        train: All overlapping blocks of the training part and the tokens after theirs, as views.
        validation: Blocks to choose the checkpoint by, spread over the validation part.
        test: Tokens of the test part, `(time,)`.
        characters_per_token: Characters of the test part for each of its tokens.

    Example:
        >>> problem = load_language(Source("pydoc"), LanguageRecipe(test_every=8))
        >>> problem.train[0].shape[1], len(problem.validation[0])
        (64, 96)
    """

    recipe: LanguageRecipe
    source: Source
    tokenizer: Tokenizer
    sha256: str
    train: Pair
    validation: Pair
    test: Tensor
    characters_per_token: float

    @property
    def tested_on(self) -> str:
        """What is reported on, in words."""
        count = sum(y.numel() for _, y in self.test_batches())
        every = self.recipe.test_every
        part = "" if every == 1 else f"every {every}th block of "
        unit = _UNITS[self.recipe.tokenizer]
        return f"{count:,} {unit}: {part}the last 5 % of {self.source.name}"

    def test_batches(self) -> Iterable[Pair]:
        """Go through the test part: inputs and targets `(rows, time)`."""
        size, every = self.recipe.block_size, self.recipe.test_every
        if every == 1:
            yield from evaluation_batches(self.test, size, _ROWS)
            return
        x, y = TokenBlocks(self.test, size, stride=size * every).tensors()
        yield from zip(torch.split(x, _ROWS), torch.split(y, _ROWS), strict=True)


@dataclass(frozen=True, eq=False)
class LanguageConfig:
    """What reproduces a run on text, and what generating with it needs.

    Args:
        source: Where the text comes from.
        recipe: Every hyper-parameter.
        seed: Seed of weights, batches and noise.
        tokenizer: What makes tokens of text.
        sha256: Of the text.
        version: Version of the library that wrote it.

    Example:
        >>> from pyro_vdn.datasets import ByteTokenizer
        >>> config = LanguageConfig(Source("pydoc"), LanguageRecipe(), 0, ByteTokenizer(), "ab")
        >>> LanguageConfig.from_dict(config.to_dict()).recipe == config.recipe
        True
    """

    source: Source
    recipe: LanguageRecipe
    seed: int
    tokenizer: Tokenizer
    sha256: str
    version: str = __version__

    @classmethod
    def of(cls, problem: LanguageProblem, seed: int) -> LanguageConfig:
        """Return the configuration of a problem."""
        return cls(problem.source, problem.recipe, seed, problem.tokenizer, problem.sha256)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration, ready for JSON."""
        return {
            "format": FORMAT,
            "version": self.version,
            "task": self.recipe.task,
            "data": self.source.to_dict(),
            "sha256": self.sha256,
            "seed": self.seed,
            "recipe": self.recipe.to_dict(),
            "tokenizer": self.tokenizer.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LanguageConfig:
        """Return the configuration that `to_dict` described."""
        return cls(
            source=Source.from_dict(values["data"]),
            recipe=LanguageRecipe.from_dict(values["recipe"]),
            seed=values["seed"],
            tokenizer=tokenizer_from_dict(values["tokenizer"]),
            sha256=values["sha256"],
            version=values["version"],
        )


def load_language(
    source: Source, recipe: LanguageRecipe, tokenizer: Tokenizer | None = None
) -> LanguageProblem:
    """Load a text and cut it: 90 % to train on, 5 % to choose by, the last 5 % to report on.

    Args:
        source: Name of a text, or path of a file.
        recipe: The recipe.
        tokenizer: The tokeniser of the run; by default one is made as the recipe says.

    Returns:
        The tokens.

    Raises:
        InputError: For a text that cannot be read, is too short for blocks, or holds what the
            tokeniser does not know.
    """
    text = load_text(source.data)
    splits = text_splits(
        text,
        recipe.tokenizer if tokenizer is None else tokenizer,
        train_share=recipe.share,
        vocab_size=recipe.vocab_size,
    )
    size = recipe.block_size
    for name in ("train", "validation", "test"):
        _check_length(f"{name} part of {source.name}", getattr(splits, name), size)
    blocks = TokenBlocks(splits.validation, size, stride=size)
    some = min(len(blocks), recipe.validation_blocks)
    begin, end = splits.spans.test
    return LanguageProblem(
        recipe=recipe,
        source=source,
        tokenizer=splits.tokenizer,
        sha256=text.sha256,
        train=TokenBlocks(splits.train, size).tensors(),
        validation=blocks[torch.linspace(0, len(blocks) - 1, some).long()],
        test=splits.test,
        characters_per_token=(end - begin) / len(splits.test),
    )


def load_language_again(config: LanguageConfig, recipe: LanguageRecipe) -> LanguageProblem:
    """Load the text of a run once more, refusing one that has changed."""
    problem = load_language(config.source, recipe, config.tokenizer)
    if problem.sha256 != config.sha256:
        raise InputError(
            f"text {config.source.data!r}",
            expected="the text that the run was trained on",
            got="another: its checksum differs",
            hint="restore the file as it was, or train a new run; 'pydoc' is another text in "
            "another version of Python",
        )
    return problem


def _check_length(what: str, tokens: Tensor, size: int) -> None:
    if len(tokens) <= size:
        raise InputError(
            what,
            expected=f"at least {size + 1} tokens, a block and the one after it",
            got=str(len(tokens)),
            hint="a longer text, or a smaller --block",
        )
