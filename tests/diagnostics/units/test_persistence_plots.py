"""The figure of how long units remember."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pyro_vdn.diagnostics import PersistenceReport, UnitPersistence, plot_persistence, save
from pyro_vdn.errors import InputError


def units(phi: Any, **given: Any) -> UnitPersistence:
    count = len(phi)
    arrays = {"innovation_scale": 0.5, "posterior_carried": 0.4, "renewal": 2.0, **given}
    filled = {name: np.broadcast_to(np.array(v, float), count) for name, v in arrays.items()}
    return UnitPersistence.of(np.array(phi, float)[:, None], **filled, step=0.5, unit="h", steps=48)


def test_half_lives_are_in_units_of_time_and_units_in_their_order() -> None:
    report = PersistenceReport({"neurons": units([0.9, 0.5, 0.7])})
    left, right = plot_persistence(report).axes
    assert left.get_ylabel() == "half-life (h)"
    assert left.get_title(loc="left") == "Half-lives: neurons, median 0.972 h"
    assert [label.get_text() for label in left.get_xticklabels()] == ["1", "2", "0"]
    heights = left.collections[1].get_offsets()[:, 1]
    assert heights.tolist() == pytest.approx([0.5, 0.971670, 3.289407], rel=1e-5)
    line = next(line for line in left.lines if line.get_label() == "length of a sequence")
    assert set(line.get_ydata()) == {24.0}
    assert right.collections[0].get_offsets()[:, 0].tolist() == pytest.approx([0.81, 0.25, 0.49])


def test_frozen_units_are_marked() -> None:
    report = PersistenceReport({"a": units([0.9, 0.9999, 0.5], renewal=[2.0, 0.01, 3.0])})
    left = plot_persistence(report).axes[0]
    marked = {one.get_label(): one.get_offsets() for one in left.collections[1:]}
    assert set(marked) == {"moves", "frozen in time"}
    assert marked["frozen in time"][:, 0].tolist() == [3.0]  # the slowest of three
    only = plot_persistence(PersistenceReport({"a": units([0.9])})).axes[0]
    assert [one.get_label() for one in only.collections[1:]] == ["moves"]


@pytest.mark.parametrize("count", [1, 3])
def test_a_row_per_layer(count: int, tmp_path: Any) -> None:
    layers = {f"layers.{i}": units([0.0, 0.5, 0.99999]) for i in range(count)}
    figure = plot_persistence(PersistenceReport(layers))
    assert len(figure.axes) == 2 * count
    assert [axes.get_xlabel() != "" for axes in figure.axes] == [False] * 2 * (count - 1) + [
        True,
        True,
    ]
    save(figure, tmp_path / "persistence.png", dpi=40)


def test_many_units_have_no_tick_each() -> None:
    left = plot_persistence(PersistenceReport({"": units(np.linspace(0, 0.99, 200))})).axes[0]
    assert left.get_title(loc="left").startswith("Half-lives, median")
    assert len(left.get_xticks()) < 30


def test_negative_shares_have_room() -> None:
    right = plot_persistence(
        PersistenceReport({"": units([0.5, 0.6], posterior_carried=[-0.4, -7.0])})
    ).axes[1]
    assert right.get_ylim()[0] == pytest.approx(-1.04)
    assert right.collections[0].get_offsets()[:, 1].tolist() == [-0.4, -1.0]


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(InputError, match="report: expected at least one layer with memory"):
        plot_persistence(PersistenceReport({}))
