from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_vdn.diagnostics import (
    EventReliability,
    QuantileReliability,
    event_reliability,
    plot_event_reliability,
    plot_quantile_reliability,
    quantile_reliability,
)
from pyro_vdn.errors import InputError


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def quantiles_of(groups: int, spread: float = 1.0) -> QuantileReliability:
    levels = torch.tensor([0.1, 0.5, 0.9]).double()
    values = torch.distributions.Normal(0.0, 1.0).icdf(levels)[:, None, None]
    target = spread * normal(60, groups)
    names = torch.arange(groups).expand(60, groups) if groups > 1 else None
    return quantile_reliability(values.expand(3, 60, groups), levels, target, groups=names)


def events_of(power: float) -> EventReliability:
    truth = torch.sigmoid(normal(150))
    event = torch.sigmoid(normal(150, seed=1)) < truth
    return event_reliability(torch.sigmoid(power * torch.logit(truth)), event, resamples=20)


def lines(axes: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in axes.get_lines()}


def test_quantile_panels_show_shares_less_levels_and_the_verdict() -> None:
    found = quantiles_of(5, spread=0.4)
    figure = plot_quantile_reliability(found, title="step")
    assert len(figure.axes) == 5
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    inside = ["inside" if there else "outside" for there in found.inside]
    assert titles == [f"step {at}: {word} the band" for at, word in enumerate(inside)]
    assert "outside" in inside
    shown = lines(figure.axes[3])["model"]
    np.testing.assert_allclose(shown.get_xdata(), [10, 50, 90])
    np.testing.assert_allclose(
        shown.get_ydata(), 100 * (found.empirical[3] - found.nominal), atol=1e-9
    )
    band = figure.axes[3].collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(100 * float((found.lower[3] - found.nominal).min()))
    assert figure.axes[4].get_xlabel() == "level of the quantile (%)"
    assert len(figure.legends) == 1


def test_a_single_group_has_one_panel() -> None:
    figure = plot_quantile_reliability(quantiles_of(1), title="demand")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["demand: inside the band"]


def test_event_panels_show_curve_band_counts_and_parts() -> None:
    curves = {"ours": events_of(1.0), "twin": events_of(3.0)}
    figure = plot_event_reliability(curves, event="rain")
    assert len(figure.axes) == 4
    by_title = {axes.get_title(loc="left"): axes for axes in figure.axes}
    axes, curve = by_title["twin"], curves["twin"]
    np.testing.assert_allclose(lines(axes)["model"].get_ydata(), 100 * curve.frequency)
    assert f"miscalibration {curve.miscalibration:.4f}" in axes.texts[0].get_text()
    assert by_title["ours"].get_ylabel() == "how often rain came (%)"
    bars = [axes for axes in figure.axes if axes.patches]
    heights = [sum(bar.get_height() for bar in axes.patches) for axes in bars]
    np.testing.assert_allclose(heights, [100, 100])
    assert len(plot_event_reliability(curve).axes) == 2


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: plot_quantile_reliability(quantiles_of(13)), r"reliability: expected at most 12"),
        (lambda: plot_event_reliability({}), r"curves: expected 1 to 3 curves, got 0"),
        (
            lambda: plot_event_reliability(dict.fromkeys("abcd", events_of(1.0))),
            r"curves: expected 1 to 3 curves, got 4",
        ),
    ],
)
def test_too_many_are_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
