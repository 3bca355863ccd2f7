"""The amortization gap against Kullback-Leibler divergences that are known."""

from __future__ import annotations

import copy
import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from pyro_vdn.guides import NeuronGuide, without_neurons
from pyro_vdn.models import DeepRegression, Regression
from torch import Tensor

from pyro_vdn.bench.seen_chains import SeenChains
from pyro_vdn.diagnostics import AmortizationGap, amortization_gap
from pyro_vdn.errors import InputError
from pyro_vdn.nn import VariationalNeurons
from pyro_vdn.poutine import clamp, deterministic, dropout, scale_noise
from pyro_vdn.testing import (
    ConjugateNeurons,
    NeuronStack,
    hand_written_guide,
    orthogonal_columns,
    same_state,
)

pytestmark = pytest.mark.usefixtures("double")
QUICK: dict[str, Any] = {"steps": 60, "lr": 0.1, "num_particles": 4, "num_samples": 200}


def conjugate() -> ConjugateNeurons:
    model = ConjugateNeurons(orthogonal_columns(4, 3), torch.randn(4), 0.8)
    model.set_exact_()
    return model


def test_gap_is_the_divergence_from_the_exact_posterior() -> None:
    model = conjugate()
    y = model.simulate(12)
    with torch.no_grad():  # each location is off by half the exact scale
        scale = model.exact_posterior(y).variance.sqrt()
        model.neurons.posterior.loc.bias.add_(0.5 * scale)
    factor = torch.tensor([0.5, 1.0, 1.5])
    wrong = scale_noise(model, factor)
    found = amortization_gap(wrong, NeuronGuide(wrong), y, **QUICK)
    divergence = float((-factor.log() + 0.5 * (factor.square() + 0.25 - 1)).sum())
    assert ((found.gap - divergence).abs() < 4 * found.error).all()
    assert abs(found.mean - divergence) < 4 * found.mean_error
    assert found.mean_error < 0.05 * divergence
    torch.testing.assert_close(found.refined, model.log_evidence(y), rtol=0.0, atol=0.02)
    exact_shift = (-0.5 / factor).expand(12, 3)
    torch.testing.assert_close(found.shift["neurons.z"], exact_shift, rtol=0.0, atol=0.25)
    ratio = (1.0 / factor).expand(12, 3)
    torch.testing.assert_close(found.factor["neurons.z"], ratio, rtol=0.15, atol=0.0)
    assert found.settled
    assert f"gap {found.mean:.4f}" in str(found)


def test_exact_posterior_has_no_gap() -> None:
    model = conjugate()
    found = amortization_gap(model, NeuronGuide(model), model.simulate(5), **{**QUICK, "steps": 10})
    assert found.gap.abs().max() < 1e-8
    assert found.error.max() < 1e-8


def test_exact_chain_has_no_gap_and_a_wrong_one_is_mended() -> None:
    model = SeenChains(1, noise=0.5)
    potential = model.neurons.posterior.potential
    with torch.no_grad():
        potential.loc.weight.fill_(1.0)
        potential.loc.bias.zero_()
        potential.multiply_scale_(torch.full((1,), 0.5), torch.ones(1))
    y = model.exact().sample(4, (5,)).observed
    evidence = model.exact().log_evidence(y)
    found = amortization_gap(model, NeuronGuide(model), y, **{**QUICK, "steps": 10})
    assert found.gap.abs().max() < 1e-6
    torch.testing.assert_close(found.amortized, evidence, rtol=0.0, atol=1e-6)
    with torch.no_grad():
        potential.loc.bias.fill_(0.7)
    mended = amortization_gap(model, NeuronGuide(model), y, **QUICK)
    # A wrong location of every potential shifts the chain alone: refined, it is exact.
    assert ((evidence - mended.refined).abs() < 0.1 * mended.gap).all()
    assert mended.gap.min() > 0.2


