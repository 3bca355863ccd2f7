from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from pyro_vdn.diagnostics.tokens.token_scores import (
    TokenScores,
    average_log_probs,
    tempered,
    token_scores,
)
from pyro_vdn.errors import InputError

DRAWS, TOKENS, VOCABULARY = 3, 7, 5


def random_case(
    draws: int = DRAWS, *, dtype: torch.dtype = torch.float64, seed: int = 11
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(draws, TOKENS, VOCABULARY, generator=generator, dtype=dtype)
    return logits.log_softmax(-1), torch.randint(VOCABULARY, (TOKENS,), generator=generator)


def entropy(p: list[float]) -> float:
    return -sum(v * math.log(v) for v in p if v > 0)


def by_hand(of_draws: list[list[float]], target: int, temperature: float) -> dict[str, float]:
    """Score one token from the probabilities of each draw, with loops alone."""
    draws, vocabulary = len(of_draws), len(of_draws[0])
    mean = [sum(p[c] for p in of_draws) / draws for c in range(vocabulary)]
    powers = [p ** (1 / temperature) for p in mean]
    q = [power / sum(powers) for power in powers]
    best = [p.index(max(p)) for p in of_draws]
    pairs = list(itertools.combinations(best, 2))
    return {
        "nll": -math.log(q[target]),
        "entropy": entropy(q),
        "max_probability": max(q),
        "correct": float(q.index(max(q)) == target),
        "brier": sum((q[c] - (c == target)) ** 2 for c in range(vocabulary)),
        "mutual_information": entropy(mean) - sum(entropy(p) for p in of_draws) / draws,
        "expected_entropy": sum(entropy(p) for p in of_draws) / draws,
        "conditional_variance": sum(
            sum((p[c] - mean[c]) ** 2 for p in of_draws) / draws for c in range(vocabulary)
        )
        / vocabulary,
        "flip_rate": sum(a != b for a, b in pairs) / len(pairs) if pairs else 0.0,
    }


@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.5])
@pytest.mark.parametrize("draws", [1, 2, DRAWS, 6])
def test_scores_equal_loops(draws: int, temperature: float) -> None:
    log_probs, targets = random_case(draws)
    scores = token_scores(log_probs, targets, temperature=temperature)
    for token in range(TOKENS):
        expected = by_hand(log_probs[:, token].exp().tolist(), int(targets[token]), temperature)
        got = {name: float(value[token]) for name, value in scores._asdict().items()}
        assert got == pytest.approx(expected, abs=1e-12)


def test_the_cases_show_what_the_scores_tell_apart() -> None:
    """Tokens right and wrong, draws that agree and that do not: else equality would mean little."""
    scores = token_scores(*random_case())
    assert 0 < scores.correct.sum() < TOKENS
    assert scores.flip_rate.unique().numel() >= 3
    assert scores.mutual_information.min() > 0.01


def test_leading_dimensions_and_single_precision_are_kept() -> None:
    log_probs, targets = random_case(dtype=torch.float32)
    flat = token_scores(log_probs, targets)
    grown = token_scores(log_probs.reshape(DRAWS, 1, TOKENS, VOCABULARY), targets.reshape(1, -1))
    for name in TokenScores._fields:
        assert getattr(grown, name).shape == (1, TOKENS)
        torch.testing.assert_close(getattr(grown, name)[0], getattr(flat, name))
    assert flat.nll.dtype == flat.flip_rate.dtype == torch.float32
    assert flat.correct.dtype == torch.bool
    assert token_scores(log_probs.half(), targets).nll.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32])
def test_targets_of_any_integer_type(dtype: torch.dtype) -> None:
    log_probs, targets = random_case()
    for one, other in zip(
        token_scores(log_probs, targets.to(dtype)), token_scores(log_probs, targets), strict=True
    ):
        assert torch.equal(one, other)


def test_one_draw_has_no_spread() -> None:
    scores = token_scores(*random_case(1, dtype=torch.float32))
    for value in (scores.mutual_information, scores.conditional_variance, scores.flip_rate):
        assert value.tolist() == [0.0] * TOKENS


def test_variance_is_what_averaging_saves_of_the_brier_score() -> None:
    log_probs, targets = random_case()
    of_draws = torch.stack([token_scores(one.unsqueeze(0), targets).brier for one in log_probs])
    scores = token_scores(log_probs, targets)
    saved = of_draws.mean(0) - scores.brier
    torch.testing.assert_close(VOCABULARY * scores.conditional_variance, saved)


def test_nothing_underflows() -> None:
    small = -300.0
    log_probs = torch.tensor([[[small, 0.0]], [[small + math.log(3), 0.0]]])
    scores = token_scores(log_probs, torch.tensor([0]))
    assert float(scores.nll) == pytest.approx(-small - math.log(2), rel=1e-6)
    assert float(scores.brier) == pytest.approx(2.0)


def test_impossible_tokens_are_no_nan() -> None:
    log_probs = torch.tensor([[[0.0, -torch.inf]], [[-torch.inf, 0.0]]])
    scores = token_scores(log_probs, torch.tensor([1]))
    assert float(scores.mutual_information) == pytest.approx(math.log(2))
    assert float(scores.flip_rate) == 1.0
    certain = token_scores(log_probs[:1], torch.tensor([1]), temperature=2.0)
    assert float(certain.nll) == math.inf
    assert [float(v) for v in (certain.entropy, certain.brier)] == [0.0, 2.0]


def test_average_is_of_probabilities() -> None:
    log_probs, _ = random_case()
    torch.testing.assert_close(average_log_probs(log_probs), log_probs.exp().mean(0).log())


ONE = torch.zeros(1, dtype=torch.long)
EVEN = torch.full((1, 1, 2), 0.5).log()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: token_scores(EVEN[0, 0], ONE), r"log_probs: expected .*draws, \.\.\., vocab"),
        (lambda: token_scores(EVEN.long(), ONE), r"log_probs: .* got torch.int64"),
        (lambda: token_scores(EVEN[:0], ONE), r"log_probs: .* shape \(0, 1, 2\)"),
        (lambda: token_scores(EVEN + 1, ONE), r"log_probs: .* is 0, got 1.* at \(0,\)"),
        (lambda: token_scores(EVEN * torch.nan, ONE), r"log_probs: .* got nan at \(0,\)"),
        (lambda: token_scores(EVEN, ONE + 2), r"targets: expected tokens in 0 to 1, got 2.0 at"),
        (lambda: token_scores(EVEN, ONE - 1), r"targets: expected tokens in 0 to 1, got -1.0 at"),
        (lambda: token_scores(EVEN, ONE.float()), r"targets: expected integer tokens"),
        (lambda: token_scores(EVEN, ONE.expand(2)), r"targets: expected shape \(1,\)"),
        (lambda: token_scores(EVEN, ONE, temperature=0.0), r"temperature: expected a positive"),
        (lambda: tempered(EVEN, math.inf), r"temperature: .* got inf"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
