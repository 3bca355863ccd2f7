from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from pyro_vdn.diagnostics import (
    CollapseMode,
    TrainingHistory,
    collapse_report,
    plot_collapse,
    plot_contraction,
    plot_loss_terms,
    plot_responses,
    plot_training,
    save,
)
from pyro_vdn.diagnostics.units._heat import edges, light_to_dark, place_in_band
from pyro_vdn.errors import InputError

TIMES, UNITS = 8, 6


def history(**terms: Any) -> TrainingHistory:
    """Return a history of one layer in which unit i ends with a KL of 10^-(i mod 3)."""
    levels = 10.0 ** -(torch.arange(UNITS) % 3.0)
    kl = levels.expand(TIMES, UNITS) * torch.linspace(0.5, 1.0, TIMES)[:, None]
    layer = {"step": list(range(0, 10 * TIMES, 10)), "kl": kl, "mu2": 2 * kl, "scale": kl}
    kept = TrainingHistory()
    kept.load_state_dict({"layers": {"a": layer}, "terms": terms})
    return kept


def drawn(axes: Any) -> Any:
    (mesh,) = [c for c in axes.collections if hasattr(c, "get_coordinates")]
    return mesh.get_array().data.reshape(UNITS, TIMES)


def is_complete(figure: Any, path: Path) -> None:
    save(figure, path / "figure.png", dpi=100)
    assert imread(path / "figure.png").shape[1] == 1200


def test_heat_maps_show_units_ordered_by_final_kl(tmp_path: Path) -> None:
    kept = history()
    figure = plot_training(kept, "a")
    above, below = figure.axes[:2]
    order = [0, 3, 1, 4, 2, 5]
    np.testing.assert_allclose(drawn(above), kept.of("a", "kl")[:, order].T)
    np.testing.assert_allclose(drawn(below), kept.of("a", "mu2")[:, order].T)
    assert above.get_ylim() == (UNITS + 0.5, 0.5)  # the strongest on top
    assert below.get_xlabel() == "training step"
    assert len(figure.axes) == 4  # with their colour bars
    is_complete(figure, tmp_path)


@pytest.mark.parametrize("steps", [1, 2, 50])
@pytest.mark.parametrize("band", [None, (0.01, 0.5)])
def test_any_number_of_notes_is_drawn(steps: int, band: Any, tmp_path: Path) -> None:
    values = torch.rand(steps, 3)
    layer = {"step": list(range(steps)), "kl": values, "mu2": 0 * values, "scale": values}
    kept = TrainingHistory()
    kept.load_state_dict({"layers": {"": layer}, "terms": {}})
    is_complete(plot_training(kept, "", band=band), tmp_path)


def test_each_unit_is_shown_against_its_own_band(tmp_path: Path) -> None:
    low = torch.tensor([1e-3, 0.2, 1.0, 0.01, 4.0, 0.01])
    band = (low, 2 * low, 1.5 * low)
    kept = history()
    figure = plot_training(kept, "a", band=band)
    order = [0, 3, 1, 4, 2, 5]
    mu2, low_then = kept.of("a", "mu2")[:, order], low.numpy()[order]
    expected = place_in_band(mu2, low_then, 2 * low_then).T
    np.testing.assert_allclose(drawn(figure.axes[1]), expected, atol=1e-6)
    labels = [label.get_text() for label in figure.axes[3].get_yticklabels()]
    assert "low" in labels
    assert "high" in labels
    is_complete(figure, tmp_path)


def test_one_band_for_all_is_marked_with_its_numbers() -> None:
    figure = plot_training(history(), "a", band=(0.05, 0.2))
    bar = figure.axes[3]
    labels = {label.get_text(): tick for label, tick in zip(*ticks(bar), strict=True)}
    assert labels["low 0.05"] == -0.5
    assert labels["high 0.2"] == 0.5
    marks = sorted(float(line.get_ydata()[0]) for line in bar.get_lines())
    assert marks == [-0.5, 0.5]


def ticks(axes: Any) -> Any:
    return axes.get_yticklabels(), axes.get_yticks()


def test_places_in_a_band_by_hand() -> None:
    values = np.array([0.001, 0.01, 0.1, 0.1 * 10**0.5, 1.0, 100.0, 0.0])
    place = place_in_band(values, np.array(0.1), np.array(1.0))
    np.testing.assert_allclose(place[:6], [-2.5, -1.5, -0.5, 0.0, 0.5, 2.5], atol=1e-12)
    assert np.isfinite(place[6])


