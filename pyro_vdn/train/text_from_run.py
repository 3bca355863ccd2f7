"""Text that the model of a run writes or reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyro
from torch import Tensor

from pyro_vdn.datasets import Tokenizer
from pyro_vdn.errors import InputError
from pyro_vdn.infer import TokenReading, generate, read_tokens
from pyro_vdn.train.language_problem import LanguageConfig
from pyro_vdn.train.run_folder import load_model, read_config

LONGEST = 20_000
"""Tokens of the longest text that is read."""


@dataclass(frozen=True, eq=False)
class RunText:
    """A text with what the model of a run thought of its tokens.

    Args:
        name: Name of the text that the run was trained on.
        tokenizer: The tokeniser of the run.
        reading: All tokens with their scores, those given first.
        num_given: How many were given rather than drawn.

    Example:
        >>> import torch
        >>> from pyro_vdn.datasets import CharTokenizer
        >>> reading = TokenReading(torch.tensor([1, 0]), *torch.zeros(4, 2))
        >>> RunText("abc", CharTokenizer("ab"), reading, 1).text
        'ba'
    """

    name: str
    tokenizer: Tokenizer
    reading: TokenReading
    num_given: int

    @property
    def text(self) -> str:
        """The text."""
        return self.tokenizer.decode(self.reading.tokens)

    @property
    def pieces(self) -> list[str]:
        """What each token stands for."""
        return [self.tokenizer.token(int(token)) for token in self.reading.tokens]


def generate_text(
    folder: Path,
    prompt: str,
    num_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    num_samples: int = 16,
    seed: int = 0,
) -> RunText:
    """Let the neurons of a run continue a text.

    Args:
        folder: The run's folder.
        prompt: The text, at least one character.
        num_tokens: Number of tokens to draw.
        temperature: See `pyro_vdn.infer.generate`.
        top_k: See there.
        num_samples: Draws of the neurons for every token.
        seed: Seed of all draws; the global random state is set.

    Returns:
        Prompt and continuation.

    Raises:
        RunFolderError: If the folder holds no run, or is damaged.
        InputError: For a run of another task, an empty prompt, a character that the tokeniser of
            the run does not know, and numbers outside their range.
    """
    config = _config(folder)
    tokens = _encode("prompt", config.tokenizer, prompt)
    programs = load_model(folder, config)
    pyro.set_rng_seed(seed)
    drawn = generate(
        *programs,
        tokens,
        num_tokens,
        temperature=temperature,
        top_k=top_k,
        num_samples=num_samples,
    )
    given = read_tokens(*programs, tokens, num_samples=num_samples)
    name = config.source.name
    return RunText(name, config.tokenizer, given.followed_by(drawn), len(tokens))


def read_text(folder: Path, text: str, *, num_samples: int = 16, seed: int = 0) -> RunText:
    """Let the neurons of a run read a text.

    Args:
        folder: The run's folder.
        text: The text, at least one character and at most `LONGEST` tokens.
        num_samples: Draws of the neurons for every token.
        seed: Seed of all draws; the global random state is set.

    Returns:
        The text.

    Raises:
        RunFolderError: If the folder holds no run, or is damaged.
        InputError: As `generate_text` does, and for a text that is too long.
    """
    config = _config(folder)
    tokens = _encode("text", config.tokenizer, text)
    if len(tokens) > LONGEST:
        raise InputError(
            "text",
            expected=f"at most {LONGEST:,} tokens",
            got=f"{len(tokens):,}",
            hint="a part of it",
        )
    programs = load_model(folder, config)
    pyro.set_rng_seed(seed)
    reading = read_tokens(*programs, tokens, num_samples=num_samples)
    return RunText(config.source.name, config.tokenizer, reading, len(tokens))


def _config(folder: Path) -> LanguageConfig:
    config = read_config(folder)
    if not isinstance(config, LanguageConfig):
        raise InputError(
            str(folder),
            expected="a run of language",
            got=f"one of {config.recipe.task}",
            hint=f"pyro-vdn predict {folder}",
        )
    return config


def _encode(what: str, tokenizer: Tokenizer, text: str) -> Tensor:
    if not text:
        raise InputError(what, expected="at least one character", got="none", hint='"The "')
    return tokenizer.encode(text)
