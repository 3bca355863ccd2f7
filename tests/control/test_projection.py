"""The projection against tables worked by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_vdn.control import Band, Projection, projection_gain
from pyro_vdn.control.controller import Seen
from pyro_vdn.errors import InputError
from pyro_vdn.testing import NeuronStack

Stack = Callable[..., NeuronStack]
See = Callable[..., Seen]
Drive = Callable[..., None]


def band_of(units: int) -> Band:
    """Low 1, high 4 and target 2."""
    return Band(*(torch.full((units,), value) for value in (1.0, 4.0, 2.0)))


@pytest.mark.parametrize(
    ("energy", "gain"),
    [
        (0.0, 32.0),
        (2.0**-12, 32.0),  # 64 wanted
        (2.0**-10, 32.0),  # just within reach
        (0.25, 2.0),
        (1.0, 1.0),
        (2.0, 1.0),
        (4.0, 1.0),
        (16.0, 0.5),
        (2.0**12, 1 / 32),
        (2.0**14, 1 / 32),
    ],
)
def test_projection_gain(energy: float, gain: float) -> None:
    mine = projection_gain(torch.tensor([energy]), band_of(1), largest=32.0)
    torch.testing.assert_close(mine, torch.tensor([gain]), rtol=1e-12, atol=0)


def rows_of(model: NeuronStack, layer: int = 0) -> Tensor:
    weight = dict(model.neuron_layers[layer].posterior.named_parameters())["loc.weight"]
    return weight.detach().clone()


def test_once_an_epoch_energies_are_put_onto_their_band(
    stack: Stack, see: See, drive: Drive
) -> None:
    model = stack(num_layers=2)
    projection = Projection(model, 4, band_of, batches=2)
    before = rows_of(model), rows_of(model, 1)
    still = see("layers.1", energy=[2.0, 1.0, 4.0])
    drive(projection, see(energy=[9.0, 9.0, 9.0]) | still, steps=2)  # too early to count
    drive(projection, see(energy=[0.125, 2.0, 8.0]) | still)
    assert rows_of(model).equal(before[0])
    drive(projection, see(energy=[0.375, 2.0, 24.0]) | still)  # means 0.25, 2 and 16
    gains = torch.tensor([2.0, 1.0, 0.5])
    torch.testing.assert_close(rows_of(model), gains[:, None] * before[0])
    torch.testing.assert_close(rows_of(model, 1), before[1])


def test_each_epoch_is_measured_anew(stack: Stack, see: See, drive: Drive) -> None:
    model = stack()
    projection = Projection(model, 2, band_of, batches=2)
    drive(projection, see(energy=[1e6] * 3), steps=2)
    before = rows_of(model)
    drive(projection, see(energy=[0.25] * 3), steps=2)
    torch.testing.assert_close(rows_of(model), 2.0 * before)


@pytest.mark.parametrize(
    ("every", "batches", "observed"),
    [(1, 8, [1, 2, 3, 4]), (4, 8, [1, 2, 3, 4]), (4, 1, [4]), (2, 1, [2, 4])],
)
def test_steps_that_are_measured(
    every: int, batches: int, observed: list[int], stack: Stack, see: See
) -> None:
    projection, noted = Projection(stack(), every, band_of, batches=batches), []
    for step in range(1, 5):
        projection.observe(see())  # a loop that shows it every step
        count = projection.recall("batches", "layers.0")
        if projection.due:
            noted.append(step)
            assert count is not None
            first = step - (step - 1) % every
            assert count.item() == len([one for one in observed if first <= one <= step])
        projection.act()
    assert noted == observed


def test_several_batches_weigh_the_same(stack: Stack, see: See, drive: Drive) -> None:
    projection = Projection(stack(), 9, band_of, batches=8)
    drive(projection, see(), steps=1)
    for value in (1.0, 2.0, 3.0, 6.0):
        drive(projection, see(energy=[value] * 3, scale=[2 * value] * 3))
    mu2, scale = projection.recall("mu2", "layers.0"), projection.recall("scale", "layers.0")
    assert mu2 is not None
    assert scale is not None
    assert mu2.tolist() == pytest.approx([3.0] * 3)
    assert scale.tolist() == pytest.approx([6.0] * 3)


def test_act_without_observation_moves_nothing(stack: Stack) -> None:
    model = stack()
    before = rows_of(model)
    Projection(model, 1, band_of).act()
    assert rows_of(model).equal(before)


@pytest.mark.parametrize("latent_dim", [1, 3])
def test_energies_lie_on_their_band_afterwards(
    latent_dim: int, stack: Stack, see: See, drive: Drive
) -> None:
    model = stack(latent_dim=latent_dim)
    layer, h = model.neuron_layers[0], torch.randn(32, 3)

    def mu2() -> Tensor:
        with torch.no_grad():
            squares: Tensor = layer.posterior(h).mean.square()
        return squares.mean((0, 2)) if latent_dim > 1 else squares.mean(0)

    before = mu2()
    band = Band(0.5 * before, 2.0 * before, before)
    low = torch.tensor([3.0, 0.1, 1.0])  # the band ends up below, above and around the energies
    moved = Band(*(part * low for part in band))
    drive(Projection(model, 1, {"layers.0": moved}), see(energy=before.tolist()))
    expected = torch.stack([moved.low[0], moved.high[1], before[2]])
    torch.testing.assert_close(mu2(), expected)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"every": 0}, "every: expected a positive integer, got 0"),
        ({"batches": 0}, "batches: expected a positive integer, got 0"),
        ({"largest": 1.0}, "largest: expected a number above 1, got 1.0"),
        ({"band": 0.0}, "target: expected a number above 0, got 0.0"),
    ],
)
def test_bad_settings(settings: dict[str, Any], text: str, stack: Stack) -> None:
    with pytest.raises(InputError, match=f"^{text}"):
        Projection(stack(), **{"every": 10, **settings})
