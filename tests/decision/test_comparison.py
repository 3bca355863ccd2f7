from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pyro_vdn.decision import aurc, compare_aurc, e_aurc
from pyro_vdn.errors import InputError


def cases(count: int, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    generator = np.random.default_rng(seed)
    risk = generator.gamma(1.0, 2.0, size=count)
    good = risk + generator.normal(size=count)
    return {"good": good, "coarse": np.floor(good), "blind": generator.normal(size=count)}, risk


def test_a_resample_is_the_resampled_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_vdn.decision._bootstrap._WEIGHTS_AT_ONCE", 200)  # several parts
    scores, risk = cases(50)
    blocks = np.repeat([7, 1, 4, 9, 2, 3], [3, 14, 8, 13, 7, 5])
    found = compare_aurc(scores, risk, reference="coarse", blocks=blocks, resamples=30, level=0.8)
    names, generator = np.unique(blocks), np.random.default_rng(0)
    areas: dict[str, list[float]] = {name: [] for name in scores}
    excess: dict[str, list[float]] = {name: [] for name in scores}
    for _ in range(30):
        drawn = generator.integers(6, size=6)
        index = np.concatenate([np.flatnonzero(blocks == names[i]) for i in drawn])
        for name, score in scores.items():
            areas[name].append(aurc(score[index], risk[index]))
            excess[name].append(e_aurc(score[index], risk[index]))
    for name, score in scores.items():
        difference = np.subtract(areas[name], areas["coarse"])
        for estimate, value, samples in (
            (found[name].aurc, aurc(score, risk), areas[name]),
            (found[name].e_aurc, e_aurc(score, risk), excess[name]),
            (found[name].difference, aurc(score, risk) - found["coarse"].aurc.value, difference),
        ):
            expected = (value, np.quantile(samples, 0.1), np.quantile(samples, 0.9))
            assert estimate == pytest.approx(expected)


def test_what_is_compared_with_what() -> None:
    scores, risk = cases(300)
    found = compare_aurc({k: torch.tensor(v) for k, v in scores.items()}, torch.tensor(risk))
    assert found.reference == "good"
    assert list(found.scores) == ["good", "coarse", "blind"]
    assert found.mean_risk == pytest.approx(risk.mean())
    assert found["good"].difference == (0.0, 0.0, 0.0)
    assert not found["good"].difference.excludes_zero
    assert found["blind"].difference.excludes_zero
    assert found["blind"].difference.lower > 0
    turned = compare_aurc(scores, risk, reference="blind")
    assert turned["good"].difference.upper < 0
    assert turned["good"].difference.excludes_zero


def test_methods_with_risks_of_their_own_are_paired_by_case() -> None:
    scores, risk = cases(80)
    risks = {"good": risk, "coarse": 0.7 * risk[::-1], "blind": risk + 1.0}
    found = compare_aurc(scores, risks, reference="blind", resamples=40, level=0.8, seed=5)
    generator = np.random.default_rng(5)
    drawn = [generator.integers(80, size=80) for _ in range(40)]
    for name, score in scores.items():
        own, other = risks[name], risks["blind"]
        less = [aurc(score[i], own[i]) - aurc(scores["blind"][i], other[i]) for i in drawn]
        excess = [e_aurc(score[i], own[i]) for i in drawn]
        value = aurc(score, own)
        assert found[name].aurc.value == pytest.approx(value)
        assert found[name].difference == pytest.approx(
            (value - aurc(scores["blind"], other), *np.quantile(less, [0.1, 0.9]))
        )
        assert found[name].e_aurc == pytest.approx(
            (e_aurc(score, own), *np.quantile(excess, [0.1, 0.9]))
        )
        assert found[name].mean_risk == pytest.approx(own.mean())
    assert found.mean_risk == pytest.approx(risk.mean() + 1.0)


def test_one_risk_for_all_is_the_same_risk_for_each() -> None:
    scores, risk = cases(60)
    one, each = (
        compare_aurc(scores, given, resamples=20)
        for given in (risk, {name: torch.tensor(risk) for name in reversed(scores)})
    )
    assert one == each
    assert [one[name].mean_risk for name in scores] == pytest.approx([risk.mean()] * 3)


def test_the_seed_alone_decides() -> None:
    scores, risk = cases(60)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (compare_aurc(scores, risk, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first != other
    assert first["good"].aurc.value == other["good"].aurc.value
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("blocked", "studies"), [(True, 120), (False, 30)])
def test_intervals_cover_as_often_as_they_say_if_blocks_are_whole(
    blocked: bool, studies: int
) -> None:
    sequences, length = 50, 12

    def study(seed: int, sequences: int = sequences) -> tuple[dict[str, np.ndarray], np.ndarray]:
        generator = np.random.default_rng(seed)
        shared = generator.gamma(2.0, size=(sequences, 1))  # tokens of one sequence go together
        risk = shared * generator.gamma(2.0, 0.5, size=(sequences, length))
        near, far = (shared * np.exp(s * generator.normal(size=risk.shape)) for s in (0.3, 1.0))
        return {"near": near.ravel(), "far": far.ravel()}, risk.ravel()

    many, risk = study(99_999, 10_000)
    truth = aurc(many["near"], risk), aurc(many["far"], risk) - aurc(many["near"], risk)
    blocks = np.repeat(np.arange(sequences), length) if blocked else None
    inside = np.zeros(2)
    for seed in range(studies):
        scores, risk = study(seed)
        found = compare_aurc(scores, risk, blocks=blocks, resamples=80, level=0.9)
        pair = found["near"].aurc, found["far"].difference
        inside += [e.lower <= true <= e.upper for e, true in zip(pair, truth, strict=True)]
    share = inside / studies
    if blocked:  # 90 %, give or take three standard errors and the small sample
        assert (share > 0.80).all()
        assert (share < 0.97).all()
    else:
        assert share[0] < 0.75


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: compare_aurc({}, [1.0]), r"scores: expected at least one score, got none"),
        (
            lambda: compare_aurc({"a": [1.0, 2.0]}, [1.0, 2.0], reference="b"),
            r"reference: expected one of a, got 'b'",
        ),
        (lambda: compare_aurc({"a": [1.0]}, [1.0, 2.0]), r"risk: expected 1 values, one per case"),
        (
            lambda: compare_aurc({"a": [1.0, 2.0]}, [1.0, 2.0], resamples=1),
            r"resamples: expected at least 2, got 1",
        ),
        (
            lambda: compare_aurc({"a": [1.0, 2.0]}, {"b": [1.0, 2.0]}),
            r"risk: expected the names of the scores, a, got b",
        ),
        (
            lambda: compare_aurc({"a": [1.0], "b": [1.0]}, {"a": [1.0], "b": [1.0, 2.0]}),
            r"risk\['b'\]: expected 1 values, one per case as in uncertainty, got 2",
        ),
        (
            lambda: compare_aurc(
                {"a": [1.0], "b": [1.0, 2.0]}, {"a": [1.0], "b": [1.0, 2.0]}, reference="b"
            ),
            r"risk\['b'\]: expected 1 values, as for the first score, got 2",
        ),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        call()
