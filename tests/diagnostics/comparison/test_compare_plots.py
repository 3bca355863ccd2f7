from __future__ import annotations

import numpy as np
import pytest

from pyro_vdn.diagnostics import compare, plot_compare


def test_points_and_bars_are_those_of_the_table() -> None:
    easy = np.random.default_rng(0).normal(size=200)
    found = compare({"a": easy - 0.3 + 0.2 * np.cos(easy), "b": easy, "c": easy + np.sin(easy)})
    left, right = plot_compare(found).axes
    behind = [float(drawn.lines[0].get_xdata()[0]) for drawn in left.containers]
    assert behind == pytest.approx([-fit.elpd_diff / 200 for fit in found.fits])
    ends = [drawn.lines[2][0].get_segments()[0][:, 0] for drawn in left.containers]
    assert ends[2] == pytest.approx([-found.fits[2].upper / 200, -found.fits[2].lower / 200])
    assert [bar.get_width() for bar in right.patches] == [fit.weight for fit in found.fits]
    assert [text.get_text() for text in left.get_yticklabels()] == [f.name for f in found.fits]
