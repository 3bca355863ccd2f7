from __future__ import annotations

import pytest
import torch

from pyro_vdn.diagnostics.tokens.token_groups import (
    by_group,
    label_frequency,
    label_ranges,
    label_stretches,
)
from pyro_vdn.diagnostics.tokens.token_metrics import TokenMetrics, score_columns, sequence_numbers
from pyro_vdn.diagnostics.tokens.token_scores import TokenScores, token_scores
from pyro_vdn.errors import InputError


def make_table() -> tuple[TokenScores, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(3, 6, 4, 5, generator=generator)
    scores = token_scores(logits.log_softmax(-1), torch.randint(5, (6, 4), generator=generator))
    kl = torch.rand(24, generator=generator)
    return scores, {**score_columns(scores), "sequence": sequence_numbers(scores.nll), "kl": kl}


def test_a_group_of_sequences_is_a_corpus_of_its_own() -> None:
    scores, table = make_table()
    found = by_group(table, (table["sequence"] >= 2).long())
    assert list(found) == [0, 1]
    for label, rows in ((0, slice(0, 2)), (1, slice(2, 6))):
        alone = TokenMetrics()
        alone.update(TokenScores(*(value[rows] for value in scores)))
        expected = alone.result().to_dict()
        got = found[label].to_dict()
        assert {name: got[name] for name in expected} == pytest.approx(expected)


def test_groups_across_sequences_have_their_own_means_and_errors() -> None:
    _, table = make_table()
    labels = ["late" if at % 4 >= 2 else "early" for at in range(24)]
    found = by_group(table, labels)
    late = torch.tensor([label == "late" for label in labels])
    assert found["late"].nll == pytest.approx(float(table["nll"][late].mean()))
    assert found["late"].signals["kl"] == pytest.approx(float(table["kl"][late].mean()))
    assert (found["early"].tokens, found["early"].sequences) == (12, 6)
    assert found["early"].errors["kl"] > 0


def test_rare_tokens_make_up_at_most_their_share() -> None:
    counts = torch.tensor([50, 4, 30, 5, 11, 0])
    targets = torch.arange(6)
    of_share = {
        share: "".join(str(name)[0] for name in label_frequency(targets, counts, rare_share=share))
        for share in (0.03, 0.09, 0.2)
    }
    assert of_share == {0.03: "cccccr", 0.09: "crcrcr", 0.2: "crcrrr"}


@pytest.mark.parametrize(("share", "called"), [(0.02, "common"), (0.03, "rare")])
def test_tokens_of_equal_count_are_called_the_same(share: float, called: str) -> None:
    labels = label_frequency(torch.arange(4), torch.tensor([1, 97, 1, 1]), rare_share=share)
    assert labels.tolist() == [called, "common", called, called]


def test_ranges_and_stretches() -> None:
    assert label_ranges(torch.tensor([0, 7, 8, 31, 32]), (8, 32)).tolist() == [0, 0, 1, 1, 2]
    sequence = torch.arange(7).repeat_interleave(2)
    labels = label_stretches(sequence, 3)
    assert labels.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]


COUNTS = torch.tensor([3, 1])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: by_group(make_table()[1], ["a"]), r"labels: expected shape \(24,\)"),
        (lambda: by_group({"nll": torch.ones(1)}, ["a"]), r"table: .* none named 'entropy'"),
        (lambda: label_frequency(COUNTS, COUNTS), r"counts: expected counts .* at least 4 tokens"),
        (lambda: label_frequency(COUNTS * 0, COUNTS * 0), r"counts: .* some above 0"),
        (lambda: label_frequency(COUNTS, COUNTS, rare_share=1.0), r"rare_share: expected a share"),
        (lambda: label_ranges([1.0], (2, 2)), r"edges: expected rising edges, got \(2, 2\)"),
        (lambda: label_stretches(COUNTS, 9), r"count: expected at most 4, .* got 9"),
        (lambda: label_stretches(COUNTS, 0), r"count: expected a positive integer"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
