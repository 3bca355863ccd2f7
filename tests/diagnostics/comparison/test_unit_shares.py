"""Shares of the variance between draws, against closed forms and literal clamping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import DeepRegression, Regression, StateSpace, VariationalGPT
from torch import Tensor

from pyro_vdn.diagnostics import Share, UnitShares, unit_shares
from pyro_vdn.diagnostics.inference._interventions import _Sum
from pyro_vdn.errors import InputError
from pyro_vdn.infer.joint_draws import chunks_of_draws
from pyro_vdn.nn import (
    AutoregressiveNormal,
    Moments,
    NormalPosterior,
    VariationalNeurons,
)
from pyro_vdn.nn.moments import relu_moments
from pyro_vdn.poutine import clamp, deterministic, dropout

pytestmark = pytest.mark.usefixtures("double")

UNITS = 4
Read = Callable[[Tensor], Tensor]


class Net(PyroModule):  # type: ignore[misc]
    """One layer of neurons, read by a function of its units."""

    def __init__(self, read: Read, latent_dim: int = 1) -> None:
        super().__init__()
        posterior = NormalPosterior("input", initial_scale=0.6)
        self.neurons = VariationalNeurons(3, UNITS, latent_dim=latent_dim, posterior=posterior)
        self.read = read

    def forward(self, x: Tensor) -> Any:
        with pyro.plate("data", len(x), dim=-2):
            return pyro.sample("y", dist.Normal(self.read(self.neurons(x)), 0.3))

    def moments(self, x: Tensor) -> Moments:
        q = self.neurons.posterior(x)
        return Moments(q.mean.detach(), q.variance.detach())


WEIGHT = torch.tensor([[1.0, -2.0, 0.5, 0.0], [0.3, 0.0, 1.0, 1.5]], dtype=torch.float64)


def linear(z: Tensor) -> Tensor:
    return z @ WEIGHT.mT


def rectified(z: Tensor) -> Tensor:
    return torch.relu(z) @ WEIGHT.mT


def product(z: Tensor) -> Tensor:
    return z[..., :1] * z[..., 1:2] + 0.5 * z[..., 2:3]


@pytest.mark.parametrize("num_samples", [2, 20])
def test_linear_shares_are_exact_with_any_number_of_draws(num_samples: int) -> None:
    model, x = Net(linear), torch.randn(20, 3)
    found = unit_shares(model, NeuronGuide(model), x, num_samples=num_samples, batch_size=15)
    expected = WEIGHT.square().sum(0) * model.moments(x).variance  # w_i^2 sigma_i^2
    assert found.between == pytest.approx(expected.sum(-1), rel=1e-9)
    layer = found.layers["neurons"]
    assert layer.lost.mT == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert layer.alone.mT == pytest.approx(expected, rel=1e-9, abs=1e-12)
    share = found.lost("neurons")
    assert share.value == pytest.approx(expected.mean(0) / expected.sum(-1).mean())
    assert float(share.value.sum()) == pytest.approx(1.0)
    for whole in (found.layer_lost("neurons"), found.layer_alone("neurons")):
        assert float(whole.value) == pytest.approx(1.0)
        assert float(whole.error) == pytest.approx(0.0, abs=1e-9)


def test_linear_shares_of_several_latent_dimensions_are_exact() -> None:
    model, x = Net(linear, latent_dim=3), torch.randn(20, 3)
    found = unit_shares(model, NeuronGuide(model), x, num_samples=5)
    variance = model.neurons.posterior(x).variance.detach().mean(-1) / 3  # of the pooled mean
    expected = WEIGHT.square().sum(0) * variance
    assert found.between == pytest.approx(expected.sum(-1), rel=1e-9)
    assert found.layers["neurons"].lost.mT == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_one_output_by_itself() -> None:
    model, x = Net(linear), torch.randn(20, 3)
    found = unit_shares(model, NeuronGuide(model), x, num_samples=3, output=1)
    expected = WEIGHT[1].square() * model.moments(x).variance
    assert found.layers["neurons"].lost.mT == pytest.approx(expected, abs=1e-12)


def test_rectified_shares_are_those_of_the_exact_moments() -> None:
    model, x = Net(rectified), torch.randn(150, 3)
    found = unit_shares(model, NeuronGuide(model), x, num_samples=100)
    expected = WEIGHT.square().sum(0) * relu_moments(model.moments(x)).variance
    for values in (found.layers["neurons"].lost, found.layers["neurons"].alone):
        assert values.mean(-1) == pytest.approx(expected.mean(0), rel=0.03, abs=1e-9)
    assert float(found.between.mean()) == pytest.approx(float(expected.sum(-1).mean()), rel=0.02)
    shares = found.lost("neurons")
    assert float(shares.value.sum()) == pytest.approx(1.0, abs=0.02)
    true = expected.mean(0) / expected.sum(-1).mean()
    assert bool(((shares.value - true).abs() < 4 * shares.error + 1e-9).all())


def test_products_are_lost_with_each_factor_and_left_with_none() -> None:
    """`z_0 z_1 + z_2 / 2`: parts of one unit each, and one of two, which is lost twice."""
    model, x = Net(product), torch.randn(150, 3)
    found = unit_shares(model, NeuronGuide(model), x, num_samples=150)
    mean, variance = model.moments(x)
    both = variance[:, 0] * variance[:, 1]
    single = torch.stack(
        [mean[:, 1].square() * variance[:, 0], mean[:, 0].square() * variance[:, 1]]
    )
    third = 0.25 * variance[:, 2]
    lost, alone = found.layers["neurons"].lost.mean(-1), found.layers["neurons"].alone.mean(-1)
    assert alone[:2] == pytest.approx(single.mean(-1), rel=1e-9)
    assert lost[:2] == pytest.approx((single + both).mean(-1), rel=0.04)
    assert lost[2:] == pytest.approx(torch.stack([third.mean(), third.new_zeros(())]), abs=1e-9)
    whole = float((single.sum(0) + both + third).mean())
    assert float(found.between.mean()) == pytest.approx(whole, rel=0.02)
    assert float(found.lost("neurons").value.sum()) == pytest.approx(
        1 + float(both.mean()) / whole, abs=0.02
    )
    assert float(found.alone("neurons").value.sum()) == pytest.approx(
        1 - float(both.mean()) / whole, abs=0.02
    )


def clamped_variance(model: Any, guide: Any, x: Tensor, held: dict[str, Any]) -> float:
    """The variance between draws under a literal `clamp`, with free noise and many draws."""
    with torch.no_grad(), clamp(units=held) if held else torch.no_grad():
        chunks = chunks_of_draws(model, guide, [x], 2000, batch_size=100, site="y")
        means = [chunk.values.outcome["fn"].mean for chunk in chunks]
    assert len(means) == 1
    return float(means[0].var(0).sum(-1).mean())


def test_shares_of_a_stack_are_those_of_clamping() -> None:
    model, x = DeepRegression(3, num_units=(3, 2), initial_scale=0.7), 2 * torch.randn(20, 3)
    with torch.no_grad():
        model.layers[1].posterior.loc.weight.mul_(4)
    guide = NeuronGuide(model)
    found = unit_shares(model, guide, x, num_samples=300)
    whole = clamped_variance(model, guide, x, {})
    assert float(found.between.mean()) == pytest.approx(whole, rel=0.05)
    first, second = "layers.0", "layers.1"
    for path, other in ((first, second), (second, first)):
        lost = 1 - clamped_variance(model, guide, x, {path: "mean"}) / whole
        alone = clamped_variance(model, guide, x, {other: "mean"}) / whole
        assert float(found.layer_lost(path).value) == pytest.approx(lost, abs=0.04)
        assert float(found.layer_alone(path).value) == pytest.approx(alone, abs=0.04)
    unit = int(found.lost(first).value.argmax())
    lost = 1 - clamped_variance(model, guide, x, {first: {unit: "mean"}}) / whole
    others = {at: "mean" for at in range(3) if at != unit}
    alone = clamped_variance(model, guide, x, {first: others, second: "mean"}) / whole
    assert float(found.lost(first).value[unit]) == pytest.approx(lost, abs=0.04)
    assert float(found.alone(first).value[unit]) == pytest.approx(alone, abs=0.04)
    assert lost > 0.05


@pytest.mark.parametrize("steps", ["parallel", "markov"])
def test_steps_of_sequences_add_up(steps: Any) -> None:
    """A linear readout of chains: a unit's share is that of its variance at all steps."""
    model = Chain(steps)
    x = torch.randn(10, 5, 3)
    found = unit_shares(model, NeuronGuide(model), x, num_samples=40)
    expected = (torch.tensor([1.0, 4.0]) * model.variance(x)).sum(1)
    tolerance = 1e-9 if steps == "parallel" else 0.35  # step by step, chance remains between steps
    assert found.layers["neurons"].lost.mT == pytest.approx(expected, rel=tolerance)
    assert float(found.lost("neurons").value.sum()) == pytest.approx(1.0, abs=1e-6)


