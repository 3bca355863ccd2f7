from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_vdn.decision import (
    Readout,
    ReadoutScore,
    ReadoutScores,
    candidate_readouts,
    choose_readout,
)
from pyro_vdn.errors import InputError


def bank(*shape: int, spread: float = 2.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(shape, generator=generator, dtype=torch.float64)).log_softmax(-1)


def tokens(*shape: int, vocabulary: int = 6) -> Tensor:
    return torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(1))


def scores_by_hand(log_probs: Tensor, targets: Tensor, readout: Readout) -> tuple[float, ...]:
    predicted = readout(log_probs)
    nll = sorted((-float(predicted[i, y]) for i, y in enumerate(targets)), reverse=True)
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, y in zip(predicted.exp(), targets, strict=True):
        most = float(row.max())
        bins.setdefault(int(most * 15), []).append((most, int(row.argmax()) == int(y)))
    ece = sum(abs(sum(right - most for most, right in held)) for held in bins.values()) / len(nll)
    worst = max(1, -(-len(nll) // 20))
    return sum(nll) / len(nll), ece, sum(nll[:worst]) / worst


def test_the_table_holds_the_scores_of_every_candidate() -> None:
    log_probs, targets = bank(3, 60, 6), tokens(60)
    candidates = candidate_readouts(temperatures=[0.8, 1.0, 2.0])
    table = choose_readout(log_probs, targets, candidates=candidates).table
    assert tuple(row.readout for row in table) == candidates
    for row in table:
        expected = scores_by_hand(log_probs, targets, row.readout)
        assert (row.nll, row.ece, row.cvar) == pytest.approx(expected)


def test_the_published_scores() -> None:
    row = ReadoutScore(Readout(), nll=2.0, ece=0.1, cvar=8.0)
    assert row.calibration == pytest.approx(0.1 + 0.02 + 0.006)
    assert row.tail == pytest.approx(8.0 + 0.1 + 0.025)
    assert row.balanced == pytest.approx(2.0 + 0.2 + 0.3)
    light = row._replace(cvar=1.0)  # a tail below the mean earns nothing
    assert (light.calibration, light.balanced) == pytest.approx((0.12, 2.2))


@pytest.mark.parametrize("by", ["calibration", "tail", "balanced"])
def test_the_choice_is_the_least_of_its_score(by: str) -> None:
    choice = choose_readout(bank(5, 80, 6), tokens(80), by=by)
    assert choice.by == by
    assert getattr(choice.score, by) == min(getattr(row, by) for row in choice.table)
    assert choice.score.readout == choice.readout


def test_different_scores_choose_differently() -> None:
    # Sure and mostly right: sharpening calibrates, flattening saves the worst tokens.
    log_probs = torch.tensor([[2.0, 0.0]]).log_softmax(-1).expand(1, 100, 2)  # 88 %
    targets = (torch.arange(100) >= 96).long()  # 96 % came
    calibrated, safe = (choose_readout(log_probs, targets, by=by) for by in ("calibration", "tail"))
    assert calibrated.readout.temperature == 0.8
    assert safe.readout.temperature == 3.0


def test_the_true_temperature_is_found() -> None:
    truth = bank(1, 20_000, 6, spread=1.5)
    uniform = torch.rand(20_000, 1, generator=torch.Generator().manual_seed(2))
    targets = (truth[0].exp().cumsum(-1) < uniform).sum(-1).clamp(max=5)
    overconfident = (1.5 * truth).log_softmax(-1)
    names = candidate_readouts(["mean_logit"])
    for by in ("calibration", "balanced"):
        choice = choose_readout(overconfident, targets, by=by, candidates=names)
        assert choice.readout.temperature == 1.5


def test_batches_and_shapes_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    log_probs, targets = bank(4, 6, 5, 6), tokens(6, 5)
    once = choose_readout(log_probs, targets).table
    monkeypatch.setattr("pyro_vdn.decision.readout_choice._ELEMENTS_AT_ONCE", 70)
    scores = ReadoutScores()
    for rows in (slice(0, 1), slice(1, 4), slice(4, 6)):
        scores.update(log_probs[:, rows], targets[rows])
    for row, same in zip(scores.table(), once, strict=True):
        assert row.readout == same.readout
        assert row[1:] == pytest.approx(same[1:])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32])
def test_targets_of_any_integer_type(dtype: torch.dtype) -> None:
    same = choose_readout(bank(2, 4, 6), tokens(4).to(dtype))
    assert same.table == choose_readout(bank(2, 4, 6), tokens(4)).table


def test_gradients_are_not_kept() -> None:
    scores = ReadoutScores([Readout()])
    scores.update(bank(2, 4, 6).requires_grad_(), tokens(4))
    assert not any(part.requires_grad for part in scores._nll)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: ReadoutScores([]), r"candidates: expected at least one readout, got none"),
        (lambda: ReadoutScores().table(), r"scores: expected at least one token, got none"),
        (
            lambda: choose_readout(bank(2, 4, 6), tokens(4), by="nll"),  # type: ignore[arg-type]
            r"by: expected one of calibration, tail, balanced, got 'nll'",
        ),
        (
            lambda: choose_readout(bank(2, 4, 6), tokens(5)),
            r"targets: .* got shape \(5,\) for \(2, 4, 6\)",
        ),
        (lambda: choose_readout(bank(6), tokens(6)), r"targets: .* got shape \(6,\) for \(6,\)"),
        (
            lambda: choose_readout(bank(2, 4, 6), tokens(4).double()),
            r"targets: expected integer tokens, got torch.float64",
        ),
        (
            lambda: choose_readout(bank(2, 4, 6), torch.full((4,), 6)),
            r"targets: expected tokens in 0 to 5, got 6",
        ),
        (lambda: choose_readout(torch.zeros(2, 4, 6), tokens(4)), r"got a sum of 6 at \(0, 0\)"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
