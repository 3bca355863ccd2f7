from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.image import imread
from torch import Tensor

from pyro_vdn.diagnostics import (
    CHECK_STATISTICS,
    PredictiveCheck,
    ecdf_band,
    histogram_band,
    plot_pit,
    plot_predictive_check,
    predictive_check,
    save,
)
from pyro_vdn.diagnostics._figure import INK, WARM
from pyro_vdn.errors import InputError


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def lines(axes: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in axes.get_lines()}


def title(axes: Any) -> str:
    return str(axes.get_title(loc="left"))


@pytest.mark.parametrize("ranks", [None, 30], ids=["transforms", "ranks"])
def test_pit_shows_the_difference_and_bars_in_their_bands(
    ranks: int | None, tmp_path: Path
) -> None:
    values = torch.rand(300, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 2
    if ranks is not None:
        values = (values * ranks).floor()
    figure = plot_pit(values, ranks=ranks, bins=10)
    left, right = figure.axes
    band, bars = ecdf_band(300, ranks=ranks), histogram_band(300, bins=10, ranks=ranks)
    shown = lines(left)
    np.testing.assert_allclose(shown["values"].get_xdata()[1:-1], band.points)
    np.testing.assert_allclose(shown["values"].get_ydata()[1:-1], band.difference(values))
    difference = band.difference(values)
    beyond = (difference > band.upper_difference) | (difference < band.lower_difference)
    assert 0 < int(beyond.sum()) < len(beyond)
    np.testing.assert_allclose(shown["outside"].get_xdata(), band.points[beyond])
    corners = left.collections[0].get_paths()[0].vertices[:, 1]
    assert corners.max() == pytest.approx(band.upper_difference.max())
    assert corners.min() == pytest.approx(band.lower_difference.min())
    heights = bars.heights(values)
    np.testing.assert_allclose([bar.get_height() for bar in right.patches[:10]], heights)
    red = [to_hex(bar.get_facecolor()) == WARM for bar in right.patches[:10]]
    beyond = (heights > bars.upper + 1e-9) | (heights < bars.lower - 1e-9)
    assert 0 < int(beyond.sum()) < 10
    np.testing.assert_array_equal(red, beyond)
    assert title(left) == "Distribution function: leaves the 95 % band (p < 0.001)"
    assert title(right) == "Histogram of 300 values"
    if ranks is None:
        save(figure, tmp_path / "pit.png", dpi=60)
        assert imread(tmp_path / "pit.png").shape[1] == 720


def test_pit_of_uniform_values_stays_in_the_band() -> None:
    left, right = plot_pit(np.linspace(0.0, 1.0, 80), level=0.9).axes
    assert title(left) == "Distribution function: stays in the 90 % band (p > 0.999)"
    assert "outside" not in lines(left)
    assert all(to_hex(bar.get_facecolor()) != WARM for bar in right.patches[:20])


def test_dependent_values_get_wider_bands() -> None:
    values = np.linspace(0.0, 1.0, 600) ** 1.2
    narrow, wide = plot_pit(values).axes[0], plot_pit(values, effective_count=60).axes[0]
    assert title(narrow).startswith("Distribution function: leaves the 95 % band (p = 0.0")
    assert title(wide).startswith("Distribution function: stays in the 95 % band (p = 0.")
    tops = [axes.collections[0].get_paths()[0].vertices[:, 1].max() for axes in (narrow, wide)]
    assert tops[1] == pytest.approx(ecdf_band(60).upper_difference.max())
    assert tops[1] > 2 * tops[0]


def test_one_histogram_per_statistic_with_the_data(tmp_path: Path) -> None:
    y, draws = normal(60, 1) + 1.0, normal(200, 60, 1, seed=1)
    check = predictive_check(draws, y, statistics=["mean", "sd", "skewness", "min", "max"])
    figure = plot_predictive_check(check)
    assert [title(axes).split(":")[0] for axes in figure.axes] == list(check.names)
    for at, axes in enumerate(figure.axes):
        assert lines(axes)["data"].get_xdata()[0] == pytest.approx(float(check.observed[at, 0]))
        assert title(axes).endswith(f"p = {float(check.p_value[at, 0]):.3f}")
        red = to_hex(axes._left_title.get_color()) == WARM
        assert red == bool(check.outside()[at, 0])
        shape = axes.patches[0].get_path().vertices
        sets = check.replicated[:, at, 0]
        assert shape[:, 0].min() == pytest.approx(float(sets.min()))
        assert shape[:, 0].max() == pytest.approx(float(sets.max()))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "draws of the model",
        "data",
    ]
    save(figure, tmp_path / "check.png", dpi=50)
    assert imread(tmp_path / "check.png").shape[1] == 600


