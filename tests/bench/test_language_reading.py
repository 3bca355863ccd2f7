"""What trained methods say of a text."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pyro_vdn.bench import language_reading
from pyro_vdn.bench.language_reading import Reading, ensemble, read, scaled_nll, scores
from pyro_vdn.infer import TokenDraws


def certain(share: float) -> language_reading.Draw:
    """Give token 0 a probability, token 1 the rest."""

    def draw(tokens: Tensor) -> TokenDraws:
        log_probs = torch.tensor([share, 1 - share]).log()
        return TokenDraws(log_probs.expand(1, *tokens.shape, 2), {}, {})

    return draw


def reading(wrong: int, count: int, share: float = 0.9) -> Reading:
    """Read a text, of whose targets some are token 1."""
    text = torch.zeros(count + 1, dtype=torch.long)
    text[1 : wrong + 1] = 1
    return read(certain(share), text)


def test_scores_by_hand() -> None:
    chosen_on, reported_on = reading(4, 10), reading(1, 4)
    found = scores(chosen_on, reported_on)
    first = -(6 * math.log(0.9) + 4 * math.log(0.1)) / 10
    second = -(3 * math.log(0.9) + math.log(0.1)) / 4
    expected = {
        "nll": second,
        "nll_chosen_on": first,
        "nll_whole": (10 * first + 4 * second) / 14,
        # The best temperature of the first half says 0.6, its share of right tokens.
        "temperature": math.log(9) / math.log(1.5),
        "scaled_nll": -(3 * math.log(0.6) + math.log(0.4)) / 4,
        "scaled_nll_chosen_on": -(6 * math.log(0.6) + 4 * math.log(0.4)) / 10,
        "ece": 0.9 - 0.75,
        "scaled_ece": 0.75 - 0.6,
        "accuracy": 0.75,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-3), name
    assert scaled_nll(reported_on, 1.0) == pytest.approx(second)


def test_every_token_but_the_first_is_a_target_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_reading, "BLOCK", 4)
    tokens, inputs = torch.arange(70) % 5, torch.arange(70) % 3
    asked: list[Tensor] = []

    def draw(x: Tensor) -> TokenDraws:
        asked.append(x)
        return TokenDraws(torch.randn(3, *x.shape, 5).log_softmax(-1), {}, {})

    found, again = read(draw, tokens, inputs=inputs), read(draw, tokens, inputs=inputs)
    assert torch.equal(found.targets, tokens[1:])
    assert torch.equal(found.table["token"], inputs[:-1])
    assert torch.equal(found.log_probs, again.log_probs)
    nll = -found.log_probs.gather(-1, found.targets[:, None])[:, 0]
    torch.testing.assert_close(found.table["nll"], nll, check_dtype=False)
    assert max(x.shape[1] for x in asked) == 4


def test_an_ensemble_is_the_average_of_its_members() -> None:
    tokens = torch.tensor([0, 0, 1])
    together = read(ensemble([certain(0.9), certain(0.5)]), tokens)
    torch.testing.assert_close(together.log_probs.exp(), torch.tensor([[0.7, 0.3]] * 2))
    assert (together.table["mutual_information"] > 0.05).all()
    assert (reading(1, 2).table["mutual_information"] == 0).all()