class Chain(PyroModule):  # type: ignore[misc]
    """Two neurons with memory, of a posterior without, and their sum as outcome of every step."""

    def __init__(self, steps: Any) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(
            3, 2, prior=AutoregressiveNormal(2), posterior=NormalPosterior("input"), steps=steps
        )

    def forward(self, x: Tensor) -> Any:
        with pyro.plate("data", len(x), dim=-3):
            z = self.neurons(x)
            with pyro.plate("steps", x.shape[1], dim=-2):
                loc = z[..., :1] + 2 * z[..., 1:]
                return pyro.sample("y", dist.Normal(loc, 1.0))

    def variance(self, x: Tensor) -> Tensor:
        variance: Tensor = self.neurons.posterior(x).variance.detach()
        return variance


def test_only_units_asked_for_are_measured() -> None:
    model, x = DeepRegression(3, num_units=(3, 2)), torch.randn(10, 3)
    guide = NeuronGuide(model)
    every, some = (
        unit_shares(model, guide, x, units=units, num_samples=8)
        for units in (None, {"layers.0": [2], "layers.1": []})
    )
    assert some.layers["layers.0"].units == (2,)
    assert torch.equal(some.layers["layers.0"].lost[0], every.layers["layers.0"].lost[2])
    assert some.layers["layers.1"].lost.shape == (0, 10)
    assert float(some.layer_lost("layers.1").value) > 0.1
    assert [row["unit"] for row in every.to_rows()] == [0, 1, 2, 0, 1]
    lines = str(some).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["layers.0", "layers.1"]
    assert lines[2].split()[-2] == "2"
    assert lines[3].split()[-1] == "0.000"  # the sum over no units


