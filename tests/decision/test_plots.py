from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from pyro_vdn.decision import RiskCoverage, plot_risk_coverage, risk_coverage
from pyro_vdn.diagnostics import save
from pyro_vdn.errors import InputError


def curve(seed: int, resamples: int = 0) -> RiskCoverage:
    generator = np.random.default_rng(0)
    risk = generator.gamma(1.0, size=200)
    noise = np.random.default_rng(seed).normal(size=200)
    return risk_coverage(risk + seed * noise, risk, points=40, resamples=resamples)


def test_the_figure_shows_the_given_numbers(tmp_path: Path) -> None:
    curves = {"kl": curve(3), "entropy": curve(1, resamples=20)}
    figure = plot_risk_coverage(curves, title="Clean text", least_coverage=0.1)
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "Clean text"
    mean, first, second = axes.get_lines()
    assert mean.get_ydata()[0] == pytest.approx(curves["kl"].risk[-1])
    for line, name in ((first, "kl"), (second, "entropy")):  # from the highest area down
        assert str(line.get_label()).startswith(f"{name}: {curves[name].aurc:.3f}")
        np.testing.assert_allclose(line.get_xdata(), 100 * curves[name].coverage[3:])
        np.testing.assert_allclose(line.get_ydata(), curves[name].risk[3:])
    assert first.get_color() != second.get_color()
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    lower, upper = curves["entropy"].lower, curves["entropy"].upper
    assert lower is not None
    assert upper is not None
    assert heights.min() == pytest.approx(lower[3:].min())
    assert heights.max() == pytest.approx(upper[3:].max())
    interval = curves["entropy"].interval
    assert interval is not None
    assert str(second.get_label()).endswith(f" [{interval.lower:.3f}, {interval.upper:.3f}]")
    assert "[" not in str(first.get_label())
    heading = axes.get_legend().get_title().get_text()
    assert heading == "area under the curve\n(brackets, band: 95 % interval)"
    save(figure, tmp_path / "curves.png", dpi=100)
    assert imread(tmp_path / "curves.png").shape[1] == 1200


def test_a_score_keeps_its_colour_whatever_its_area() -> None:
    better, worse = curve(1), curve(3)
    colours = [
        {
            line.get_label().split(":")[0]: line.get_color()
            for line in plot_risk_coverage({"a": a, "b": b}).axes[0].get_lines()
        }
        for a, b in ((better, worse), (worse, better))
    ]
    assert colours[0] == colours[1]
    assert colours[0]["a"] != colours[0]["b"]


def test_predictions_that_differ_are_each_at_random_by_themselves() -> None:
    generator = np.random.default_rng(0)
    risk, noise = generator.gamma(1.0, size=(2, 200))
    curves = {
        "neurons": risk_coverage(risk + noise, risk, points=40),
        "same": risk_coverage(noise, risk, points=40),  # another order of the same predictions
        "twin": risk_coverage(risk + noise, 2.0 * risk, points=40),
        "ensemble": risk_coverage(risk + noise, 0.5 * risk, points=40),
    }
    lines = {line.get_label(): line for line in plot_risk_coverage(curves).axes[0].get_lines()}
    mean = risk.mean()
    dashed = {label: line.get_ydata()[0] for label, line in lines.items() if "random" in label}
    assert dashed == {
        f"at random, twin: {2 * mean:.3f}": pytest.approx(2 * mean),
        f"at random, neurons, same: {mean:.3f}": pytest.approx(mean),
        f"at random, ensemble: {mean / 2:.3f}": pytest.approx(mean / 2),
    }
    colour = {label.split(":")[0]: line.get_color() for label, line in lines.items()}
    assert colour["at random, twin"] == colour["twin"]
    assert colour["at random, ensemble"] == colour["ensemble"] != colour["twin"]
    assert colour["at random, neurons, same"] not in (colour["neurons"], colour["same"])
    alone = plot_risk_coverage({"twin": curves["twin"]}).axes[0].get_lines()[0]
    assert alone.get_label() == f"at random: {2 * mean:.3f}"
    assert alone.get_color() != colour["twin"]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: plot_risk_coverage({}), r"curves: expected between 1 and 8 curves, got 0"),
        (
            lambda: plot_risk_coverage({str(i): curve(1) for i in range(9)}),
            r"curves: expected between 1 and 8 curves, got 9",
        ),
        (
            lambda: plot_risk_coverage({"a": curve(1)}, least_coverage=1.0),
            r"least_coverage: expected a share in \[0, 1\), got 1.0",
        ),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        call()
