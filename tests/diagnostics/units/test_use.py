from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.nn import PyroModule, PyroParam
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import DeepRegression
from torch import Tensor

from pyro_vdn.diagnostics import downstream_use
from pyro_vdn.errors import InputError
from pyro_vdn.infer import log_density
from pyro_vdn.nn import (
    LearnedNormal,
    LinearReadout,
    NormalLikelihood,
    NormalPosterior,
    OutputScale,
    VariationalNeurons,
)
from pyro_vdn.poutine import Held, clamp, record

FEATURES, UNITS = 3, 4


class Linear(PyroModule):  # type: ignore[misc]
    """Neurons under a learned prior, read linearly into a normal."""

    def __init__(self, outputs: int = 1, *, offers: bool = True) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(
            FEATURES, UNITS, prior=LearnedNormal(), posterior=NormalPosterior(initial_scale=0.3)
        )
        self.readout = LinearReadout(UNITS, outputs)
        self.likelihood = NormalLikelihood(OutputScale(outputs, initial_scale=0.7))
        self.offers = offers
        with torch.no_grad():
            self.neurons.prior.loc.copy_(torch.tensor([0.0, 1.0, -0.5, 0.2]))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        with pyro.plate("data", len(x), dim=-2):
            z = self.neurons(x)
            offer = self.readout.offer(z, self.likelihood) if self.offers else {}
            outcome = self.likelihood(self.readout(z))
            return pyro.sample("y", outcome, obs=y, infer=offer)


@pytest.fixture
def data(double: None) -> tuple[Tensor, Tensor]:
    return torch.randn(60, FEATURES), torch.randn(60, 1)


def density_by_hand(model: Linear, x: Tensor, y: Tensor, lesion: int | None) -> Tensor:
    """Return log N(y; w mean + b, s^2 + w^2 variance), the lesion's moments its prior's."""
    with torch.no_grad():
        q, p = model.neurons.posterior(x), model.neurons.prior(x)
        mean, variance = q.loc.clone(), q.scale.square().expand(q.loc.shape).clone()
        if lesion is not None:
            mean[:, lesion] = p.loc[lesion]
            variance[:, lesion] = p.scale[lesion] ** 2
        w, b = model.readout.linear.weight[0], model.readout.linear.bias
        scale = (model.likelihood.scale(None)[0] ** 2 + variance @ w.square()).sqrt()
        return dist.Normal(mean @ w + b, scale).log_prob(y[:, 0])


def falls_by_hand(model: Linear, x: Tensor, y: Tensor) -> np.ndarray[Any, Any]:
    base = density_by_hand(model, x, y, None)
    return np.array([(base - density_by_hand(model, x, y, i)).numpy() for i in range(UNITS)])


def test_use_in_closed_form_equals_the_hand_computation(data: Any) -> None:
    model = Linear()
    used = downstream_use(model, NeuronGuide(model), data)["neurons"]
    falls = falls_by_hand(model, *data)
    assert np.abs(falls).min() > 1e-6
    np.testing.assert_allclose(used.mean, falls.mean(1))
    np.testing.assert_allclose(used.standard_error, falls.std(1, ddof=1) / 60**0.5)
    assert used.rows == 60


def test_use_by_draws_approaches_the_closed_form(data: Any) -> None:
    model = Linear(offers=False)
    used = downstream_use(model, NeuronGuide(model), data, num_samples=4000)["neurons"]
    expected = falls_by_hand(model, *data).mean(1)
    np.testing.assert_allclose(used.mean, expected, atol=0.01)
    assert np.abs(expected).max() > 0.05


@pytest.mark.parametrize(("most", "at"), [(10, range(0, 60, 6)), (7, [0, 8, 17, 25, 34, 42, 51])])
def test_rows_are_evenly_spread_over_the_batches(most: int, at: Any, data: Any) -> None:
    model, rows = Linear(), list(at)
    batches = [tuple(value[start : start + 13] for value in data) for start in range(0, 60, 13)]
    used = downstream_use(model, NeuronGuide(model), batches, max_rows=most)["neurons"]
    falls = falls_by_hand(model, *data)[:, rows]
    np.testing.assert_allclose(used.mean, falls.mean(1))
    assert used.rows == most


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("offers", [True, False])
def test_it_is_an_intervention_by_clamp(outputs: int, offers: bool, data: Any) -> None:
    model, y = Linear(outputs, offers=offers), torch.randn(60, outputs)
    guide = NeuronGuide(model)
    used = downstream_use(model, guide, (data[0], y), num_samples=9, seed=3)["neurons"]
    joint = []
    for effect in ({2: "prior"}, {2: "mean"}):
        torch.manual_seed(3)
        with clamp(units={"neurons": effect}):
            joint.append(log_density(model, guide, data[0], y, num_samples=9, batch_size=256)[1])
    torch.manual_seed(3)
    base = log_density(model, guide, data[0], y, num_samples=9, batch_size=256)[1]
    if offers:
        assert used.mean[2] == pytest.approx(float((base - joint[0]).mean()))
    assert used.mean[2] != pytest.approx(float((base - joint[1]).mean()))