def test_rows_are_refined_by_themselves() -> None:
    model = conjugate()
    y = model.simulate(3)
    wrong = scale_noise(model, 0.5)
    few = {**QUICK, "steps": 20}
    alone = amortization_gap(wrong, NeuronGuide(wrong), y[1:2], **few)
    with torch.no_grad():  # as a caller who reports may have it
        together = amortization_gap(wrong, NeuronGuide(wrong), y, **few)
    error = (alone.error[0].square() + together.error[1].square()).sqrt()
    assert abs(alone.gap[0] - together.gap[1]) < 4 * error


def test_stack_gains_and_its_model_stays_as_it_is() -> None:
    model = DeepRegression(3, num_units=(3, 2)).train()
    x, y = torch.randn(4, 3), 2 + torch.randn(4, 1)
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    found = amortization_gap(model, NeuronGuide(model), x, y, **{**QUICK, "steps": 30})
    assert torch.equal(torch.get_rng_state(), state)
    assert same_state(model.state_dict(), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.training
    assert {name: shift.shape for name, shift in found.shift.items()} == {
        "layers.0.z": (4, 3),
        "layers.1.z": (4, 2),
    }
    assert (found.gap > 3 * found.error).all()


def test_held_units_stay_held() -> None:
    model = clamp(scale_noise(conjugate(), 0.5), {"neurons": {0: 0.0}})
    found = amortization_gap(model, NeuronGuide(model), torch.randn(3, 4), **QUICK)
    assert bool((found.factor["neurons.z"][:, 0] == 1).all())
    assert ((found.factor["neurons.z"][:, 1:] - 2).abs() < 0.2).all()


def test_too_few_steps_are_called_so() -> None:
    model = scale_noise(conjugate(), 0.2)
    y = torch.randn(20, 4)
    found = amortization_gap(model, NeuronGuide(model), y, steps=20, lr=0.01, num_samples=50)
    assert not found.settled
    assert "take more steps" in str(found)


def test_mean_error_counts_rows_as_independent() -> None:
    rows = torch.tensor([3.0, 4.0])
    found = AmortizationGap(rows, rows, rows, rows, {}, {}, rows)
    assert found.mean_error == pytest.approx(math.hypot(3, 4) / 2)


# --- refusals ---


class Shared(PyroModule):
    """A level that all rows share."""

    def __init__(self) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(1, 1)

    def forward(self, x: Tensor, y: Tensor) -> None:
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x), dim=-2):
            pyro.sample("y", dist.Normal(level + self.neurons(x), 1.0), obs=y)


def test_refuses_rows_that_share_a_latent_site() -> None:
    model = Shared()
    guide = NeuronGuide(model, others=AutoNormal(without_neurons(model)))
    with pytest.raises(InputError, match=r"rows that share no latent site, got .*'level'"):
        amortization_gap(model, guide, torch.zeros(2, 1), torch.zeros(2, 1))


def test_refuses_what_it_cannot_refine() -> None:
    x, y = torch.zeros(2, 4), torch.zeros(2, 2)
    stack = NeuronStack()
    with pytest.raises(InputError, match="guide: expected one that takes the posteriors"):
        amortization_gap(stack, hand_written_guide(stack), x, y)
    dropped = dropout(stack)
    with pytest.raises(InputError, match=r"site 'layers\.0\.z': expected a normal .* DroppedOut"):
        amortization_gap(dropped, NeuronGuide(dropped), x, y)
    twin = deterministic(stack)
    with pytest.raises(InputError, match="model: expected posteriors that have noise, got points"):
        amortization_gap(twin, NeuronGuide(twin), x, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, r"lr: expected a positive number, got 0\.0"),
        ({"lr": math.nan}, "lr: expected a positive number, got nan"),
        ({"num_samples": 1}, "num_samples: expected at least 2, got 1"),
        ({"steps": 0}, "steps"),
    ],
)
def test_refuses_senseless_numbers(options: Any, message: str) -> None:
    model = Regression(3, num_units=2)
    with pytest.raises(InputError, match=message):
        amortization_gap(model, NeuronGuide(model), torch.zeros(2, 3), torch.zeros(2, 1), **options)
