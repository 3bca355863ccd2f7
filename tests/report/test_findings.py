"""Sentences from numbers, case by case."""

from __future__ import annotations

import pytest
import torch
from pyro_vdn.models import Regression

from pyro_vdn.diagnostics import CollapseMode, UnitStatistics, collapse_report
from pyro_vdn.poutine import record
from pyro_vdn.report import findings
from pyro_vdn.report.estimates import Estimate
from pyro_vdn.report.findings import Replicated

MANY = 1000


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
        expected = f"posterior predictive check: sd p = {p_value:.3f}, {told} than in nearly all"
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
    assert sentence.startswith("tokens surprise more than predictions say, by 0.30 ± 0.02 nats")
    fine = dict.fromkeys(("early", "late"), Estimate(0.0, 0.01, MANY))
    assert findings.surprise_check(Estimate(0.0, 0.01, MANY), fine).findings == ()
    mixed = {"early": Estimate(-0.3, 0.01, MANY), "late": Estimate(0.0, 0.01, MANY)}
    assert findings.surprise_check(Estimate(-0.1, 0.01, MANY), mixed).findings == (
        "early surprise less than predictions say, by 0.30 ± 0.02 nats: under-confident",
    )