def test_the_seed_decides_and_nothing_else_is_touched() -> None:
    model, x = Regression(3, num_units=3).train(), torch.randn(5, 3)
    guide, before = NeuronGuide(model), torch.get_rng_state()
    first, again, other = (
        unit_shares(model, guide, x, num_samples=8, seed=seed).layers["neurons"].lost
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training


def test_errors_are_the_spread_of_shares_over_other_rows() -> None:
    whole = 1.0 + torch.rand(500, 40)
    parts = whole * (0.2 + 0.3 * torch.rand(500, 40)) + 0.1 * torch.rand(500, 40)
    found = [Share.of(part.unsqueeze(0), of) for part, of in zip(parts, whole, strict=True)]
    values, errors = (torch.cat([getattr(one, name) for one in found]) for name in Share._fields)
    assert values[0] == pytest.approx(float(parts[0].sum() / whole[0].sum()))
    assert float(values.std() / errors.mean()) == pytest.approx(1.0, abs=0.1)
    assert bool(Share.of(parts[:1, :1], whole[0, :1]).error.isnan().all())


def test_what_chance_adds_between_units_is_taken_out() -> None:
    first, second = torch.randn(2, 30, 5, 1)
    parts = _Sum.nothing(first)
    for one in (first, second):
        parts = parts.plus(_Sum(one, one.var(0).sum(-1)))
    both = first + second
    found = parts.steadied(3 * both, (3 * both).var(0).sum(-1))
    assert found == pytest.approx(9 * (first.var(0) + second.var(0)).squeeze(-1))


def test_classes_and_counts_have_shares_too() -> None:
    model = VariationalGPT(7, block_size=4, num_layers=1, width=8)
    path = "blocks.0.neurons"
    found = unit_shares(
        model,
        NeuronGuide(model),
        torch.randint(7, (3, 4)),
        units={path: [0]},
        num_samples=4,
        site="next_token",
    )
    assert found.between.shape == (3,)
    assert float(found.layer_lost(path).value) == pytest.approx(1.0)
    counts = StateSpace(3, 2, num_units=2, observation="negative_binomial")
    found = unit_shares(counts, NeuronGuide(counts), torch.randn(4, 6, 3), num_samples=30)
    assert float(found.lost("neurons").value.sum()) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("paths", [("neurons",), ()])
def test_layers_are_measured_without_their_units(paths: tuple[str, ...]) -> None:
    net, x = Net(linear), torch.randn(5, 3)
    found = unit_shares(net, NeuronGuide(net), x, units=dict.fromkeys(paths, ()), num_samples=30)
    assert found.to_rows() == []
    assert len(str(found).splitlines()) == 2 + len(paths)
    for path in paths:
        assert found.lost(path).value.shape == found.alone(path).error.shape == (0,)
        for share in (found.layer_lost(path), found.layer_alone(path)):
            assert float(share.value) == pytest.approx(1.0)


def test_the_twin_has_nothing_to_share() -> None:
    model = deterministic(Regression(3, num_units=2))
    found = unit_shares(model, NeuronGuide(model), torch.randn(4, 3), num_samples=4)
    assert found.between == pytest.approx(torch.zeros(4), abs=1e-20)
    assert isinstance(found, UnitShares)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 1}, "num_samples: expected at least 2, got 1"),
        ({"units": {"nobody": [0]}}, r"units: expected paths of layers, of \['neurons'\]"),
        ({"units": {"neurons": [9]}}, r"units\['neurons'\]: expected unit indices in 0 to 1"),
        ({"output": 3}, "output: expected one of 1 outputs"),
        ({"site": "z"}, "site: expected one of"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    model = Regression(3, num_units=2)
    with pytest.raises(InputError, match=message):
        unit_shares(model, NeuronGuide(model), torch.zeros(2, 3), **options)


def test_posteriors_that_are_not_normal_are_refused() -> None:
    model = dropout(Regression(3, num_units=2), p=0.3)
    with pytest.raises(InputError, match=r"posterior of layer 'neurons': expected a normal one"):
        unit_shares(model, NeuronGuide(model), torch.zeros(2, 3))


def test_a_guide_without_neurons_is_refused() -> None:
    model = Regression(3, num_units=2)
    with pytest.raises(InputError, match="guide: expected one that takes the posteriors"):
        unit_shares(model, lambda x: None, torch.zeros(2, 3))