def test_p_values_are_never_written_as_0_or_1() -> None:
    replicated, y = normal(2000, 50), normal(50, seed=1)
    for shift, said in ((9.0, "mean: p < 0.001"), (-9.0, "mean: p > 0.999")):
        check = predictive_check(replicated, y + shift, statistics=["mean"])
        assert title(plot_predictive_check(check).axes[0]) == said


def test_statistics_of_few_values_are_drawn_where_they_are() -> None:
    replicated = torch.tensor([0.0, 1.0, 1.0] * 30, dtype=torch.float64)[:, None, None]
    check = PredictiveCheck(("max",), ("all",), torch.ones(1, 1).double(), replicated)
    axes = plot_predictive_check(check, level=0.9).axes[0]
    segments = axes.collections[0].get_segments()
    assert [tuple(segment[1]) for segment in segments] == [(0.0, 30.0), (1.0, 60.0)]
    constant = PredictiveCheck(("max",), ("all",), torch.zeros(1, 1), torch.zeros(90, 1, 1))
    assert plot_predictive_check(constant, level=0.9).axes[0].get_xlim() == (-0.5, 0.5)


@pytest.mark.parametrize("per", ["horizon", "group", "output", "row"])
def test_places_show_intervals_and_the_data(per: Any, tmp_path: Path) -> None:
    y, draws = normal(6, 5, 3), normal(99, 6, 5, 3, seed=1)
    y[2:] += 1.5
    groups = ["north", "north", "south", "south", "west", "west"] if per == "group" else None
    check = predictive_check(draws, y, statistics=["mean", "sd"], per=per, groups=groups)
    figure = plot_predictive_check(check)
    axes = figure.axes[0]
    shown, outside = lines(axes), check.outside()[0]
    assert title(axes) == f"mean: {int(outside.sum())} of {len(check.places)} outside 95 %"
    np.testing.assert_allclose(shown["data"].get_ydata(), check.observed[0])
    assert outside.any()
    np.testing.assert_allclose(
        shown["data outside"].get_ydata(), check.observed[0].numpy()[outside]
    )
    fan = np.quantile(check.replicated[:, 0].numpy(), [0.05, 0.95], axis=0, method="weibull")
    if per == "horizon":
        assert shown["data"].get_xdata().tolist() == [1, 2, 3, 4, 5]
        corners = axes.collections[0].get_paths()[0].vertices[:, 1]
        assert (corners.min(), corners.max()) == pytest.approx((fan[0].min(), fan[1].max()))
    else:
        segments = np.array(axes.collections[0].get_segments())
        np.testing.assert_allclose(segments[:, :, 1].T, fan)
        labels = [text.get_text() for text in axes.get_xticklabels()]
        assert labels == [str(place) for place in check.places]
    assert figure.axes[-1].get_xlabel() == {"horizon": "step"}.get(per, per)
    if per == "horizon":
        save(figure, tmp_path / "places.png", dpi=50)


def test_undefined_statistics_are_said_to_be(tmp_path: Path) -> None:
    one = predictive_check(normal(60, 1), normal(1), statistics=["sd", "mean"])
    first, second = plot_predictive_check(one).axes
    assert title(first) == "sd: undefined"
    assert title(second).startswith("mean: p = 0.")
    assert to_hex(second._left_title.get_color()) == INK
    places = predictive_check(normal(60, 4), normal(4), statistics=["sd", "mean"], per="row")
    figure = plot_predictive_check(places)
    assert title(figure.axes[0]) == "sd: 0 of 0 outside 95 %"
    save(figure, tmp_path / "undefined.png", dpi=50)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: plot_pit([]), r"count: expected at least 1, got 0"),
        (lambda: plot_pit([0.5, 1.1]), r"values: expected values in \[0, 1\], got 1.1"),
        (lambda: plot_pit([0, 7], ranks=7), r"values: expected ranks 0, ..., 6, got 7.0"),
        (lambda: plot_pit([0.5], bins=1), r"bins: expected at least 2, got 1"),
        (lambda: plot_pit([0.5], effective_count=2), r"values: expected at least 2.* got 1"),
        (
            lambda: plot_predictive_check(
                predictive_check(
                    normal(50, 3),
                    normal(3),
                    statistics={str(i): CHECK_STATISTICS["mean"] for i in range(17)},
                )
            ),
            r"check: expected at most 16 statistics, .* got 17",
        ),
        (
            lambda: plot_predictive_check(predictive_check(normal(9, 3), normal(3))),
            r"draws: expected at least 20",
        ),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
