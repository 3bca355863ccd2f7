"""Sentences from numbers, case by case."""

from __future__ import annotations

import pytest
import torch
from pyro_vdn.models import Regression

from pyro_vdn.diagnostics import CollapseMode, UnitStatistics, collapse_report
from pyro_vdn.poutine import record
from pyro_vdn.report import findings
from pyro_vdn.report.estimates import Estimate
from pyro_vdn.report.findings import Replicated, Stretch

SURE, MANY = 0.005, 1000


def parts(*shares: float, error: float = SURE) -> list[Stretch]:
    return [
        Stretch(12 * at + 1, 12 * at + 12, Estimate(share, error, MANY))
        for at, share in enumerate(shares)
    ]


def whole(share: float, error: float = SURE, last: int = 48) -> Stretch:
    return Stretch(1, last, Estimate(share, error, MANY))


@pytest.mark.parametrize(
    ("over_all", "along", "sentences"),
    [
        (0.90, (0.90, 0.90, 0.90, 0.90), ()),
        (0.85, (0.89, 0.90, 0.81, 0.81), ("too narrow at steps > 24: they hold 81 %",)),
        (0.85, (0.80, 0.80, 0.90, 0.90), ("too narrow at steps \u2264 24: they hold 80 %",)),
        (0.85, (0.90, 0.80, 0.90, 0.90), ("too narrow at steps 13 to 24: they hold 80 %",)),
        (
            0.90,
            (0.80, 0.90, 0.90, 0.98),
            (
                "too narrow at steps \u2264 12: they hold 80 %",
                "too wide at steps > 36: they hold 98 %",
            ),
        ),
        (0.95, (0.95, 0.95, 0.95, 0.95), ("too wide: they hold 95 %",)),
        (0.905, (0.905, 0.905, 0.905, 0.905), ()),  # sure, but not worth a sentence
    ],
)
def test_coverage(over_all: float, along: tuple[float, ...], sentences: tuple[str, ...]) -> None:
    found = findings.coverage_check(0.9, whole(over_all), parts(*along)).findings
    assert len(found) == len(sentences)
    for said, expected in zip(found, sentences, strict=True):
        assert said == f"90 % intervals {expected} (expected 90 ± 1)"


def test_coverage_that_chance_explains_is_not_told() -> None:
    noisy = parts(0.85, 0.95, 0.88, 0.93, error=0.03)
    assert findings.coverage_check(0.9, whole(0.89, 0.03), noisy).findings == ()
    # 0.83 leaves its own interval, but not all intervals of eight parts together.
    eight = parts(0.83, *[0.9] * 7, error=0.03)
    assert findings.coverage_check(0.9, whole(0.89, 0.03, 96), eight).findings == ()
    assert findings.coverage_check(0.5, whole(0.4)).findings == (
        "50 % intervals too narrow: they hold 40 % (expected 50 ± 1)",
    )


def test_differences() -> None:
    gaps = {
        "twin": Estimate(-0.03, 0.005, MANY),
        "ensemble": Estimate(-0.01, 0.01, MANY),
        "climatology": Estimate(0.5, 0.001, MANY),
    }
    assert findings.difference_check("NLL", "nats", gaps).findings == (
        "twin: better in NLL than the neurons by 0.030 ± 0.010 nats",
    )
    assert findings.difference_check("CRPS", "", {}).findings == ()


@pytest.mark.parametrize(
    ("p_value", "distance", "together", "told"),
    [
        (0.5, 0.0, 1, ""),
        (0.001, 4.0, 1, "larger in the data"),
        (0.999, -4.0, 1, "smaller in the data"),
        (0.01, 2.4, 1, ""),  # beyond 5 %, but not of four statistics
        (0.001, 4.0, 7, ""),  # seven channels that move together are as far by chance
        (0.001, 40.0, 7, "larger in the data"),
    ],
)
def test_predictive_checks(p_value: float, distance: float, together: int, told: str) -> None:
    found = [Replicated("sd", p_value, distance), *[Replicated("mean", 0.5, 0.0)] * 3]
    sentences = findings.predictive_finding(found, together=together).findings
    assert bool(sentences) == bool(told)
    if told:
        expected = f"posterior predictive check: sd p = {p_value:.2f}, {told} than in nearly all"
        assert sentences[0].startswith(expected)


def test_collapsed_units() -> None:
    model = Regression(3, num_units=5)
    with torch.no_grad(), record() as seen:
        model.neurons.posterior.loc.weight[:2].zero_()
        model(torch.randn(40, 3))
    report = collapse_report({path: UnitStatistics.of(layer) for path, layer in seen.items()})
    fallen = len(report.calls) - report.counts()[CollapseMode.LIVING]
    assert fallen >= 2
    (sentence,) = findings.collapse_check(report).findings
    assert sentence.startswith(f"{fallen} of 5 units of layer neurons collapsed (")
    assert "posterior collapse" in sentence


def test_the_other_checks() -> None:
    assert findings.pit_check(inside=True).findings == ()
    assert "PIT leaves its 95 % band" in findings.pit_check(inside=False).findings[0]
    assert findings.rows_check(7, "rows").findings == (
        "few independent rows (n = 7): bands and intervals are wide",
    )
    assert findings.rows_check(30, "rows").findings == ()
    assert findings.contribution_check(0.2, "variance").findings == ()
    assert "hardly change predictions" in findings.contribution_check(2e-4, "variance").findings[0]
    steps = {"neurons": (900, 900), "twin": (900, 600), "dropout": (900, None)}
    assert "(neurons)" in findings.training_check(steps).findings[0]
    assert findings.training_check({"twin": (900, 600)}).findings == ()


@pytest.mark.parametrize(
    ("gap", "told"), [(-0.05, "over-confident"), (0.05, "under-confident"), (0.005, "")]
)
def test_confidence(gap: float, told: str) -> None:
    found = findings.confidence_check(Estimate(gap, 0.001, MANY)).findings
    assert bool(found) == bool(told)
    assert not told or f"{told}: the most probable token comes 5.0 ± 0.2 points" in found[0]


def test_surprise_is_told_once_where_all_parts_share_it() -> None:
    same = dict.fromkeys(("early", "late"), Estimate(0.3, 0.01, MANY))
    (sentence,) = findings.surprise_check(Estimate(0.3, 0.01, MANY), same).findings
    assert sentence.startswith("tokens surprise more than predictions say, by 0.300")
    fine = dict.fromkeys(("early", "late"), Estimate(0.0, 0.01, MANY))
    assert findings.surprise_check(Estimate(0.0, 0.01, MANY), fine).findings == ()
    mixed = {"early": Estimate(-0.3, 0.01, MANY), "late": Estimate(0.0, 0.01, MANY)}
    assert findings.surprise_check(Estimate(-0.1, 0.01, MANY), mixed).findings == (
        "early surprise less than predictions say, by 0.300 ± 0.020 nats: under-confident",
    )