def test_cells_meet_halfway_between_uneven_steps() -> None:
    assert edges(np.array([0.0, 10.0, 40.0])).tolist() == [-5.0, 5.0, 25.0, 55.0]
    assert edges(np.array([7.0])).tolist() == [6.5, 7.5]


def test_the_sequential_map_darkens_evenly() -> None:
    """Colour-blind readers go by lightness alone."""
    colours = light_to_dark()(np.linspace(0, 1, 64))[:, :3]
    lightness = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) < 0).all()
    assert lightness[0] - lightness[-1] > 0.7


@pytest.mark.parametrize(("layers", "panels"), [(1, 1), (2, 2), (5, 5)])
def test_contraction_has_a_panel_per_layer(
    layers: int, panels: int, table: Any, tmp_path: Path
) -> None:
    answer = {"information": [0.5, 0.0, 0.0, 0.5], "scale_variation": [0.0, 0.0, 0.1, 0.1]}
    s = table(contraction=[0.9, 0.2, -8.0, np.nan], **answer)
    figure = plot_contraction({str(i): s for i in range(layers)} if layers > 1 else s)
    assert len(figure.axes) == panels
    answers, same = figure.axes[0].containers
    heights = np.array([[bar.get_height() for bar in bars] for bars in (answers, same)])
    assert heights.sum(1).tolist() == [2, 1]  # one has no contraction
    assert heights[0, 0] == 1  # -8 is counted at -1
    is_complete(figure, tmp_path)


@pytest.mark.parametrize("contraction", [[np.nan] * 3, [np.nan, np.nan, 0.5]])
def test_units_without_a_contraction_are_counted(
    contraction: Any, table: Any, tmp_path: Path
) -> None:
    figure = plot_contraction(table(contraction=contraction))
    missing = int(np.isnan(contraction).sum())
    (text,) = figure.axes[0].texts
    assert text.get_text().startswith(f"{missing} units not shown: their prior has no finite")
    bars = [bar.get_height() for bars in figure.axes[0].containers for bar in bars]
    assert sum(bars) == 3 - missing
    is_complete(figure, tmp_path)


@pytest.mark.parametrize(("bad", "shown"), [([np.nan, np.inf, -np.inf], 2), ([np.nan] * 5, 0)])
def test_loss_terms_that_are_not_finite_are_counted(bad: Any, shown: int, tmp_path: Path) -> None:
    values = [*bad, -1.0, -2.0][:5]
    figure = plot_loss_terms(history(step=list(range(5)), elbo=values, kl=[0.5] * 5))
    of_elbo, of_kl = sorted(figure.axes, key=lambda axes: axes.get_title(loc="left"))
    (text,) = of_elbo.texts
    assert text.get_text() == f"{5 - shown} of 5 notes not shown: not finite"
    assert sum(len(line.get_ydata()) for line in of_elbo.get_lines()) == 2 * shown
    assert len(of_kl.texts) == 0
    is_complete(figure, tmp_path)


def test_a_prior_without_variance_is_drawn(table: Any, tmp_path: Path) -> None:
    is_complete(plot_collapse(collapse_report(table(prior_scale=[np.nan] * 3))), tmp_path)


def test_a_count_of_ignored_units_is_kept_where_a_layer_was_measured(
    table: Any, tmp_path: Path
) -> None:
    measured = table(use=[0.0, 0.5, 0.5], use_error=0.0)
    figure = plot_collapse(collapse_report({"a": measured, "b": table()}))
    counts = figure.axes[0]
    assert counts.texts[-1].get_text() == " 1  (25%)"
    assert counts.get_yticklabels()[-1].get_text() == "ignored\n(use of 1 of 2 layers)"
    is_complete(figure, tmp_path)


def test_loss_terms_show_what_is_not_always_zero(tmp_path: Path) -> None:
    values = {"log_likelihood": np.linspace(-9, -1, 60).tolist(), "kl": [0.5] * 60}
    kept = history(step=list(range(60)), **values, penalty=[0.0] * 60, elbo=[-1.0] * 60)
    figure = plot_loss_terms(kept)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["log-likelihood", "KL, weighted", "ELBO, every weight 1"]
    noted, smoothed = figure.axes[0].get_lines()
    np.testing.assert_allclose(noted.get_ydata(), values["log_likelihood"])
    np.testing.assert_allclose(smoothed.get_ydata(), values["log_likelihood"])  # a line stays one
    is_complete(figure, tmp_path)


