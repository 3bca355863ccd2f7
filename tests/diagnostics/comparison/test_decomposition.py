"""Parts of predictive uncertainty, against closed forms and sums by hand."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import Regression, StateSpace, VariationalGPT
from scipy import integrate, stats
from torch import Tensor, nn

from pyro_vdn.diagnostics import Decomposition, decompose_variance
from pyro_vdn.diagnostics.comparison import _spread
from pyro_vdn.diagnostics.comparison._spread import spread_of
from pyro_vdn.errors import InputError
from pyro_vdn.infer import token_draws
from pyro_vdn.nn import (
    LinearReadout,
    MultivariateNormalLikelihood,
    NormalLikelihood,
    NormalPosterior,
    OutputScale,
    VariationalNeurons,
)
from pyro_vdn.nn.categorical import entropy_of, mean_log_probs, mutual_information
from pyro_vdn.poutine import deterministic

pytestmark = pytest.mark.usefixtures("double")


class Linear(PyroModule):  # type: ignore[misc]
    """Normal units, read linearly: all parts are known in closed form."""

    def __init__(self, *, joint: bool = False) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(3, 4, posterior=NormalPosterior("input"))
        self.readout = LinearReadout(4, 2)
        scale = OutputScale(2, initial_scale=0.4)
        self.likelihood: nn.Module = (
            MultivariateNormalLikelihood(scale, covariance_rank=1)
            if joint
            else NormalLikelihood(scale)
        )

    def forward(self, x: Tensor) -> Any:
        with pyro.plate("data", len(x), dim=-2):
            return pyro.sample("y", self.likelihood(self.readout(self.neurons(x))))

    def between(self, x: Tensor) -> Tensor:
        """The variance of the readout, `(rows, outputs)`."""
        units: Tensor = self.neurons.posterior(x).variance
        return (units @ self.readout.linear.weight.square().mT).detach()


@pytest.mark.parametrize("joint", [False, True])
def test_linear_parts_are_those_of_the_closed_form(joint: bool) -> None:
    model, x = Linear(joint=joint), torch.randn(50, 3)
    found = decompose_variance(model, NeuronGuide(model), x, num_samples=1000, batch_size=20)
    between = model.between(x)
    noise = model.likelihood(torch.zeros(50, 2)).variance.reshape(50, 2).detach()
    assert found.aleatoric == pytest.approx(noise)
    assert found.between / between == pytest.approx(1.0, abs=5 * math.sqrt(2 / 1000))
    assert float((found.between / between).mean()) == pytest.approx(1.0, abs=0.02)
    assert found.total == pytest.approx(found.aleatoric + found.between)
    information = 0.5 * (between / noise).log1p()
    assert found.mutual_information is not None
    assert found.mutual_information_error is not None
    away = (found.mutual_information - information) / found.mutual_information_error
    assert away.abs().max() < 5
    assert 0.7 < away.std() < 1.3
    ratio = found.mutual_information.mean() / information.mean()
    assert float(ratio) == pytest.approx(1.0, abs=0.02)


def test_the_variance_between_draws_is_unbiased_with_two_of_them() -> None:
    model, x = Linear(), torch.randn(1, 3).expand(4000, 3)
    found = decompose_variance(model, NeuronGuide(model), x, num_samples=2)
    assert found.between.mean(0) == pytest.approx(model.between(x[:1])[0], rel=0.1)


def test_the_seed_decides_and_nothing_else_is_touched() -> None:
    model, x = Regression(3, num_units=4).train(), torch.randn(5, 3)
    guide, before = NeuronGuide(model), torch.get_rng_state()
    first, again, other = (
        decompose_variance(model, guide, x, num_samples=8, seed=seed).between for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training


def test_the_twin_knows_no_variance_between_draws() -> None:
    model = deterministic(Regression(3, num_units=4))
    found = decompose_variance(model, NeuronGuide(model), torch.randn(5, 3), num_samples=8)
    assert float(found.between.max()) < 1e-20
    assert found.mutual_information == pytest.approx(torch.zeros(5, 1), abs=1e-12)


MEANS = [-0.5, 0.3, 1.4, 2.0, 0.1]


def of_means(kind: str) -> tuple[dist.Distribution, list[Any]]:
    """A mixture over `MEANS` in torch's terms and in scipy's."""
    z = torch.tensor(MEANS).reshape(-1, 1, 1)
    if kind == "normal":
        return dist.Normal(z, 0.5 + z.square()), [stats.norm(m, 0.5 + m * m) for m in MEANS]
    if kind == "student_t":
        return dist.StudentT(2.5, z, 0.5), [stats.t(2.5, m, 0.5) for m in MEANS]
    if kind == "gamma":
        return dist.Gamma(3.0, z.exp()), [stats.gamma(3.0, scale=math.exp(-m)) for m in MEANS]
    if kind == "poisson":
        return dist.Poisson(z.exp()), [stats.poisson(math.exp(m)) for m in MEANS]
    if kind == "bernoulli":
        return dist.Bernoulli(z.sigmoid()), [stats.bernoulli(1 / (1 + math.exp(-m))) for m in MEANS]
    if kind == "uniform":
        return dist.Uniform(-z.exp(), z.exp()), [
            stats.uniform(-math.exp(m), 2 * math.exp(m)) for m in MEANS
        ]
    counts = dist.NegativeBinomial(torch.tensor(1.5), probs=z.sigmoid())
    return counts, [stats.nbinom(1.5, 1 - 1 / (1 + math.exp(-m))) for m in MEANS]


def gain(ps: list[float]) -> float:
    """Terms `1/S sum_s p_s log(p_s / p)` of the information at one value."""
    whole = sum(ps) / len(ps)
    return sum(p * math.log(p / whole) for p in ps if p > 0) / len(ps)


@pytest.mark.parametrize(
    "kind",
    ["normal", "student_t", "gamma", "uniform", "poisson", "bernoulli", "negative_binomial"],
)
def test_information_is_that_of_scipy_densities(kind: str) -> None:
    outcome, known = of_means(kind)
    if hasattr(known[0].dist, "pmf"):
        expected = sum(gain([d.pmf(n) for d in known]) for n in range(400))
    else:
        ends = (0, 200) if kind == "gamma" else (-200, 200)
        points = [m for m in MEANS if m > 0]
        expected = integrate.quad(
            lambda y: gain([d.pdf(y) for d in known]), *ends, limit=200, points=points, epsrel=1e-6
        )[0]
    found = spread_of(outcome)
    assert found.information is not None
    # Beyond 8 standard deviations there are tails; within a node there may be edges.
    tails = {"student_t": 2e-3, "uniform": 2e-2}.get(kind, 1e-5)
    assert float(found.information) == pytest.approx(expected, rel=tails)
    means = [float(d.mean()) for d in known]
    assert float(found.between) == pytest.approx(float(torch.tensor(means).var()))
    assert float(found.aleatoric) == pytest.approx(sum(float(d.var()) for d in known) / 5)


def test_rows_may_have_different_numbers_of_trials() -> None:
    trials, chance = torch.tensor([[3.0], [40.0]]), torch.rand(6, 2, 1)
    found = spread_of(dist.Binomial(trials, chance))
    assert found.information is not None
    for row, number in enumerate((3, 40)):
        known = [stats.binom(number, float(p)) for p in chance[:, row, 0]]
        expected = sum(gain([d.pmf(n) for d in known]) for n in range(number + 1))
        assert float(found.information[row]) == pytest.approx(expected)


def test_counts_beyond_the_nodes_are_looked_at_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poisson counts of so large a mean are normal, and there are too many of them for nodes."""
    monkeypatch.setattr(_spread, "_MOST_NODES", 300)
    z = torch.tensor([1e6, 1.002e6, 1.004e6, 1.001e6]).reshape(-1, 1, 1)
    count, normal = spread_of(dist.Poisson(z)), spread_of(dist.Normal(z, z.sqrt()))
    assert count.information is not None
    assert normal.information is not None
    assert float(count.information) == pytest.approx(float(normal.information), rel=1e-3)


