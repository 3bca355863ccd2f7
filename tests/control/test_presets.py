"""The three published regimes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pyro
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import Regression

from pyro_vdn.control import (
    BandCalibration,
    Composed,
    EnergyBand,
    Homeostat,
    Projection,
    ScaleGuard,
    compose,
    heterogeneous_band,
    hinge,
    homeostatic,
    homogeneous_band,
    neuron_layers,
    out_of_band,
    projection_off,
    projection_on,
    watch,
)
from pyro_vdn.control.controller import Seen
from pyro_vdn.infer import SVI, LocalELBO
from pyro_vdn.testing import NeuronStack

Stack = Callable[..., NeuronStack]
PRESETS: dict[str, Callable[..., Composed]] = {
    "off": projection_off,
    "on": partial(projection_on, steps_per_epoch=5),
    "homeo": homeostatic,
}


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("off", [EnergyBand, ScaleGuard]),
        ("on", [EnergyBand, Projection, ScaleGuard]),
        ("homeo", [EnergyBand, Homeostat, ScaleGuard]),
    ],
)
def test_parts(name: str, kinds: list[type], stack: Stack) -> None:
    parts = PRESETS[name](stack(num_layers=2)).controllers
    assert [type(part) for part in parts] == kinds
    assert all(list(part.layers) == ["layers.0", "layers.1"] for part in parts)


@pytest.mark.parametrize("name", ["on", "homeo"])
def test_penalty_and_rescaling_aim_at_one_band(name: str, stack: Stack) -> None:
    model = stack()
    band = partial(heterogeneous_band, target=0.2, seed=1)
    penalty, rescaler, _ = PRESETS[name](model, band=band).controllers
    assert isinstance(penalty, EnergyBand)
    assert isinstance(rescaler, (Homeostat, Projection))
    shared = penalty.bands["layers.0"], rescaler.bands["layers.0"]
    assert all(mine is theirs for mine, theirs in zip(*shared, strict=True))
    torch.testing.assert_close(shared[0].target, band(3).target.double())
    calibration = BandCalibration(model, penalty, every=1)
    before = shared[1].low.clone()
    calibration.memory["mu2"] = {"layers.0": torch.full((3,), 100.0)}
    calibration.act()
    torch.testing.assert_close(shared[1].low, 1.1 * before)


@pytest.mark.parametrize("name", ["on", "homeo"])
def test_compensation_is_handed_on(name: str, stack: Stack) -> None:
    model = stack()
    rescaler = PRESETS[name](model, compensate={"layers.0": model.readout}).controllers[1]
    assert isinstance(rescaler, (Homeostat, Projection))
    assert rescaler.rescaling.compensates("layers.0")
    plain = PRESETS[name](model).controllers[1]
    assert isinstance(plain, (Homeostat, Projection))
    assert not plain.rescaling.compensates("layers.0")


def test_the_projection_comes_once_an_epoch(
    stack: Stack, see: Callable[..., Seen], drive: Callable[..., None]
) -> None:
    model = stack()
    on = projection_on(model, 4, band=1.0)
    rows = model.neuron_layers[0].posterior.loc.weight
    before = rows.detach().clone()
    drive(on, see(energy=[100.0] * 3), steps=3)
    assert rows.equal(before)
    drive(on, see(energy=[100.0] * 3))
    torch.testing.assert_close(rows.detach(), before * (1.6 / 100) ** 0.5)


def train(regime: Callable[..., Composed] | None) -> torch.Tensor:
    """Energies after training a layer that starts far too loud."""
    pyro.set_rng_seed(0)
    model = Regression(3, num_units=6)
    with torch.no_grad():
        model.neurons.posterior.loc.weight.mul_(8.0)
    living = projection_off(model, band=0.1) if regime is None else regime(model, band=0.1)
    controlled = model if regime is None else living.wrap(model)
    x = torch.randn(64, 3)
    y = x[:, :1] + 0.1 * torch.randn(64, 1)
    loss: Any = LocalELBO()
    svi = SVI(controlled, NeuronGuide(controlled), pyro.optim.Adam({"lr": 1e-2}), loss)
    for _ in range(300):
        with nullcontext() if regime is None else watch(living):
            svi.step(x, y)
    with torch.no_grad():
        posterior = neuron_layers(model)["neurons"].posterior(model.encoder(x))
    mu2: torch.Tensor = posterior.mean.square().mean(0)
    return mu2


@pytest.mark.parametrize("name", ["on", "homeo"])
def test_regimes_that_rescale_hold_energies_in_their_band(name: str) -> None:
    mu2 = train(PRESETS[name])
    assert mu2.max() < 1.5 * 0.16
    assert mu2.min() > 0.08 / 1.5


def test_a_penalty_alone_only_draws_them_there() -> None:
    band = homogeneous_band(6, 0.1)
    free, penalised = train(None), train(PRESETS["off"])
    assert free.min() < 0.01 < 0.08 < penalised.min()
    assert hinge(penalised, band).sum() < 0.7 * hinge(free, band).sum()
    assert out_of_band(penalised, band).any()


@pytest.mark.parametrize("name", PRESETS)
def test_regimes_guard_scales(
    name: str, see: Callable[..., Seen], drive: Callable[..., None]
) -> None:
    model = Regression(3, num_units=3, initial_scale=0.05)
    drive(PRESETS[name](model), see("neurons", scale=[0.05] * 3), steps=10)
    with torch.no_grad():
        scale = model.neurons.posterior(torch.zeros(1, 3)).variance.sqrt()
    torch.testing.assert_close(scale, torch.full((1, 3), 0.15))


def test_presets_compose_further(stack: Stack) -> None:
    model = stack()
    regime = homeostatic(model)
    band = regime.controllers[0]
    assert isinstance(band, EnergyBand)
    more = compose(regime, BandCalibration(model, band))
    assert len(more.controllers) == 4