def test_smoothing_averages_neighbours() -> None:
    values = [0.0, 6.0] * 30
    kept = history(step=list(range(60)), kl=values)
    _, smoothed = plot_loss_terms(kept).axes[0].get_lines()
    np.testing.assert_allclose(smoothed.get_ydata()[[0, 1, 2, 59]], [0.0, 2.0, 4.0, 6.0])


def test_responses_are_grouped_by_the_feature_answered_to(tmp_path: Path) -> None:
    values = np.array([[0.1, 0.9], [0.8, 0.0], [-0.9, 0.1], [0.0, -0.3]])
    figure = plot_responses(torch.from_numpy(values), features=["length", "width"])
    axes = figure.axes[0]
    order = [2, 1, 0, 3]
    assert [label.get_text() for label in axes.get_xticklabels()] == [str(i) for i in order]
    (mesh,) = axes.collections
    np.testing.assert_allclose(mesh.get_array().reshape(2, 4), values[order].T)
    assert mesh.get_clim() == (-1, 1)
    assert [float(line.get_xdata()[0]) for line in axes.get_lines()] == [2.5]
    is_complete(figure, tmp_path)


@pytest.mark.parametrize("shape", [(1, 1), (200, 30), (30, 300)])
def test_responses_of_any_size_are_drawn(shape: Any, tmp_path: Path) -> None:
    is_complete(plot_responses(np.random.default_rng(0).uniform(-1, 1, shape)), tmp_path)


@pytest.mark.parametrize("use", [True, False])
def test_collapse_shows_every_unit_once_and_its_count(
    use: bool, table: Any, tmp_path: Path
) -> None:
    measured = {"use": [0.2, 0.0, 0.1, 0.1, 0.2, 0.0], "use_error": 0.0} if use else {}
    s = table(
        kl=[0.5, 0.0, 9.0, 3.0, 9.0, 0.5],
        mu2=[0.4, 0.0, 90.0, 0.1, 0.1, 0.1],
        scale=[0.6, 1.0, 0.6, 0.01, 9.0, 0.6],
        **measured,
    )
    report = collapse_report({"a": s, "b": s})
    figure = plot_collapse(report)
    counts, scale, lower = figure.axes
    widths = [bar.get_width() for bar in counts.patches]
    assert widths == list(report.counts().values())
    assert counts.get_title(loc="left") == f"{2 if use else 4} of 12 units living"
    for axes in (scale, lower):
        points = np.concatenate([c.get_offsets() for c in axes.collections if len(c.get_offsets())])
        points = points[~(points == 0).all(1)]
        assert np.isfinite(points).all()
        assert len(points) == 12
    texts = " ".join(text.get_text() for text in counts.texts)
    assert ("use not measured" in texts) == (not use)
    assert lower.get_ylabel() == ("downstream use (nats / row)" if use else "energy μ²")
    is_complete(figure, tmp_path)


def test_every_mode_has_a_look_of_its_own() -> None:
    from pyro_vdn.diagnostics.units._unit_panels import _LOOKS

    assert set(_LOOKS) == set(CollapseMode)
    assert len({colour for colour, _ in _LOOKS.values()}) == len(CollapseMode)
    assert len({marker for _, marker in _LOOKS.values()}) == len(CollapseMode)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: plot_training(history(), "b"), r"path: .* of \['a'\], got 'b'"),
        (
            lambda: plot_training(history(), "a", band=(torch.zeros(3), 1.0)),
            "band: expected 6 units, .* got 3",
        ),
        (lambda: plot_contraction({}), "statistics: expected at least one layer"),
        (lambda: plot_loss_terms(history()), "history: expected notes with loss terms, got none"),
        (lambda: plot_responses([0.1, 0.2]), r"responses: .* shape \(units, features\)"),
        (lambda: plot_responses([[0.1, -1.2]]), r"responses: .* correlations .* got -1.2"),
        (lambda: plot_responses([[0.1]], features=["a", "b"]), "features: expected 1 names, .* 2"),
    ],
)
def test_bad_input_is_refused(call: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        call()
