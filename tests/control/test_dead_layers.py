"""A dead layer under a compensated rescaling: nothing grows without bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyro_vdn.control import Controller, Homeostat, Projection
from pyro_vdn.control.controller import Seen
from pyro_vdn.nn import LearnedNormal, NormalPosterior, VariationalNeurons
from pyro_vdn.poutine import LayerRecord

Drive = Callable[..., None]

RESCALERS: dict[str, Callable[..., Controller]] = {
    "Homeostat": lambda layers, **more: Homeostat(layers, 0.1, every=1, warmup=0, **more),
    "Projection": lambda layers, **more: Projection(layers, 1, 0.1, **more),
}
ACTS = 40


def dead_layer(scale: Any, prior_scale: float) -> VariationalNeurons:
    """A layer that tells nothing: locations of about 1e-6, scales of 0.8 times the prior's."""
    prior = LearnedNormal(initial_scale=prior_scale)
    posterior = NormalPosterior(scale, rank=2, initial_scale=0.8 * prior_scale)
    layer = VariationalNeurons(4, 3, prior=prior, posterior=posterior).double()
    with torch.no_grad():
        for value in layer.posterior.loc.parameters():
            value.mul_(1e-6)
    return layer


def look(layer: VariationalNeurons, h: Tensor) -> Seen:
    """What `record` sees of a batch."""
    with torch.no_grad():
        posterior, prior = layer.posterior(h), layer.prior(h)
    scale, prior_scale = (one.variance.sqrt().expand(len(h), 3) for one in (posterior, prior))
    seen = LayerRecord()
    seen.update(posterior.mean, scale, torch.zeros(len(h), 3), prior_scale)
    return {"a": seen}


@pytest.mark.parametrize("prior_scale", [1.0, 3.0])
@pytest.mark.parametrize("scale", ["unit", "input", "low_rank"])
@pytest.mark.parametrize("name", RESCALERS)
def test_its_scales_go_up_to_the_prior_and_no_further(
    name: str, scale: str, prior_scale: float, drive: Drive
) -> None:
    layer, reader, h = dead_layer(scale, prior_scale), nn.Linear(3, 2).double(), torch.randn(32, 4)
    controller = RESCALERS[name]({"a": layer}, compensate={"a": reader})
    before = reader.weight.detach().clone()
    for _ in range(ACTS):
        drive(controller, look(layer, h))
        mean = look(layer, h)["a"].scale.mean
        assert (mean < prior_scale * (1 + 1e-3)).all()
    torch.testing.assert_close(mean, torch.full((3,), prior_scale), rtol=1e-3, atol=0)
    torch.testing.assert_close(reader.weight.detach(), 0.8 * before, rtol=5e-3, atol=0)


@pytest.mark.parametrize("name", RESCALERS)
def test_without_compensation_its_locations_are_lifted(name: str, drive: Drive) -> None:
    layer, h = dead_layer("unit", 1.0), torch.randn(32, 4)
    controller = RESCALERS[name]({"a": layer})
    for _ in range(ACTS):
        drive(controller, look(layer, h))
    seen = look(layer, h)["a"]
    assert (seen.energy.mean > 1e-3).all()
    torch.testing.assert_close(seen.scale.mean, torch.full((3,), 0.8))