@pytest.mark.parametrize("scale", [1e-3, 1e-5, 1e-9])
def test_draws_narrower_than_nodes_have_at_most_the_information_of_their_number(
    scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_spread, "_MOST_NODES", 500)
    found = spread_of(dist.Normal(torch.randn(50, 3, 1), scale)).information
    assert found is not None
    assert found == pytest.approx(torch.full((3, 1), math.log(50)), rel=0.05)
    assert bool((found <= math.log(50) + 1e-9).all())


def test_classes_have_the_information_of_tokens() -> None:
    model = VariationalGPT(7, block_size=4, num_layers=1, width=8)
    x = torch.randint(7, (3, 4))
    with torch.no_grad():
        model.head.weight.mul_(30) if hasattr(model, "head") else None
    guide = NeuronGuide(model)
    found = decompose_variance(model, guide, x, num_samples=400, site="next_token")
    log_probs = token_draws(model, guide, x, num_samples=400).log_probs
    expected = mutual_information(mean_log_probs(log_probs), entropy_of(log_probs).mean(0))
    assert found.total.shape == (3, 4, 7)
    assert found.mutual_information is not None
    assert found.mutual_information.shape == (3, 4)
    assert found.mutual_information == pytest.approx(expected, rel=0.4)
    mean = mean_log_probs(log_probs).exp()
    assert found.total == pytest.approx(mean * (1 - mean), rel=0.05)


