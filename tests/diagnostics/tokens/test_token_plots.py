from __future__ import annotations

import pytest
import torch

from pyro_vdn.diagnostics.tokens.token_calibration import Reliability, reliability_curve
from pyro_vdn.diagnostics.tokens.token_plots import plot_reliability
from pyro_vdn.errors import InputError


def make_curve(share: float) -> Reliability:
    highest = torch.linspace(0.0, 0.9, 1000)
    return reliability_curve(highest, torch.arange(1000) % 100 < 100 * share)


def test_curves_show_accuracies_of_bins_with_tokens_enough() -> None:
    curves = {"neurons": make_curve(0.4), "twin": make_curve(0.2)}
    left, right = plot_reliability(curves).axes
    for container, curve in zip(left.containers, curves.values(), strict=True):
        drawn = container.lines[0].get_ydata()
        enough = curve.count >= 20
        assert len(drawn) == int(enough.sum()) == 14
        assert drawn.tolist() == curve.accuracy[enough].tolist()
    assert [text.get_text() for text in left.get_legend().get_texts()][1:] == list(curves)
    assert len(right.patches) == 2


def test_bars_add_up_to_all_tokens() -> None:
    _, right = plot_reliability(make_curve(0.4)).axes
    assert sum(bar.get_height() for bar in right.patches) == pytest.approx(100)


@pytest.mark.parametrize("count", [0, 5])
def test_no_curve_or_too_many_are_refused(count: int) -> None:
    with pytest.raises(InputError, match=rf"curves: expected 1 to 4 curves, got {count}"):
        plot_reliability({str(at): make_curve(0.4) for at in range(count)})
