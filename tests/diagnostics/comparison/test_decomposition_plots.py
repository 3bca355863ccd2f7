from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_vdn.diagnostics import (
    Decomposition,
    UnitShares,
    plot_decomposition,
    plot_unit_shares,
)
from pyro_vdn.diagnostics.comparison.unit_shares import LayerVariances
from pyro_vdn.errors import InputError


def made(*shape: int, information: bool = True) -> Decomposition:
    generator = torch.Generator().manual_seed(0)
    parts = [torch.rand(shape, generator=generator) for _ in range(4)]
    found = (parts[2], parts[3]) if information else (None, None)
    return Decomposition(parts[0], parts[1], *found, 100)


def upper_edge(area: object) -> Tensor:
    """The upper edge of a filled area, from left to right."""
    corners = torch.from_numpy(area.get_paths()[0].vertices)  # type: ignore[attr-defined]
    places = corners[:, 0].unique()
    return torch.stack([corners[corners[:, 0] == place, 1].max() for place in places])


def test_rows_stand_in_the_order_of_their_variance() -> None:
    parts = made(30, 1)
    left, right = plot_decomposition(parts).axes
    order = parts.total[:, 0].argsort()
    assert upper_edge(left.collections[1]).tolist() == pytest.approx(parts.total[order, 0].tolist())
    assert upper_edge(left.collections[0]).tolist() == pytest.approx(
        parts.aleatoric[order, 0].tolist()
    )
    assert parts.mutual_information is not None
    dots = right.collections[0].get_offsets()[:, 1]
    assert dots.tolist() == pytest.approx(parts.mutual_information[order, 0].tolist())
    share = 100 * float(parts.between.sum() / parts.total.sum())
    assert left.get_title(loc="left") == f"Predictive variance: {share:.1f} % between draws"


def test_steps_of_sequences_are_means_over_rows() -> None:
    parts = made(30, 6, 2)
    left, right = plot_decomposition(parts, output=1).axes
    assert upper_edge(left.collections[1]).tolist() == pytest.approx(
        parts.total[..., 1].mean(0).tolist()
    )
    assert parts.mutual_information is not None
    assert right.lines[0].get_ydata().tolist() == pytest.approx(
        parts.mutual_information[..., 1].mean(0).tolist()
    )
    assert left.get_xlabel() == "step"


def test_outputs_are_added_and_without_information_the_share_is_drawn() -> None:
    parts = made(30, 2, information=False)
    left, right = plot_decomposition(parts).axes
    total, between = parts.total.sum(-1), parts.between.sum(-1)
    order = total.argsort()
    assert upper_edge(left.collections[1]).tolist() == pytest.approx(total[order].tolist())
    dots = right.collections[0].get_offsets()[:, 1]
    assert dots.tolist() == pytest.approx((between / total)[order].tolist())


def test_classes_have_one_information() -> None:
    parts = made(30, 3)
    parts = Decomposition(parts.aleatoric, parts.between, torch.arange(30.0), None, 100)
    _, right = plot_decomposition(parts, output=0).axes
    dots = right.collections[0].get_offsets()[:, 1]
    assert sorted(dots.tolist()) == list(range(30))


def test_an_output_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="output: expected one of 2 outputs"):
        plot_decomposition(made(30, 2), output=2)


def shares(*sizes: int) -> UnitShares:
    generator = torch.Generator().manual_seed(0)
    layers = {}
    for at, size in enumerate(sizes):
        lost, alone = torch.rand(2, size, 5, generator=generator)
        layers[f"layers.{at}"] = LayerVariances(
            tuple(range(size)), lost, alone, lost.sum(0), alone.sum(0)
        )
    return UnitShares(torch.full((5,), 10.0), layers)


def test_units_stand_in_the_order_of_what_is_lost() -> None:
    found = shares(3, 50)
    first, second = plot_unit_shares(found).axes
    values = found.lost("layers.0").value.sort(descending=True)
    assert [bar.get_height() for bar in first.patches] == pytest.approx(
        (100 * values.values).tolist()
    )
    assert [text.get_text() for text in first.get_xticklabels()] == [
        str(int(at)) for at in values.indices
    ]
    dots = first.collections[-1].get_offsets()[:, 1]
    assert dots.tolist() == pytest.approx(
        (100 * found.alone("layers.0").value[values.indices]).tolist(), rel=1e-5
    )
    assert len(second.patches) == 40
    assert "10 more units" in second.texts[0].get_text()


@pytest.mark.parametrize(("layers", "panels"), [(1, 1), (3, 3), (8, 6)])
def test_a_panel_for_each_of_the_first_layers(layers: int, panels: int) -> None:
    assert len(plot_unit_shares(shares(*[2] * layers)).axes) == panels


def test_without_units_there_is_nothing_to_draw() -> None:
    with pytest.raises(InputError, match="shares: expected at least one unit"):
        plot_unit_shares(shares(0))
