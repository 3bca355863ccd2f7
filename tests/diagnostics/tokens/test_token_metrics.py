from __future__ import annotations

import math

import pytest
import torch

from pyro_vdn.diagnostics.tokens.token_metrics import TokenMetrics, joined
from pyro_vdn.diagnostics.tokens.token_scores import TokenScores, token_scores
from pyro_vdn.diagnostics.tokens.token_summary import block_error, cvar, summarise_tokens
from pyro_vdn.errors import InputError


def some_scores(rows: int, time: int, *, seed: int = 0) -> TokenScores:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(3, rows, time, 5, generator=generator)
    targets = torch.randint(5, (rows, time), generator=generator)
    return token_scores(logits.log_softmax(-1), targets)


def rows_of(scores: TokenScores, chosen: slice) -> TokenScores:
    return TokenScores(*(value[chosen] for value in scores))


def test_metrics_equal_loops() -> None:
    scores = some_scores(9, 7)
    metrics = TokenMetrics()
    metrics.update(scores)
    found = metrics.result()
    flat = {name: value.reshape(-1).tolist() for name, value in scores._asdict().items()}
    count = len(flat["nll"])
    for name in ("nll", "entropy", "brier", "mutual_information", "expected_entropy"):
        assert getattr(found, name) == pytest.approx(sum(flat[name]) / count, rel=1e-6)
    for name in ("conditional_variance", "flip_rate"):
        assert getattr(found, name) == pytest.approx(sum(flat[name]) / count, rel=1e-6)
    worst = sorted(flat["nll"])[-4:]  # 5 % of 63 tokens are 3.15
    assert found.cvar_nll == pytest.approx(sum(worst) / 4, rel=1e-6)
    assert found.accuracy == sum(flat["correct"]) / count
    assert found.perplexity == pytest.approx(math.exp(found.nll))
    assert found.bits_per_token == pytest.approx(found.nll / math.log(2))
    assert (found.tokens, found.sequences) == (63, 9)


@pytest.mark.parametrize("sizes", [(9,), (1, 8), (4, 2, 3), (1,) * 9])
def test_batches_do_not_matter(sizes: tuple[int, ...]) -> None:
    scores = some_scores(9, 7)
    at_once, in_parts = TokenMetrics(), TokenMetrics()
    at_once.update(scores)
    start = 0
    for size in sizes:
        in_parts.update(rows_of(scores, slice(start, start + size)))
        start += size
    assert in_parts.result() == at_once.result()


def test_batches_of_another_length_are_sequences_too() -> None:
    metrics = TokenMetrics()
    metrics.update(some_scores(2, 7))
    metrics.update(some_scores(3, 4, seed=1))
    assert (metrics.result().tokens, metrics.result().sequences) == (26, 5)


def test_errors_are_those_of_sums_over_sequences() -> None:
    scores = some_scores(9, 7)
    metrics = TokenMetrics()
    metrics.update(scores)
    sums = scores.nll.double().sum(1)  # of equal lengths: the plain error of a mean of sums
    expected = float(sums.std() / math.sqrt(9) / 7)
    assert metrics.result().nll_error == pytest.approx(expected, rel=1e-6)


def test_error_is_that_of_repeated_corpora() -> None:
    """Tokens that share much of their sequence's level, in sequences of unequal length."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([2, 5, 9] * 20)
    members = torch.arange(60).repeat_interleave(lengths)
    means, errors = [], []
    for _ in range(400):
        level = torch.randn(60, generator=generator)[members]
        values = 1.0 + level + 0.5 * torch.randn(len(members), generator=generator)
        means.append(float(values.mean()))
        errors.append(block_error(values, members))
    spread = float(torch.tensor(means).std())
    assert sum(errors) / 400 == pytest.approx(spread, rel=0.08)
    alone = block_error(values, torch.arange(len(members)))
    assert alone < 0.6 * spread  # as if tokens were independent: much too small


def test_other_columns_are_signals_and_integers_are_not() -> None:
    table = dict.fromkeys(TokenScores._fields, torch.tensor([0.25, 0.75]))
    table |= {"sequence": torch.arange(2), "kl": torch.tensor([1.0, 4.0])}
    found = summarise_tokens(table | {"target": torch.tensor([3, 4])})
    assert found.signals == {"kl": 2.5}
    assert found.errors["kl"] == pytest.approx(1.5)


def test_numbers_for_files() -> None:
    metrics = TokenMetrics()
    metrics.update(some_scores(1, 7))
    numbers = metrics.result().to_dict()
    assert numbers["nll"] == metrics.result().nll
    assert numbers["nll_error"] is None  # one sequence shows no error
    assert "signals" not in numbers
    assert "errors" not in numbers


@pytest.mark.parametrize(
    ("share", "count"), [(0.05, 5), (0.051, 6), (0.07, 7), (0.001, 1), (1.0, 100)]
)
def test_cvar_rounds_up(share: float, count: int) -> None:
    losses = torch.arange(100.0)  # 0.07 times 100 is 7.000000000000001
    assert cvar(losses, share=share) == pytest.approx(float(losses[-count:].mean()))


NO_SCORES = TokenScores(*[torch.zeros(0, 3)] * len(TokenScores._fields))
TABLE = dict.fromkeys((*TokenScores._fields, "sequence"), torch.zeros(0))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: TokenMetrics().result(), r"tokens: expected at least one batch"),
        (lambda: joined([]), r"tokens: expected at least one batch"),
        (lambda: TokenMetrics().update(NO_SCORES), r"scores: .* got shape \(0, 3\)"),
        (lambda: summarise_tokens({"nll": torch.ones(2)}), r"table: .* none named 'entropy'"),
        (lambda: summarise_tokens(TABLE), r"table: expected at least one token"),
        (lambda: cvar(torch.ones(2), share=0.0), r"share: expected a share in \(0, 1\]"),
        (lambda: cvar(torch.ones(0)), r"losses: expected at least one"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
