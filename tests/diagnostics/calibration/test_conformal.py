from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_vdn.diagnostics import SplitConformal, interval_coverage
from pyro_vdn.errors import InputError

NAN = float("nan")
SETS = 2000


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("half", "scaled"),
    [(0.0, False), (0.5, False), (4.0, False), (0.0, True)],
    ids=["plain", "quantiles too narrow", "quantiles too wide", "normalised"],
)
def test_ninety_percent_cover_ninety_percent_over_two_thousand_sets(
    half: float, scaled: bool
) -> None:
    # Sets lie side by side as entries of a row: each has a margin of its own, from rows of its own.
    spread = normal(249, SETS).exp()  # of each row, known to the model
    target, bound = spread * normal(249, SETS, seed=1), half * spread
    conformal = SplitConformal.fit(
        *(v[:199] for v in (-bound, bound, target)), 0.9, scale=spread[:199] if scaled else None
    )
    assert float(conformal.guarantee) == 180 / 200
    new = conformal.apply(-bound[199:], bound[199:], scale=spread[199:] if scaled else None)
    assert 0.895 <= float(interval_coverage(*new, target[199:])) <= 0.905


@pytest.mark.parametrize(("count", "level"), [(9, 0.9), (10, 0.9), (25, 0.5), (99, 0.95)])
def test_the_guarantee_holds_from_few_rows_on(count: int, level: float) -> None:
    calibration, test = normal(count, 4000).exp(), normal(9, 4000, seed=1).exp()
    zero = torch.zeros_like(calibration)
    conformal = SplitConformal.fit(zero, zero, calibration, level)
    flat = torch.zeros_like(test)
    share = float(interval_coverage(*conformal.apply(flat, flat), test))
    assert share == pytest.approx(float(conformal.guarantee), abs=0.008)
    assert float(conformal.guarantee) >= level


def test_the_margin_is_the_score_of_that_rank() -> None:
    lower, width, target = (
        normal(40, 3, 2),
        normal(40, 3, 2, seed=1).abs(),
        normal(40, 3, 2, seed=2),
    )
    scale = normal(40, 3, 2, seed=3).exp()
    score = torch.maximum(lower - target, target - lower - width) / scale
    conformal = SplitConformal.fit(lower, lower + width, target, 0.8, scale=scale)
    expected = np.sort(score.numpy(), axis=0)[math.ceil(41 * 0.8) - 1]
    np.testing.assert_allclose(conformal.margin[0], expected)
    low, high = conformal.apply(lower, lower + width, scale=scale)
    assert low.shape == (40, 3, 2)
    inside = (score <= torch.as_tensor(expected)).double()
    torch.testing.assert_close(interval_coverage(low, high, target, dim=0), inside.mean(dim=0))


def test_normalised_residuals_follow_the_scale_of_each_row() -> None:
    scale = normal(2000, 1, seed=1).exp()
    target, zero = scale * normal(2000, 1, seed=2), torch.zeros(2000, 1).double()
    conformal = SplitConformal.fit(zero, zero, target, 0.9, scale=scale)
    low, high = conformal.apply(zero, zero, scale=scale)
    torch.testing.assert_close(high - low, 2 * float(conformal.margin) * scale)
    assert float(conformal.margin) == pytest.approx(1.645, abs=0.12)
    rows = scale[:, 0] > 2  # wide ones are covered as often, which plain residuals fail at
    assert float(interval_coverage(low[rows], high[rows], target[rows])) > 0.85
    plain = SplitConformal.fit(zero, zero, target, 0.9).apply(zero, zero)
    assert float(interval_coverage(*(b[rows] for b in plain), target[rows])) < 0.8


def test_groups_are_covered_each_and_together_they_are_not() -> None:
    spread = torch.tensor([1.0, 5.0]).double().repeat(300)
    names = ["calm", "storm"] * 300
    target, zero = spread[:, None] * normal(600, 300), torch.zeros(600, 300).double()
    new = spread[:40, None] * normal(40, 300, seed=1)
    by_group = SplitConformal.fit(zero, zero, target, 0.9, groups=names)
    assert by_group.groups == ("calm", "storm")
    assert by_group.count.tolist() == [300, 300]
    order = [1, 0, *range(2, 40)]  # labels need not come in the order of the fit
    flat = zero[:40]
    low, high = by_group.apply(flat, flat, groups=[names[i] for i in order])
    shares = interval_coverage(low, high, new[order], dim=1)
    storm = torch.tensor([names[i] == "storm" for i in order])
    for rows in (storm, ~storm):
        assert float(shares[rows].mean()) == pytest.approx(0.9, abs=0.015)
    one = SplitConformal.fit(zero, zero, target, 0.9)
    together = interval_coverage(*one.apply(flat, flat), new[order], dim=1)
    assert float(together[storm].mean()) < 0.85


