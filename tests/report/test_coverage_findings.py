"""Sentences on coverage, case by case."""

from __future__ import annotations

import pytest

from pyro_vdn.report.coverage_findings import Stretch, coverage_check
from pyro_vdn.report.estimates import Estimate

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
    ],
)
def test_coverage(over_all: float, along: tuple[float, ...], sentences: tuple[str, ...]) -> None:
    found = coverage_check(0.9, whole(over_all), parts(*along)).findings
    assert len(found) == len(sentences)
    for said, expected in zip(found, sentences, strict=True):
        assert said == f"90 % intervals {expected} (expected 90 ± 1)"


def test_small_gaps_are_not_worth_a_sentence() -> None:
    assert coverage_check(0.9, whole(0.905, 1e-4)).findings == ()
    assert coverage_check(0.9, whole(0.915, 1e-4)).findings != ()


def test_coverage_that_chance_explains_is_not_told() -> None:
    noisy = parts(0.85, 0.95, 0.88, 0.93, error=0.03)
    assert coverage_check(0.9, whole(0.89, 0.03), noisy).findings == ()
    # 0.83 leaves its own interval, but not all intervals of eight parts together.
    eight = parts(0.83, *[0.9] * 7, error=0.03)
    assert coverage_check(0.9, whole(0.89, 0.03, 96), eight).findings == ()
    assert coverage_check(0.5, whole(0.4)).findings == (
        "50 % intervals too narrow: they hold 40 % (expected 50 ± 1)",
    )
