from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch import Tensor

from pyro_vdn.diagnostics import (
    FAN_LEVELS,
    MissingPackageError,
    draw_quantiles,
    histogram_band,
    plot_calibration,
    plot_fan,
    plot_unit_activity,
    save,
)
from pyro_vdn.errors import InputError


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def lines(axes: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in axes.get_lines()}


@pytest.mark.parametrize("rows", [1, 5, 12])
def test_fan_has_one_panel_per_row_and_one_legend(rows: int, tmp_path: Path) -> None:
    titles = [f"series {row}" for row in range(rows)]
    figure = plot_fan(
        normal(rows, 30),
        normal(rows, 10),
        draws=normal(40, rows, 10),
        titles=titles,
        value_label="MW",
    )
    assert [axes.get_title(loc="left") for axes in figure.axes] == titles
    assert len(figure.legends) == 1
    assert figure.axes[0].get_ylabel() == "MW"
    assert figure.axes[-1].get_xlabel() == "steps from the forecast origin"
    save(figure, tmp_path / "fan.png", dpi=100)
    assert imread(tmp_path / "fan.png").shape[1] == 1200


def test_fan_shows_the_given_numbers() -> None:
    history, target, draws = normal(2, 30), normal(2, 10, seed=1), normal(99, 2, 10, seed=2)
    panel = plot_fan(history, target, draws=draws).axes[1]
    fan = draw_quantiles(draws, FAN_LEVELS)
    shown = lines(panel)
    np.testing.assert_allclose(shown["history"].get_ydata(), history[1])
    assert shown["history"].get_xdata()[-1] == 0
    np.testing.assert_allclose(shown["truth"].get_ydata()[1:], target[1])
    np.testing.assert_allclose(shown["forecast median"].get_ydata(), fan[2, 1])
    assert shown["forecast median"].get_xdata().tolist() == list(range(1, 11))
    for band, low, high in zip(panel.collections, (0, 1), (4, 3), strict=True):
        points = band.get_paths()[0].vertices[:, 1]
        assert points.max() == pytest.approx(float(fan[high, 1].max()))
        assert points.min() == pytest.approx(float(fan[low, 1].min()))


def test_fan_from_quantiles_equals_fan_from_draws(tmp_path: Path) -> None:
    history, target, draws = normal(2, 9), normal(2, 5), normal(50, 2, 5)
    quantiles = draw_quantiles(draws, FAN_LEVELS).numpy()
    save(plot_fan(history, target, draws=draws), tmp_path / "a.png", dpi=50)
    save(plot_fan(history.numpy(), target.numpy(), quantiles=quantiles), tmp_path / "b.png", dpi=50)
    np.testing.assert_array_equal(imread(tmp_path / "a.png"), imread(tmp_path / "b.png"))


def test_calibration_shows_frequencies_and_coverage(tmp_path: Path) -> None:
    values = torch.cat([torch.full((75,), 0.6), torch.full((25,), 0.01)])
    figure = plot_calibration(values, bins=4, effective_count=50)
    histogram, curve = figure.axes
    assert [bar.get_height() for bar in histogram.patches[:4]] == [1.0, 0.0, 3.0, 0.0]
    band, corners = histogram_band(50, bins=4), histogram.collections[0].get_paths()[0].vertices
    assert corners[:, 1].min() == pytest.approx(band.lower.min())
    assert corners[:, 1].max() == pytest.approx(band.upper.max())
    np.testing.assert_allclose(lines(curve)["model"].get_xdata(), 5.0 * np.arange(1, 20), rtol=1e-6)
    np.testing.assert_allclose(lines(curve)["model"].get_ydata(), [0] * 3 + [75] * 16)
    assert curve.get_title(loc="left") == "Coverage: the 90 % interval holds 75.0 %"
    save(figure, tmp_path / "calibration.png", dpi=100)
    assert imread(tmp_path / "calibration.png").shape[1] == 1200