def test_joint_margin_covers_whole_rows() -> None:
    # (rows, time, outputs): a walk whose steps move together, all of it inside nine times in ten.
    target = normal(4000, 12, 2).cumsum(dim=1)
    zero = torch.zeros_like(target)
    conformal = SplitConformal.fit(*(v[:999] for v in (zero, zero, target)), 0.9, joint=True)
    assert conformal.margin.shape == (1, 1, 1)
    low, high = conformal.apply(zero[999:], zero[999:])
    whole = ((low <= target[999:]) & (target[999:] <= high)).flatten(1).all(dim=1)
    assert float(whole.double().mean()) == pytest.approx(0.9, abs=0.03)


def test_bounds_that_would_cross_meet_halfway() -> None:
    target = torch.zeros(19, 1)
    conformal = SplitConformal.fit(target - 4, target + 6, target, 0.9)
    assert float(conformal.margin) == -4.0
    low, high = conformal.apply(torch.tensor([[0.0]]), torch.tensor([[2.0]]))
    assert float(low) == float(high) == 1.0


ROWS, LOW = torch.zeros(19, 1), torch.zeros(2, 1)
FIT = SplitConformal.fit(ROWS, ROWS, ROWS, 0.9)
JOINT = SplitConformal.fit(*[ROWS.expand(19, 3)] * 3, 0.9, joint=True)
SCALED = SplitConformal.fit(ROWS, ROWS, ROWS, 0.9, scale=ROWS + 1)
GROUPED = SplitConformal.fit(ROWS, ROWS, ROWS, 0.8, groups=["a"] * 10 + ["b"] * 9)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: SplitConformal.fit(LOW, LOW, LOW, 0.9), r"at least 9 calibration rows .* got 2\."),
        (lambda: SplitConformal.fit(ROWS, ROWS, ROWS, 0.99), r"at least 99 calibration rows"),
        (
            lambda: SplitConformal.fit(ROWS, ROWS, ROWS, 0.9, groups=["a"] * 18 + ["b"]),
            r"at least 9 calibration rows for a level of 0.9, got 1 in group 'b'",
        ),
        (
            lambda: SplitConformal.fit(ROWS, ROWS, ROWS, 0.9, groups=["a"]),
            r"groups: .*\(19,\), got",
        ),
        (lambda: SplitConformal.fit(ROWS, ROWS, ROWS, 1.0), r"level: .* got 1.0"),
        (lambda: SplitConformal.fit(ROWS + 1, ROWS, ROWS, 0.9), r"upper: .* nowhere below"),
        (lambda: SplitConformal.fit(ROWS, ROWS, LOW, 0.5), r"lower: expected the target's shape"),
        (lambda: SplitConformal.fit(ROWS, ROWS, ROWS + NAN, 0.9), r"target: expected finite"),
        (lambda: SplitConformal.fit(*[ROWS.sum()] * 3, 0.5), r"target: expected shape \(rows, "),
        (
            lambda: SplitConformal.fit(ROWS, ROWS, ROWS, 0.9, scale=ROWS),
            r"scale: expected positive values, got 0.0 at \(0, 0\)",
        ),
        (
            lambda: SplitConformal.fit(ROWS, ROWS, ROWS, 0.9, scale=LOW + 1),
            r"scale: expected the shape of the bounds, \(19, 1\)",
        ),
        (lambda: FIT.apply(LOW, LOW, scale=LOW + 1), r"scale: expected none, got one"),
        (lambda: SCALED.apply(LOW, LOW), r"scale: expected the scale of each row, .* got none"),
        (lambda: FIT.apply(torch.zeros(2, 3), torch.zeros(2, 3)), r"lower: .* fit's shape \(1,\)"),
        (lambda: FIT.apply(torch.zeros(2), torch.zeros(2)), r"lower: expected rows of the fit's"),
        (
            lambda: JOINT.apply(torch.zeros(2, 4), torch.zeros(2, 4)),
            r"lower: expected rows of the fit's shape \(3,\), got rows of shape \(4,\)",
        ),
        (lambda: FIT.apply(LOW, LOW - 1), r"upper: .* nowhere below"),
        (lambda: GROUPED.apply(LOW, LOW, groups=["a", "c"]), r"groups: .*\['a', 'b'\], got 'c'"),
        (lambda: GROUPED.apply(LOW, LOW), r"groups: .*\['a', 'b'\], got 'all'"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
