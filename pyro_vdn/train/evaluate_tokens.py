"""Scores of predicted tokens over a corpus, batch by batch, with what the neurons did at each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from pyro_vdn.diagnostics import (
    TemperatureFit,
    TokenSummary,
    UnitStatistics,
    score_columns,
    summarise_tokens,
)
from pyro_vdn.diagnostics.tokens.token_metrics import joined, sequence_numbers
from pyro_vdn.diagnostics.tokens.token_scores import (
    average_log_probs,
    check_temperature,
    token_scores,
)
from pyro_vdn.diagnostics.units.measure import random_layers
from pyro_vdn.errors import InputError
from pyro_vdn.infer import TokenDraws, token_draws
from pyro_vdn.infer.evaluating import evaluating, own_noise
from pyro_vdn.nn.shapes import check_positive
from pyro_vdn.poutine import record

Program: TypeAlias = Callable[..., Any]
TokenBatches: TypeAlias = Iterable[Any]
"""Batches `(x, y)` of integer tokens `(rows, time)`, or one pair of tensors `(x, y)`."""

_ROWS = 32


@dataclass(frozen=True, eq=False)
class TokenEvaluation:
    """Metrics of a corpus, what was seen at each of its tokens, and what the units did.

    Args:
        metrics: The metrics.
        table: Columns `(tokens,)` by name, in the order of the corpus, for decisions and groups:
            the scores of `TokenScores` (``"nll"``, ``"entropy"``, ``"max_probability"``,
            ``"correct"``, ``"brier"``, ``"mutual_information"``, ``"expected_entropy"``,
            ``"conditional_variance"``, ``"flip_rate"``); ``"kl.<layer>"`` and ``"scale.<layer>"``,
            the KL in nats summed over a layer's units, and their mean scale; ``"kl"``, the sum
            over layers, and ``"scale"``, their mean, both 0 without neurons; and as integers
            ``"target"``, ``"token"`` (the last one read), ``"position"`` in the context, from 0,
            and ``"sequence"``, the row of the corpus, from 0.
        layers: Statistics of the units of every random layer by path, for which each token is a
            row; empty for a deterministic model. A layer is left out as a whole where any of its
            units is a point, such as one that `clamp` holds.

    Example:
        >>> table = dict.fromkeys(("nll", "kl"), torch.rand(6))
        >>> sorted(TokenEvaluation(None, table, {}).table)
        ['kl', 'nll']
    """

    metrics: TokenSummary
    table: dict[str, Tensor]
    layers: dict[str, UnitStatistics]


def evaluate_tokens(
    model: Program,
    guide: Program,
    batches: TokenBatches,
    *,
    num_samples: int = 16,
    temperature: float = 1.0,
    site: str = "next_token",
    seed: int = 0,
) -> TokenEvaluation:
    """Score the averaged predictive distribution of every token of a corpus.

    Only a batch of draws is held at a time; of every token some twenty numbers are kept. Parts in
    training mode are put into evaluation mode for the time being. A model without randomness is run
    with one draw.

    Args:
        model: A Pyro program called as ``model(tokens)``, such as `VariationalGPT`, with any
            effects wrapped around it.
        guide: Its guide.
        batches: Batches `(x, y)` of integers `(rows, time)`: sequences and the token that follows
            each of theirs; or one such pair, which is cut into batches of 32 rows.
        num_samples: Draws per token.
        temperature: T of `q ~ (average of draws)^(1/T)`, of which the scores are.
        site: Name of the categorical site.
        seed: Seed of all draws; the caller's random state is untouched. The same seed and batches
            give the same figures; other batches give other draws.

    Returns:
        Metrics, columns of all tokens, statistics of units.

    Raises:
        InputError: For batches that are no pairs, no batch at all, and tokens that do not fit.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import VariationalGPT
        >>> model = VariationalGPT(11, block_size=8, num_layers=1, width=16)
        >>> text = torch.randint(11, (5, 9))
        >>> pair = text[:, :-1], text[:, 1:]
        >>> found = evaluate_tokens(model, NeuronGuide(model), pair, num_samples=4)
        >>> found.metrics.tokens, found.table["kl.blocks.0.neurons"].shape, found.layers.keys()
        (40, torch.Size([40]), dict_keys(['blocks.0.neurons']))
    """
    check_positive(num_samples=num_samples)
    draws = MemberDraws(model, guide, num_samples, site)
    with own_noise(seed), evaluating(model, guide):
        found = evaluate_token_draws(draws, batches, temperature=temperature)
    layers = {path: UnitStatistics.of(seen) for path, seen in random_layers(draws.seen).items()}
    return TokenEvaluation(found.metrics, found.table, layers)


def evaluate_token_draws(
    draw: Callable[[Tensor], TokenDraws], batches: TokenBatches, *, temperature: float = 1.0
) -> TokenEvaluation:
    """Score the average of whatever draws: those of an ensemble, or those of a readout.

    Args:
        draw: From sequences `(rows, time)` to draws at each of their tokens.
        batches: As for `evaluate_tokens`.
        temperature: As for `evaluate_tokens`.

    Returns:
        As `evaluate_tokens`, without statistics of units.

    Raises:
        InputError: As for `evaluate_tokens`.

    Example:
        >>> def uniform(tokens):
        ...     return TokenDraws(torch.zeros(1, *tokens.shape, 4).log_softmax(-1), {}, {})
        >>> x = torch.zeros(3, 5, dtype=torch.long)
        >>> round(evaluate_token_draws(uniform, [(x, x)]).metrics.bits_per_token, 6)
        2.0
    """
    check_temperature(temperature)
    parts, sequences = [], 0
    for x, y in _pairs(batches):
        parts.append(_columns(draw(x), x, y, temperature))
        parts[-1]["sequence"] = sequences + sequence_numbers(y)
        sequences += len(y)
    table = joined(parts)
    return TokenEvaluation(summarise_tokens(table), table, {})


def fit_token_temperature(
    model: Program,
    guide: Program,
    batches: TokenBatches,
    *,
    num_samples: int = 16,
    site: str = "next_token",
    seed: int = 0,
) -> float:
    """Return the temperature of the averaged predictive distribution that fits a corpus best.

    One pass over the batches, none of which is kept; see `TemperatureFit`.

    Args:
        model: The model, as for `evaluate_tokens`.
        guide: Its guide.
        batches: Batches to fit on, which must be others than those to report on.
        num_samples: Draws per token.
        site: Name of the categorical site.
        seed: Seed of all draws.

    Returns:
        The temperature.

    Raises:
        InputError: As for `evaluate_tokens`.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import VariationalGPT
        >>> model = VariationalGPT(11, block_size=8, num_layers=1, width=16)
        >>> text = torch.randint(11, (5, 9))
        >>> 0.05 <= fit_token_temperature(model, NeuronGuide(model), (text[:, :-1], text[:, 1:]))
        True
    """
    check_positive(num_samples=num_samples)
    draws, fit = MemberDraws(model, guide, num_samples, site), TemperatureFit()
    with own_noise(seed), evaluating(model, guide):
        for x, y in _pairs(batches):
            fit.update(average_log_probs(draws(x).log_probs, y), y)
    return fit.result()


class MemberDraws:
    """Draw with as many samples as make sense, and see what the layers do.

    Args:
        model: The model.
        guide: Its guide.
        num_samples: Draws per token; a model without randomness is run with one.
        site: Name of the categorical site.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import VariationalGPT
        >>> from pyro_vdn.poutine import deterministic
        >>> model = VariationalGPT(11, block_size=8, num_layers=1, width=16)
        >>> tokens = torch.zeros(3, 8, dtype=torch.long)
        >>> for program in (model, deterministic(model)):
        ...     draw = MemberDraws(program, NeuronGuide(program), 5, "next_token")
        ...     print(draw(tokens).log_probs.shape)
        torch.Size([5, 3, 8, 11])
        torch.Size([1, 3, 8, 11])
    """

    def __init__(self, model: Program, guide: Program, num_samples: int, site: str) -> None:
        self.programs = model, guide
        self.wanted, self.site = num_samples, site
        self.needed: int | None = None
        self.seen = record()

    def __call__(self, x: Tensor) -> TokenDraws:
        """Draw at every token of sequences `(rows, time)`."""
        # Statistics of units from one draw: those of all would cost as much as the scores.
        with self.seen:
            once = self._draw(x, 1)
        if self.needed is None:
            self.needed = self.wanted if self._varies(x) else 1
        return once if self.needed == 1 else self._draw(x, self.needed)

    def _draw(self, x: Tensor, count: int) -> TokenDraws:
        return token_draws(*self.programs, x, num_samples=count, site=self.site)

    def _varies(self, x: Tensor) -> bool:
        if any(bool((layer.scale.mean > 0).any()) for layer in self.seen.values()):
            return True
        one, other = self._draw(x[:1], 2).log_probs  # something else in the model may be random
        return not torch.allclose(one, other)


def _columns(draws: TokenDraws, x: Tensor, y: Tensor, temperature: float) -> dict[str, Tensor]:
    columns = score_columns(token_scores(draws.log_probs, y, temperature=temperature))
    kl = {f"kl.{path}": value for path, value in draws.kl.items()}
    scale = {f"scale.{path}": value for path, value in draws.scale.items()}
    none = torch.zeros(y.shape)
    total = {
        "kl": torch.stack([*kl.values()]).sum(0) if kl else none,
        "scale": torch.stack([*scale.values()]).mean(0) if scale else none,
    }
    for name, value in {**kl, **scale, **total}.items():
        columns[name] = value.reshape(-1).cpu().float()
    position = torch.arange(y.shape[-1]).expand(y.shape)
    for name, value in {"target": y, "token": x, "position": position}.items():
        columns[name] = value.reshape(-1).cpu()
    return columns


def _pairs(batches: TokenBatches) -> Iterator[tuple[Tensor, Tensor]]:
    if isinstance(batches, tuple) and len(batches) == 2 and isinstance(batches[0], Tensor):
        x, y = batches
        _check_pair((x, y))
        batches = zip(x.split(_ROWS), y.split(_ROWS), strict=True)
    for batch in batches:
        _check_pair(batch)
        yield batch[0], batch[1]


def _check_pair(batch: Any) -> None:
    parts = batch if isinstance(batch, (tuple, list, Tensor)) else ()
    shapes = [tuple(getattr(part, "shape", ())) for part in parts]
    if len(shapes) != 2 or len(shapes[0]) != 2 or shapes[0] != shapes[1]:
        raise InputError(
            "batches",
            expected="pairs (x, y) of integer tensors of one shape (rows, time)",
            got=f"{type(batch).__name__} of shapes {shapes}",
            hint="x, y = tokens[:, :-1], tokens[:, 1:]",
        )
