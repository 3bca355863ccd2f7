"""Text from a language model, token by token, and how sure the model was of each."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pyro.poutine
import torch
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer.evaluating import evaluating
from pyro_vdn.infer.single_pass import Program
from pyro_vdn.infer.token_draws import TokenDraws, token_draws
from pyro_vdn.nn.categorical import entropy_of, mean_log_probs, mutual_information
from pyro_vdn.nn.shapes import check_positive

_ROWS = 8


class TokenReading(NamedTuple):
    r"""Tokens, and the predictive distribution that each of them was read or drawn from.

    With S draws `p_s` of the distribution of a token, given the tokens before it, and their average
    `q = 1/S sum_s p_s`. The first token of a text has nothing before it: its scores are NaN.

    Args:
        tokens: The tokens, `(time,)`.
        nll: `-log q(token)` in nats, `(time,)`.
        entropy: Entropy `H(q)` in nats, `(time,)`.
        mutual_information: `H(q) - 1/S sum_s H(p_s)` in nats: the part of the entropy that comes
            from the neurons, `(time,)`.
        kl: KL from posterior to prior of the neurons that made the prediction, in nats, summed over
            units and layers and averaged over draws, `(time,)`; 0 without random neurons.

    Example:
        >>> TokenReading(torch.tensor([3]), *torch.zeros(4, 1)).tokens
        tensor([3])
    """

    tokens: Tensor
    nll: Tensor
    entropy: Tensor
    mutual_information: Tensor
    kl: Tensor

    def followed_by(self, other: TokenReading) -> TokenReading:
        """Return this text with another one after it."""
        return TokenReading(*(torch.cat(pair) for pair in zip(self, other, strict=True)))


def generate(
    model: Program,
    guide: Program,
    prompt: Tensor,
    num_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    num_samples: int = 16,
    block_size: int | None = None,
    site: str = "next_token",
) -> TokenReading:
    r"""Continue a text: each token is drawn from `q(y)^(1/T)`, normalised, `q = 1/S sum_s p_s`.

    The average is that of S fresh draws of the neurons for every token. Draws depend on the global
    random state alone: seed it (``pyro.set_rng_seed``) for the same text again.

    Args:
        model: A Pyro program called as ``model(tokens)``, such as `VariationalGPT`, with any
            effects wrapped around it.
        guide: Its guide.
        prompt: What to continue, integers `(time,)`, at least one; of a long one the model reads
            the end.
        num_tokens: Number of tokens to draw.
        temperature: T above 0; below 1 the text is more predictable.
        top_k: Draw among the k most probable tokens alone; None for all.
        num_samples: Number S of draws of the neurons.
        block_size: Tokens that the model reads at most; by default its attribute of this name.
        site: Name of the categorical site.

    Returns:
        The tokens drawn, without the prompt. Scores are those of `q`, before temperature and
        `top_k`.

    Raises:
        InputError: For an empty prompt, tokens that the model does not know, and numbers outside
            their range.

    Example:
        >>> import pyro
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import VariationalGPT
        >>> model = VariationalGPT(65, block_size=16, num_layers=1, width=32)
        >>> pyro.set_rng_seed(0)
        >>> text = generate(model, NeuronGuide(model), torch.tensor([1, 2]), 5, top_k=3)
        >>> text.tokens.shape, bool((text.entropy < math.log(65)).all())
        (torch.Size([5]), True)
    """
    check_positive(num_tokens=num_tokens, num_samples=num_samples)
    _check_prompt(prompt)
    _check_choice(temperature, top_k)
    block_size = _block_size(model, block_size)
    text, scores = prompt.long(), list[tuple[Tensor, ...]]()
    with evaluating(model, guide):
        for _ in range(num_tokens):
            context = text[None, -block_size:]
            draws = token_draws(model, guide, context, num_samples=num_samples, site=site)
            log_q = mean_log_probs(draws.log_probs[:, 0, -1])
            token = _choose(log_q, temperature, top_k)
            scores.append(_scores(_last(draws), token))
            text = torch.cat((text, token))
    columns = (torch.cat(score) for score in zip(*scores, strict=True))
    return TokenReading(text[len(prompt) :], *columns)


def read_tokens(
    model: Program,
    guide: Program,
    tokens: Tensor,
    *,
    num_samples: int = 16,
    block_size: int | None = None,
    site: str = "next_token",
) -> TokenReading:
    """Return how sure a model was of every token of a text, given those before it.

    A text longer than a block is read in blocks that overlap by half, so that a token is predicted
    from half a block at least, as far as there are that many before it.

    Args:
        model: A Pyro program called as ``model(tokens)``.
        guide: Its guide.
        tokens: The text, integers `(time,)`, at least one.
        num_samples: Number S of draws of the neurons.
        block_size: Tokens that the model reads at most; by default its attribute of this name.
        site: Name of the categorical site.

    Returns:
        The tokens with their scores; those of the first are NaN.

    Raises:
        InputError: For an empty text, or tokens that the model does not know.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import VariationalGPT
        >>> model = VariationalGPT(65, block_size=16, num_layers=1, width=32)
        >>> reading = read_tokens(model, NeuronGuide(model), torch.arange(40))
        >>> reading.nll.shape, int(reading.nll.isnan().sum())
        (torch.Size([40]), 1)
    """
    check_positive(num_samples=num_samples)
    _check_prompt(tokens)
    size = min(_block_size(model, block_size), len(tokens) - 1)
    scores = torch.full((4, len(tokens)), math.nan)
    if size == 0:
        return TokenReading(tokens, *scores)
    last = len(tokens) - 1 - size
    starts = [*range(0, last, max(1, size // 2)), last]
    x, y = (part.unfold(0, size, 1)[starts] for part in (tokens[:-1], tokens[1:]))
    with evaluating(model, guide):
        batches = [
            _scores(token_draws(model, guide, rows, num_samples=num_samples, site=site), targets)
            for rows, targets in zip(torch.split(x, _ROWS), torch.split(y, _ROWS), strict=True)
        ]
    windows = torch.cat([torch.stack(batch) for batch in batches], dim=1)  # (4, windows, size)
    scores = scores.to(windows)
    # Backwards: where two blocks overlap, the first one knows more of what came before.
    for window, start in reversed([*enumerate(starts)]):
        scores[:, start + 1 : start + 1 + size] = windows[:, window]
    return TokenReading(tokens, *scores)


def _scores(draws: TokenDraws, tokens: Tensor) -> tuple[Tensor, ...]:
    """Return NLL, entropy, mutual information and KL of tokens, each of their shape."""
    log_q = mean_log_probs(draws.log_probs)
    nll = -log_q.gather(-1, tokens.long().unsqueeze(-1)).squeeze(-1)
    entropy = entropy_of(log_q).clamp_min(0.0)  # of one certain token 0, not -0
    information = mutual_information(log_q, entropy_of(draws.log_probs).mean(0))
    kl = torch.stack([*draws.kl.values()]).sum(0) if draws.kl else torch.zeros_like(nll)
    return nll, entropy, information, kl


def _last(draws: TokenDraws) -> TokenDraws:
    """Return what draws of one sequence say of the token after its end, rows and time as one."""
    ends = ({path: value[0, -1:] for path, value in part.items()} for part in draws[1:])
    return TokenDraws(draws.log_probs[:, 0, -1:], *ends)


def _choose(log_q: Tensor, temperature: float, top_k: int | None) -> Tensor:
    logits = log_q / temperature
    if top_k is not None and top_k < len(logits):
        kept = logits.topk(top_k)
        return kept.indices[torch.multinomial(kept.values.softmax(-1), 1)]
    return torch.multinomial(logits.softmax(-1), 1)


def _block_size(model: Program, given: int | None) -> int:
    size: Any = getattr(pyro.poutine.unwrap(model), "block_size", None) if given is None else given
    if size is None:
        raise InputError(
            "block_size",
            expected="how many tokens the model reads at most",
            got="none, nor an attribute of the model",
            hint="block_size=64",
        )
    check_positive(block_size=size)
    return int(size)


def _check_prompt(tokens: Tensor) -> None:
    if tokens.dim() != 1 or len(tokens) == 0 or torch.is_floating_point(tokens):
        raise InputError(
            "prompt",
            expected="at least one token, integers of shape (time,)",
            got=f"{tokens.dtype} of shape {tuple(tokens.shape)}",
            hint="`tokenizer.encode(text)` of a text that is not empty",
        )


def _check_choice(temperature: float, top_k: int | None) -> None:
    if not 0 < temperature < math.inf:
        raise InputError(
            "temperature",
            expected="a number above 0",
            got=str(temperature),
            hint="temperature=1.0; top_k=1 for the most probable token every time",
        )
    if top_k is not None:
        check_positive(top_k=top_k)
