from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pyro_vdn.diagnostics import compare, compare_scores
from pyro_vdn.errors import InputError

Array = NDArray[np.float64]


def made(rows: int = 120, *, seed: int = 0) -> dict[str, Array]:
    """Scores of three fits that find the same rows hard."""
    generator = np.random.default_rng(seed)
    hard = 2.0 * generator.gamma(2.0, size=rows)
    return {
        name: hard + behind + 0.5 * generator.normal(size=rows)
        for name, behind in (("twin", 0.4), ("neurons", 0.0), ("dropout", 0.15))
    }


def test_values_are_means_and_errors_written_out() -> None:
    scores = made()
    found = compare_scores(scores, level=0.9)
    assert [fit.name for fit in found.fits] == ["neurons", "dropout", "twin"]
    for rank, fit in enumerate(found.fits):
        own, difference = scores[fit.name], scores[fit.name] - scores["neurons"]
        half = 1.6448536269514722 * np.std(difference) / math.sqrt(120)
        assert fit.rank == rank
        assert fit.mean == pytest.approx(np.mean(own))
        assert fit.se == pytest.approx(np.std(own) / math.sqrt(120))
        assert fit.diff == pytest.approx(np.mean(difference), abs=1e-12)
        assert fit.dse == pytest.approx(np.std(difference) / math.sqrt(120), abs=1e-12)
        assert (fit.lower, fit.upper) == pytest.approx((fit.diff - half, fit.diff + half))
    assert found["twin"].is_worse
    assert not found["neurons"].is_worse


def test_minus_log_densities_are_compared_as_log_densities_are() -> None:
    densities = {name: -values for name, values in made(60).items()}
    labels = np.repeat(np.arange(12), 5)
    theirs = compare(densities, blocks=labels)
    ours = compare_scores({name: -values for name, values in densities.items()}, blocks=labels)
    assert ours.blocks == 12
    assert [fit.name for fit in ours.fits] == [fit.name for fit in theirs.fits]
    for one, other in zip(ours.fits, theirs.fits, strict=True):
        expected = np.array([-other.elpd, other.se, *other[4:8]]) / 60
        assert one[2:] == pytest.approx(tuple(expected))


def test_intervals_hold_the_true_difference_as_often_as_they_say() -> None:
    held = 0
    for seed in range(300):
        fit = compare_scores(made(60, seed=seed), level=0.8)["twin"]
        held += fit.rank > 0 and fit.lower <= 0.4 <= fit.upper
    assert 215 <= held <= 260  # 240 expected, 7 a standard deviation


def test_missing_rows_are_left_out_for_all() -> None:
    scores = made(40)
    kept = {name: values[3:] for name, values in scores.items()}
    scores["twin"][:3] = math.nan
    found = compare_scores({name: torch.from_numpy(values) for name, values in scores.items()})
    assert (found.rows, found.missing) == (37, 3)
    assert found.fits == compare_scores(kept).fits
    assert str(found).endswith("37 rows, 3 more left out")


def test_the_table_names_every_fit_in_its_order() -> None:
    found = compare_scores(made(40), blocks=np.arange(40) // 2, level=0.9)
    lines = str(found).splitlines()
    assert "90 % interval" in lines[0]
    for line, fit in zip(lines[1:4], found.fits, strict=True):
        cells = line.split()
        assert cells[:2] == [str(fit.rank), fit.name]
        assert [float(cell) for cell in cells[2:6]] == pytest.approx(
            [fit.mean, fit.se, fit.diff, fit.dse], rel=1e-3
        )
    assert lines[2].endswith(f"[{found.fits[1].lower:.4g}, {found.fits[1].upper:.4g}]")
    assert lines[-1] == "40 rows, in 20 blocks"
    assert [row["name"] for row in found.to_rows()] == [fit.name for fit in found.fits]
    assert found.to_rows()[2]["diff"] == found.fits[2].diff
    with pytest.raises(KeyError):
        found["nobody"]


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        ({}, {}, "scores: expected at least one fit by name, got none"),
        ({"a": np.zeros(3), "b": np.zeros(4)}, {}, r"scores\['b'\]: expected 3 rows"),
        ({"a": np.zeros((3, 1))}, {}, r"scores\['a'\]: expected one score per row"),
        ({"a": np.array([0, np.inf, 1])}, {}, "expected finite scores, or NaN.* got inf at 1"),
        ({"a": np.zeros(3)}, {"level": 95}, "level: expected a share strictly"),
        ({"a": np.zeros(3)}, {"blocks": [0, 0, 0]}, "blocks: expected at least 2 blocks"),
        ({"a": np.array([0.0, np.nan])}, {}, "scores: expected at least 2 rows"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    scores: Mapping[str, Array], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        compare_scores(scores, **options)
