"""What trained language models say of a text: every token's scores and predictive distribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_vdn.bench.language_methods import LanguageMethod
from pyro_vdn.datasets import evaluation_batches
from pyro_vdn.decision import ReadoutScores
from pyro_vdn.diagnostics import expected_calibration_error, fit_temperature, summarise_tokens
from pyro_vdn.diagnostics.tokens.token_scores import average_log_probs, tempered
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.infer import TokenDraws, token_draws
from pyro_vdn.models import VariationalGPT
from pyro_vdn.train.evaluate_tokens import evaluate_token_draws

Draw = Callable[[Tensor], TokenDraws]
BLOCK = 64
_ROWS = 8


class Reading(NamedTuple):
    """What a method says of a text.

    Args:
        table: Columns `(tokens,)` by name, as in `TokenEvaluation`.
        log_probs: The averaged predictive distribution, in nats, `(tokens, vocabulary)`.
    """

    table: dict[str, Tensor]
    log_probs: Tensor

    @property
    def targets(self) -> Tensor:
        """The tokens that came, `(tokens,)`."""
        return self.table["target"]


def drawing(method: LanguageMethod, model: VariationalGPT, num_samples: int) -> Draw:
    """Return what draws from a trained method, with its effects of evaluation.

    Args:
        method: The method.
        model: Its network.
        num_samples: Draws per token.
    """
    guide = NeuronGuide(model)

    def draw(tokens: Tensor) -> TokenDraws:
        with method.at(1.0):
            return token_draws(model, guide, tokens, num_samples=num_samples)

    return draw


def ensemble(members: Sequence[Draw]) -> Draw:
    """Return what draws once from each member.

    Args:
        members: What draws from one network each.
    """

    def draw(tokens: Tensor) -> TokenDraws:
        return TokenDraws(torch.cat([member(tokens).log_probs for member in members]), {}, {})

    return draw


def read(
    draw: Draw,
    tokens: Tensor,
    *,
    inputs: Tensor | None = None,
    readouts: ReadoutScores | None = None,
) -> Reading:
    """Read a text, every token but the first as a target once.

    Args:
        draw: What draws.
        tokens: The text, `(time,)`.
        inputs: A corrupted text to read in its place, `(time,)`; targets stay those of `tokens`.
        readouts: What scores the readouts of every batch's draws, if anything does.

    Returns:
        The reading; the noise is the same for every call.
    """
    averages: list[Tensor] = []
    batches = list(evaluation_batches(tokens, BLOCK, _ROWS, inputs=inputs))
    targets = iter(y for _, y in batches)

    def seen(x: Tensor) -> TokenDraws:
        draws, y = draw(x), next(targets)
        averages.append(average_log_probs(draws.log_probs).flatten(0, 1))
        if readouts is not None:
            readouts.update(draws.log_probs, y)
        return draws

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        table = evaluate_token_draws(seen, batches).table
    return Reading(table, torch.cat(averages))


def scores(chosen_on: Reading, reported_on: Reading) -> dict[str, Any]:
    """Return the scores of a method, before and after a temperature.

    Args:
        chosen_on: Its reading of the half of the held-out text that choices are made on.
        reported_on: That of the other half.

    Returns:
        Scores of the second half by name; ``nll_chosen_on`` and ``nll_whole`` are of the first half
        and of both; ``temperature`` is fitted on the first, and ``scaled_`` scores use it.
    """
    temperature = fit_temperature(chosen_on.log_probs, chosen_on.targets)
    scaled = tempered(reported_on.log_probs, temperature)
    most, guess = scaled.exp().max(-1)
    nll = torch.cat([chosen_on.table["nll"], reported_on.table["nll"]])
    return {
        **summarise_tokens(reported_on.table).to_dict(),
        "nll_chosen_on": float(chosen_on.table["nll"].mean()),
        "nll_whole": float(nll.mean()),
        "temperature": temperature,
        "scaled_nll": scaled_nll(reported_on, temperature),
        "scaled_nll_chosen_on": scaled_nll(chosen_on, temperature),
        "scaled_ece": float(expected_calibration_error(most, guess == reported_on.targets)),
    }


def scaled_nll(reading: Reading, temperature: float) -> float:
    """Return the mean NLL of a reading at a temperature, in nats per token.

    Args:
        reading: The reading.
        temperature: The temperature.
    """
    log_probs = tempered(reading.log_probs, temperature)
    return -float(log_probs.gather(-1, reading.targets[:, None]).double().mean())