@pytest.mark.parametrize(
    ("kl", "title"),
    [
        ([1.0, 0.0, 0.2, 1e-6], "2 of 4 units active"),
        ([1.0, 2.0], "2 of 2 units active"),
        ([0.0, -1e-9], "0 of 2 units active"),
        ([0.5], "1 of 1 units active"),
    ],
)
def test_activity_shows_every_unit_once(
    kl: list[float], title: str, tmp_path: Path, table: Any
) -> None:
    figure = plot_unit_activity(table(kl=kl, mu2=[0.5 * (k > 0) for k in kl]))
    rank = figure.axes[0]
    assert rank.get_title(loc="left") == title
    assert rank.get_yscale() == "log"
    assert list(lines(rank)["threshold"].get_ydata()) == [1e-4, 1e-4]
    for axes in figure.axes:
        dots = [c.get_offsets() for c in axes.collections if hasattr(c, "get_sizes")]
        points = np.concatenate(dots)
        assert len(points) == len(kl)
        assert np.isfinite(points).all()
    heights = np.concatenate(
        [c.get_offsets()[:, 1] for c in rank.collections if hasattr(c, "get_sizes")]
    )
    assert (np.diff(heights) <= 0).all()
    assert (heights > 0).all()
    np.testing.assert_allclose(heights[heights > 1e-5], sorted(k for k in kl if k > 1e-5)[::-1])
    save(figure, tmp_path / "activity.png", dpi=100)
    assert imread(tmp_path / "activity.png").shape[1] == 1200


def test_figures_touch_nothing_global() -> None:
    settings = dict(mpl.rcParams)
    program = (
        "import sys, torch\n"
        "from pyro_vdn.diagnostics import plot_calibration\n"
        "assert 'matplotlib' not in sys.modules\n"
        "plot_calibration(torch.rand(50))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    plot_calibration(torch.linspace(0, 1, 50))
    assert dict(mpl.rcParams) == settings


@pytest.mark.parametrize("ending", ["png", "svg", "pdf", "PNG"])
def test_save_writes_the_format_of_the_ending(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"figure.{ending}"
    path.write_text("old")
    save(plot_calibration(torch.linspace(0, 1, 50)), path, dpi=30)
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending.lower()]
    assert path.read_bytes().startswith(start)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure, path = plot_calibration(torch.linspace(0, 1, 50)), tmp_path / "figure.png"
    path.write_text("old")

    def fail(target: Path, **_: object) -> None:
        target.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save(figure, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_without_matplotlib_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'pyro-vdn\[notebooks\]'"):
        plot_calibration(torch.linspace(0, 1, 50))


PAST, TRUTH, DRAWS = np.zeros((2, 9)), np.zeros((2, 5)), np.zeros((19, 2, 5))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: plot_fan(PAST, TRUTH), r"exactly one of the two, got none"),
        (lambda: plot_fan(PAST, TRUTH, draws=DRAWS, quantiles=DRAWS), r"one of the two, got both"),
        (lambda: plot_fan(PAST[:1], TRUTH, draws=DRAWS), r"history: expected 2 rows, .* got 1"),
        (lambda: plot_fan(PAST, TRUTH, draws=DRAWS, titles=["a"]), r"titles: expected 2 rows"),
        (lambda: plot_fan(PAST[0], TRUTH, draws=DRAWS), r"history: .* shape \(rows, past\)"),
        (
            lambda: plot_fan(PAST, TRUTH, draws=DRAWS[:, :1]),
            r"draws: .*\(draws, 2, 5\).*\(19, 1, 5\)",
        ),
        (lambda: plot_fan(PAST, TRUTH, draws=DRAWS[:18]), r"draws: expected at least 19 draws"),
        (lambda: plot_fan(PAST, TRUTH, quantiles=DRAWS), r"quantiles: .*\(5, 2, 5\).*\(19, 2, 5\)"),
        (lambda: plot_fan(PAST, TRUTH / 0, draws=DRAWS), r"target: expected finite .* \(0, 0\)"),
        (
            lambda: plot_fan(np.zeros((13, 4)), np.zeros((13, 2)), draws=np.zeros((19, 13, 2))),
            r"target: expected at most 12 rows, .* got 13",
        ),
        (lambda: plot_calibration(torch.tensor([2.0])), r"pit_values: expected values in \[0, 1\]"),
        (lambda: plot_calibration(torch.rand(9), bins=1), r"bins: expected at least 2, got 1"),
        (
            lambda: save(plot_calibration(torch.rand(9)), "figure.xyz"),
            r"path: expected an ending among .*png.* got 'figure.xyz'",
        ),
        (
            lambda: save(plot_calibration(torch.rand(9)), "nowhere/at/all.png"),
            r"path: expected a file in an existing folder",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in divide:RuntimeWarning")
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