@pytest.mark.parametrize("batch_size", [7, 256])
def test_a_unit_that_nothing_reads_has_no_use_at_all(batch_size: int, data: Any) -> None:
    model = DeepRegression(FEATURES, num_units=(4, 3))
    with torch.no_grad():
        model.layers[1].posterior.loc.weight[:, 1] = 0.0
        model.readout.linear.weight[:, 2] = 0.0
    used = downstream_use(model, NeuronGuide(model), data, num_samples=5, batch_size=batch_size)
    below, above = used["layers.0"], used["layers.1"]
    assert (below.mean[1], below.standard_error[1]) == (0.0, 0.0)
    assert (above.mean[2], above.standard_error[2]) == (0.0, 0.0)
    assert (below.mean[[0, 2, 3]] != 0).all()


def test_common_noise_leaves_little_error(data: Any) -> None:
    """With independent noise, 60 rows of 8 draws could not see a use this small."""
    model = Linear(offers=False)
    with torch.no_grad():
        model.readout.linear.weight[0, 3] *= 1e-3
    used = downstream_use(model, NeuronGuide(model), data, num_samples=8)["neurons"]
    assert used.standard_error[3] < 1e-2 * used.standard_error[:3].min()


def test_layers_can_be_chosen(data: Any) -> None:
    model = DeepRegression(FEATURES, num_units=(2, 3))
    guide = NeuronGuide(model)
    used = downstream_use(model, guide, data, layers=["layers.1"], num_samples=3)
    assert list(used) == ["layers.1"]
    with pytest.raises(InputError, match=r"layers: .* of \['layers.0', 'layers.1'\], got 'z'"):
        downstream_use(model, guide, data, layers=["z"])


def test_the_seed_decides_and_the_caller_keeps_his_own(data: Any) -> None:
    model = Linear(offers=False)
    before = torch.get_rng_state()
    one, two, other = (
        downstream_use(model, NeuronGuide(model), data, num_samples=4, seed=seed)["neurons"].mean
        for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(one, two)
    assert (one != other).all()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_rows": 0}, "max_rows: expected a positive integer"),
        ({"num_samples": 0}, "num_samples: expected a positive integer"),
        ({"site": "target"}, "site: .* got 'target'"),
    ],
)
def test_bad_options_are_refused(options: Any, text: str, data: Any) -> None:
    model = Linear()
    with pytest.raises(InputError, match=text):
        downstream_use(model, NeuronGuide(model), data, **options)


class Handwritten(PyroModule):  # type: ignore[misc]
    """A guide that does not take the offered posterior."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = PyroParam(torch.tensor(0.5), constraint=constraints.positive)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x), dim=-2), pyro.plate("neurons.units", UNITS, dim=-1):
            pyro.sample("neurons.z", dist.Normal(torch.zeros(len(x), UNITS), self.scale))


def test_a_guide_of_its_own_is_refused(data: Any) -> None:
    with pytest.raises(InputError, match=r"guide: .*posteriors that neurons offer.*NeuronGuide"):
        downstream_use(Linear(), Handwritten(), data)


# --- the noise of held units ---


@pytest.mark.parametrize("shape", [(), (5,)])
def test_free_units_keep_their_noise_when_others_are_held(shape: Any, double: None) -> None:
    free, prior = dist.Normal(torch.zeros(4), 1.0), dist.Normal(torch.full((4,), 50.0), 1.0)
    mask = torch.tensor([False, True, False, False])
    torch.manual_seed(0)
    plain = free.rsample(shape)
    torch.manual_seed(0)
    held = Held(free, mask, prior).rsample(shape)
    torch.testing.assert_close(held[..., [0, 2, 3]], plain[..., [0, 2, 3]], rtol=0, atol=0)
    assert (held[..., 1] > 40).all()


def test_recorded_kl_of_a_lesioned_unit_is_zero(data: Any) -> None:
    model = Linear()
    with record() as seen, clamp(units={"neurons": {1: "prior"}}):
        NeuronGuide(model)(data[0])
    assert seen["neurons"].kl.mean[1] == 0
    assert (seen["neurons"].kl.mean[[0, 2, 3]] > 0).all()
