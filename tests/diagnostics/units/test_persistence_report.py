"""How long units remember, measured over data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.guides.markov import StructuredPosterior
from pyro_vdn.models import Regression
from torch import nn

from pyro_vdn.diagnostics import PersistenceReport, persistence_report, unit_statistics
from pyro_vdn.errors import InputError
from pyro_vdn.nn import AutoregressiveNormal, VariationalNeurons
from pyro_vdn.testing.sequences import TrackingModel, slow_signal

pytestmark = pytest.mark.usefixtures("double")

PHI = torch.tensor([0.5, 0.9, -0.3])


def of_model(model: Any, *data: Any, **kwargs: Any) -> PersistenceReport:
    return persistence_report(model, NeuronGuide(model), data[0], **kwargs)


@pytest.mark.parametrize("steps", ["parallel", "markov"])
def test_what_is_known_of_the_prior(steps: Any) -> None:
    scale = torch.tensor([0.3, 0.2, 1.0])
    model = TrackingModel(PHI, scale, steps=steps)
    found = of_model(model, slow_signal(6, 8), step=0.25, unit="h")["neurons"]
    assert found.phi[:, 0] == pytest.approx([0.5, 0.9, -0.3])
    assert found.innovation_scale == pytest.approx([0.3, 0.2, 1.0])
    assert found.half_life == pytest.approx([0.25, 1.644703, 0.143929], rel=1e-5)
    assert found.prior_carried == pytest.approx([0.25, 0.81, 0.09])
    assert (found.step, found.unit, found.steps) == (0.25, "h", 8)


def test_what_the_posterior_carries_is_what_the_statistics_say() -> None:
    model, data = TrackingModel(PHI, posterior=StructuredPosterior()), slow_signal(6, 8)
    found = of_model(model, data)["neurons"]
    measured = unit_statistics(model, NeuronGuide(model), data, use=False)["neurons"]
    assert measured.carried is not None
    assert measured.renewal is not None
    assert found.posterior_carried.tolist() == measured.carried.tolist()
    assert found.renewal == pytest.approx(7 * (1 - measured.carried))


def test_a_posterior_that_is_the_prior_carries_what_the_prior_does() -> None:
    model = TrackingModel(PHI, posterior=StructuredPosterior())
    potential = model.neurons.posterior.potential
    with torch.no_grad():
        potential.loc.weight.zero_()
        potential.loc.bias.zero_()
        for value in potential.raw_scale.parameters():
            value.fill_(1e3)
    found = of_model(model, slow_signal(4, 12))["neurons"]
    assert found.posterior_carried == pytest.approx(found.prior_carried, abs=1e-5)
    assert found.renewal == pytest.approx(11 * (1 - found.prior_carried), abs=1e-3)


def test_a_location_that_follows_its_own_way_carries_little() -> None:
    model, (x, _) = TrackingModel(torch.full((1,), 0.9)), slow_signal(6, 10)
    with torch.no_grad():
        model.neurons.posterior.loc.weight.fill_(1.0)
        for value in model.neurons.posterior.raw_scale.parameters():
            value.fill_(-20.0)
    found = of_model(model, (x,))["neurons"]
    m = x[..., 0] + model.neurons.posterior.loc.bias.detach()
    new = (m[:, 1:] - 0.9 * m[:, :-1]).square().mean() / m.square().mean()
    assert found.posterior_carried == pytest.approx([1 - new.item()], rel=1e-3)


@pytest.mark.parametrize("steps", ["parallel", "markov"])
def test_order_two(steps: Any) -> None:
    prior = AutoregressiveNormal(2, phi=torch.tensor([0.6, 0.27]), scale=0.4, order=2)
    model = TrackingModel(torch.zeros(2), prior=prior, steps=steps)
    found = of_model(model, slow_signal(4, 6))["neurons"]
    assert found.phi[1] == pytest.approx([0.6, 0.27])
    assert found.innovation_scale == pytest.approx([0.4, 0.4])
    assert found.half_life == pytest.approx([6.578813, 6.578813], rel=1e-5)


def test_latent_coefficients_are_averaged_over_batches() -> None:
    prior = AutoregressiveNormal(2, phi=dist.Uniform(0.2, 0.8), scale=dist.LogNormal(-1.0, 0.1))
    layer = VariationalNeurons(1, 2, prior=prior)
    batches = [(torch.randn(2, 4, 1),) for _ in range(5)]
    draws = []

    def noting(x: torch.Tensor) -> Any:
        trace = pyro.poutine.trace(layer).get_trace(x)
        draws.append(trace.nodes["prior.phi"]["value"])

    found = persistence_report(noting, NeuronGuide(noting), batches)[""]
    assert len({draw[0].item() for draw in draws}) == 5
    assert found.phi[:, 0] == pytest.approx(torch.stack(draws).mean(0).tolist())


class Mixed(nn.Module):
    """A layer without memory below one with it."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = VariationalNeurons(1, 3)
        self.slow = VariationalNeurons(3, 2, prior=AutoregressiveNormal(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with pyro.plate("rows", len(x), dim=-3):
            with pyro.plate("time", x.shape[-2], dim=-2):
                z = self.plain(x)
            out: torch.Tensor = self.slow(z)
        return out


def test_layers_without_memory_are_left_out() -> None:
    model = Mixed()
    found = of_model(model, torch.randn(4, 5, 1))
    assert list(found.layers) == ["slow"]
    statistics = unit_statistics(model, NeuronGuide(model), torch.randn(4, 5, 1), use=False)
    assert statistics["plain"].carried is statistics["plain"].renewal is None
    assert "carried" not in statistics["plain"].to_arrays()
    assert statistics["slow"].to_arrays()["renewal"].shape == (2,)


def test_views() -> None:
    prior = AutoregressiveNormal(2, phi=torch.tensor([0.6, 0.27]), order=2)
    x = torch.randn(4, 6, 1)
    one = of_model(TrackingModel(PHI), x, unit="h", step=0.5)["neurons"]
    two = of_model(TrackingModel(PHI[:2], prior=prior), x, unit="h", step=0.5)["neurons"]
    report = PersistenceReport({"a": one, "b": two})
    assert [(row["layer"], row["unit"]) for row in report.to_rows()][2:4] == [("a", 2), ("b", 0)]
    assert report.to_rows()[0]["time_unit"] == "h"
    data = report.to_xarray()
    assert data["half_life"].sel(unit="a[0]").item() == pytest.approx(0.5)
    assert data["phi_2"].sel(unit="b[1]").item() == pytest.approx(0.27)
    assert np.isnan(data["phi_2"].sel(unit="a[1]").item())
    assert data["half_life"].attrs["units"] == data.attrs["time_unit"] == "h"
    assert data.groupby("layer").mean()["half_life"].sizes == {"layer": 2}


def test_the_table_is_in_the_order_of_half_lives_and_no_longer_for_many_units() -> None:
    x = torch.randn(2, 4, 1)
    few = str(of_model(TrackingModel(PHI), x, step=0.25, unit="h")).splitlines()
    assert few[0] == "neurons: 3 units by half-life, in h; a step is 0.25 h"
    assert [line.split()[0] for line in few[2:]] == ["2", "0", "1"]
    many = str(of_model(TrackingModel(torch.linspace(0.1, 0.9, 300)), x)).splitlines()
    assert many[0] == "neurons: 12 of 300 units by half-life, in steps"
    assert len(many) == 14
    assert many[2].split()[0] == "0"
    assert many[-1].split()[0] == "299"
    assert max(map(len, [*few, *many])) <= 96


def test_bad_input_is_refused() -> None:
    plain = Regression(3)
    with pytest.raises(InputError, match=r"model: expected a layer with memory, .* got layers"):
        of_model(plain, torch.randn(4, 3))
    with pytest.raises(
        InputError, match=r"sequences of more than 1 steps, as layer 'neurons'.*got 1"
    ):
        of_model(TrackingModel(PHI), torch.randn(4, 1, 1))
    prior = AutoregressiveNormal(2, phi=torch.tensor([0.6, 0.27]), order=2)
    with pytest.raises(InputError, match=r"sequences of more than 2 steps.*got 2"):
        of_model(TrackingModel(PHI[:2], prior=prior), torch.randn(4, 2, 1))
    with pytest.raises(InputError, match="step: expected a positive length"):
        of_model(TrackingModel(PHI), torch.randn(4, 3, 1), step=0.0)
