"""Units that their memory has frozen: provoked, told from slow ones, named by the report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.guides.markov import FilteringPosterior, StructuredPosterior

from pyro_vdn.diagnostics import (
    CollapseMode,
    CollapseThresholds,
    collapse_report,
    plot_collapse,
    plot_contraction,
    plot_unit_activity,
    unit_statistics,
)
from pyro_vdn.infer import SVI, LocalELBO
from pyro_vdn.nn import NormalPosterior
from pyro_vdn.testing.sequences import TrackingModel, slow_signal

#: Stiff, slow, slow, quick, stiff: what is pinned is phi near 1 and next to no innovation.
PHI = torch.tensor([0.9999, 0.98, 0.9, 0.1, 0.9999])
SCALE = torch.tensor([0.0011, 0.2, 0.43, 0.99, 0.0011])


def statistics(model: Any, data: Any, **kwargs: Any) -> Any:
    return unit_statistics(model, NeuronGuide(model), data, **{"use": False, **kwargs})


def trained(model: Any, data: Any, steps: int) -> Any:
    svi = SVI(model, NeuronGuide(model), pyro.optim.Adam({"lr": 3e-2}), LocalELBO())
    for _ in range(steps):
        svi.step(*data)
    return model


def following(model: Any) -> Any:
    """Let every unit's potential follow the input."""
    loc = getattr(model.neurons.posterior, "potential", model.neurons.posterior).loc
    with torch.no_grad():
        loc.weight.fill_(1.0)
        loc.bias.zero_()
    return model


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("make_posterior", [StructuredPosterior, FilteringPosterior])
def test_the_report_on_a_trained_model_names_exactly_the_frozen_units(make_posterior: Any) -> None:
    data = slow_signal(16, 40)
    model = trained(TrackingModel(PHI, SCALE, posterior=make_posterior()), data, 60)
    found = statistics(model, data)
    report = collapse_report(found)
    assert report.units("frozen in time") == {"neurons": [0, 4]}
    assert "renews 0.0" in report.calls[0].evidence
    assert "of its energy over a sequence, under 0.1" in report.calls[0].evidence
    assert "PersistenceShare" in str(report)
    assert found["neurons"].renewal.max() > 1
    for figure in (plot_collapse(report), plot_contraction(found)):
        assert figure.axes
    assert plot_unit_activity(found["neurons"]).axes


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("time", [5, 20, 200])
def test_slow_units_that_follow_a_slow_signal_live(time: int) -> None:
    data = slow_signal(16, time)
    model = following(TrackingModel(PHI, SCALE, posterior=StructuredPosterior()))
    calls = collapse_report(statistics(model, data)).calls
    frozen = [CollapseMode.FROZEN_IN_TIME in call.symptoms for call in calls]
    assert frozen == [True, False, False, False, True]
    assert calls[1].mode is CollapseMode.LIVING


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("make_posterior", [StructuredPosterior, NormalPosterior])
def test_a_loop_has_the_same_frozen_units(make_posterior: Any) -> None:
    data = slow_signal(8, 20)
    found = []
    for steps in ("parallel", "markov"):
        torch.manual_seed(2)
        model = TrackingModel(PHI, SCALE, posterior=make_posterior(), steps=steps)  # type: ignore[arg-type]
        found.append(statistics(following(model), data)["neurons"])
    assert found[1].renewal == pytest.approx(found[0].renewal)
    assert found[1].carried == pytest.approx(found[0].carried)
    assert found[1].contraction == pytest.approx(found[0].contraction)


@pytest.mark.usefixtures("double")
def test_following_the_input_against_a_stiff_prior_is_not_frozen() -> None:
    model = following(TrackingModel(PHI, SCALE))  # a posterior that the prior cannot hold
    found = statistics(model, slow_signal(16, 40))
    assert (found["neurons"].renewal > 1).all()


@pytest.mark.usefixtures("double")
def test_it_is_of_sequences_and_not_of_steps() -> None:
    """The same signal sampled four times as finely: four times the steps, a fourth new in each."""
    renewals = []
    for time, phi in ((25, 0.96), (100, 0.96**0.25)):
        torch.manual_seed(0)
        model = TrackingModel(torch.tensor([phi]), posterior=StructuredPosterior())
        data = slow_signal(200, time, phi=phi)
        renewals.append(float(statistics(following(model), data)["neurons"].renewal[0]))
    assert renewals[1] == pytest.approx(renewals[0], rel=0.35)


@pytest.mark.usefixtures("double")
def test_batches_add_up() -> None:
    x, y = slow_signal(12, 10)
    model = following(TrackingModel(PHI, SCALE, posterior=StructuredPosterior()))
    whole = statistics(model, (x, y))["neurons"]
    parts = statistics(model, [(x[:5], y[:5]), (x[5:], y[5:])])["neurons"]
    assert parts.renewal == pytest.approx(whole.renewal)
    assert (parts.rows, whole.rows) == (120, 120)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("steps", ["parallel", "markov"])
def test_use_is_measured_beside_it(steps: Any) -> None:
    data = slow_signal(8, 10)
    model = following(TrackingModel(PHI, SCALE, posterior=StructuredPosterior(), steps=steps))
    with torch.no_grad():
        model.readout.weight.copy_(torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0]]))
    found = statistics(model, data, use=True, num_samples=8)["neurons"]
    assert found.use[1] > 0.5
    assert found.use[[0, 2, 3, 4]] == pytest.approx(np.zeros(4), abs=1e-9)
    report = collapse_report(found)
    assert report.units("frozen in time") == {"": [0, 4]}
    assert report.units("ignored") == {"": [2, 3]}


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ({"renewal": 0.1}, "living"),
        ({"renewal": 0.1 - 1e-9}, "frozen in time"),
        ({"renewal": 0.01, "kl": 1e-3}, "frozen in time"),
        ({"renewal": 0.01, "scale": 0.01, "kl": 4.0}, "frozen in time"),
        ({"renewal": 0.01, "scale": 3.1}, "variance blow-up"),
        ({"renewal": 5.0, "kl": 1e-3}, "posterior collapse"),
        ({}, "living"),
    ],
)
def test_boundaries_and_precedence(given: dict[str, Any], mode: str, table: Any) -> None:
    assert collapse_report(table(**given)).calls[0].mode.value == mode


def test_the_threshold_can_be_moved(table: Any) -> None:
    report = collapse_report(table(renewal=0.05), thresholds=CollapseThresholds(renewal=0.01))
    assert report.calls[0].mode is CollapseMode.LIVING
    assert report.to_xarray().attrs["threshold_renewal"] == 0.01


def test_layers_without_memory_are_never_frozen(table: Any) -> None:
    report = collapse_report({"a": table(), "b": table(renewal=[0.01, 1.0])})
    assert report.units("frozen in time") == {"b": [0]}
    data = report.to_xarray()["renewal"]
    assert np.isnan(data.sel(unit="a[0]"))
    assert data.sel(unit="b[0]").item() == 0.01