def test_classes_without_chance_are_known() -> None:
    logits = torch.tensor([[0.0, -math.inf], [-math.inf, 0.0]]).reshape(2, 1, 1, 2)
    found = spread_of(dist.Categorical(logits=logits))
    assert found.information == pytest.approx(math.log(2))
    assert found.aleatoric == pytest.approx(torch.zeros(1, 2))
    assert found.between == pytest.approx(torch.full((1, 2), 0.5))


@pytest.mark.parametrize("observation", ["student_t", "negative_binomial"])
def test_sequences_keep_their_steps(observation: Any) -> None:
    model = StateSpace(3, 2, num_units=3, observation=observation)
    found = decompose_variance(model, NeuronGuide(model), torch.randn(4, 6, 3), num_samples=20)
    assert found.total.shape == (4, 6, 2)
    assert found.mutual_information is not None
    assert found.mutual_information.shape == (4, 6, 2)
    assert bool((found.between > 0).all())


def test_independent_outputs_are_taken_one_by_one() -> None:
    z = torch.randn(9, 4, 1, 2)
    event, batch = spread_of(dist.Normal(z, 1.0).to_event(1)), spread_of(dist.Normal(z[:, :, 0], 1))
    for one, other in zip(event, batch, strict=True):
        assert torch.equal(one, other)  # type: ignore[arg-type]


def test_a_joint_distribution_without_marginals_has_no_information() -> None:
    z = torch.randn(9, 4, 1, 2)
    found = spread_of(dist.MultivariateNormal(z, torch.eye(2)))
    assert found.information is None
    assert found.between == pytest.approx(z[:, :, 0].var(0))


def test_infinite_variance_is_refused() -> None:
    with pytest.raises(InputError, match="expected an outcome of finite mean and variance"):
        spread_of(dist.StudentT(torch.tensor(2.0), torch.zeros(3, 2, 1), 1.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 1}, "num_samples: expected at least 2, got 1"),
        ({"num_samples": 0}, "num_samples: expected a positive integer"),
        ({"site": "z"}, "site: expected one of"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    model = Regression(3, num_units=4)
    with pytest.raises(InputError, match=message):
        decompose_variance(model, NeuronGuide(model), torch.zeros(2, 3), **options)


def test_printed_it_says_the_shares() -> None:
    parts = Decomposition(torch.full((2, 1), 3.0), torch.ones(2, 1), torch.ones(2, 1), None, 10)
    lines = str(parts).splitlines()
    assert lines[0] == "variance, mean over 2 rows, of 10 draws"
    assert [line.split() for line in lines[1:4]] == [
        ["total", "4", "100.0", "%"],
        ["aleatoric", "3", "75.0", "%"],
        ["between", "1", "25.0", "%"],
    ]
    assert lines[4] == "mutual information 1 nats"
