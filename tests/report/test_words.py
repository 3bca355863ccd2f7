"""How numbers are written."""

from __future__ import annotations

import math

from pyro_vdn.report.estimates import Estimate
from pyro_vdn.report.markup import together
from pyro_vdn.report.words import (
    best_of,
    difference,
    in_percent,
    known,
    plus_minus,
    to_first_digit,
    with_error,
)


def test_how_numbers_are_written() -> None:
    sure, unsure = Estimate(-0.1, 0.01, 1000), Estimate(0.1, 1.0, 1000)
    assert together(difference(sure)).html == "<b>\u22120.100 ± 0.020</b>"
    assert together(difference(unsure)).html == "+0.100 ± 1.962"
    assert best_of([math.nan, 1.0], ["-", "1"], low=False)[0] == "-"
    assert best_of([math.nan], ["-"]) == ["-"]
    assert plus_minus(math.nan, 1.0) == known(math.nan, ".2f") == "-"
    assert plus_minus(-2.0, math.inf) == "\u22122.000"
    assert known(-1e-5, ".0e") == "\u22121e\u221205"
    assert in_percent(Estimate(0.5, 0.01, 1)) == "50.0 %"
    assert with_error(-1234.5, 6.7) == "\u22121,234 ± 7"
    assert with_error(999.94, 6.7) == "999.9 ± 6.7"
    assert to_first_digit(3.21, 2.0) == "3.2 ± 2.0"
