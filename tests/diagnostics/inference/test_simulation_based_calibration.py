"""Simulation-based calibration: exact guides pass, spoiled ones fail."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from pyro_vdn.guides import NeuronGuide, without_neurons
from pyro_vdn.models import Regression
from torch import Tensor

from pyro_vdn.bench.seen_chains import SeenChains
from pyro_vdn.diagnostics import SBCResult, coverage, plot_sbc, simulation_based_calibration
from pyro_vdn.errors import InputError
from pyro_vdn.nn import ConditionalNormal, VariationalNeurons
from pyro_vdn.nn.chain import GaussianChain
from pyro_vdn.poutine import NeuronMessenger, scale_noise
from pyro_vdn.poutine.leaves import change_posterior
from pyro_vdn.testing import ConjugateNeurons, orthogonal_columns

pytestmark = pytest.mark.usefixtures("double")


def conjugate() -> ConjugateNeurons:
    model = ConjugateNeurons(orthogonal_columns(4, 3), torch.randn(4), 0.8)
    model.set_exact_()
    return model


def outcome(drawn: Any) -> tuple[Tensor]:
    return (drawn["y"],)


def check(model: Any, **options: Any) -> SBCResult:
    options = {"level": 0.999, **options}  # an exact guide fails by chance once in a thousand runs
    return simulation_based_calibration(
        model, NeuronGuide(model), (torch.zeros(250, 4),), observe=outcome, **options
    )


# --- verdicts ---


def test_exact_guide_passes_and_one_of_half_its_scale_fails() -> None:
    model = conjugate()
    exact = check(model)
    assert exact.passed
    assert exact.num_simulations == 500
    assert {name: ranks.shape for name, ranks in exact.ranks.items()} == {
        "neurons.z": (500, 3),
        "log_likelihood": (500,),
    }
    halved = check(scale_noise(model, 0.5))
    assert {f"neurons.z[{unit}]" for unit in range(3)} <= set(halved.failures)
    assert all(
        halved.describe("neurons.z", (unit,)) == "draws spread too little" for unit in range(3)
    )
    assert "FAILED in 4 of 4 quantities" in str(halved)


def test_one_spoiled_unit_is_the_one_that_fails() -> None:
    wide = check(scale_noise(conjugate(), torch.tensor([1.0, 1.6, 1.0])))
    assert "neurons.z[1]" in wide.failures
    assert not {"neurons.z[0]", "neurons.z[2]"} & set(wide.failures)
    assert wide.describe("neurons.z", (1,)) == "draws spread too much"


def test_shifted_guide_is_found_on_its_side() -> None:
    model = conjugate()
    with torch.no_grad():
        model.neurons.posterior.loc.bias.add_(0.3)
    shifted = check(model)
    assert "neurons.z[2]" in shifted.failures  # the narrowest
    assert shifted.describe("neurons.z", (2,)) == "draws are too high"


def test_prior_in_the_guides_place_is_found_by_the_likelihood_alone() -> None:
    model = conjugate()
    posterior = model.neurons.posterior
    with torch.no_grad():
        posterior.loc.weight.zero_()
        posterior.loc.bias.zero_()
        posterior.multiply_scale_(1.0 / posterior.scale_of_units(), torch.ones(3))
    assert check(model).failures == ["log_likelihood"]


class Halved(NeuronMessenger):
    """Halve the innovations of a posterior chain, and so the spread of every step."""

    def on_neuron(self, msg: Any) -> None:
        change_posterior(
            msg, lambda chain: GaussianChain(chain.coefficients, chain.offset, 0.5 * chain.scale)
        )


def test_exact_chain_passes_and_one_of_half_its_spread_fails() -> None:
    model = SeenChains(2, noise=0.5)
    potential = model.neurons.posterior.potential
    with torch.no_grad():
        potential.loc.weight.copy_(torch.eye(2))
        potential.loc.bias.zero_()
        potential.multiply_scale_(torch.full((2,), 0.5), torch.ones(2))
    args = (torch.zeros(200, 5, 2),)
    exact, halved = (
        simulation_based_calibration(
            program, NeuronGuide(program), args, observe=outcome, num_simulations=200, level=0.999
        )
        for program in (model, Halved()(model))
    )
    assert exact.ranks["neurons.z"].shape == (200, 5, 2)
    assert exact.passed
    assert len(halved.failures) == 11


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_intervals_of_the_exact_guide_hold_their_share_and_narrow_ones_less(level: float) -> None:
    model = conjugate()
    error = math.sqrt(level * (1 - level) / 500)
    exact = check(model).coverage(level)["neurons.z"]
    assert (abs(exact - level) < 3 * error).all()
    halved = check(scale_noise(model, 0.5)).coverage(level)["neurons.z"]
    inner = math.erf(0.5 * NormalDist().inv_cdf(0.5 + level / 2) / math.sqrt(2))
    assert (abs(halved - inner) < 3 * math.sqrt(inner * (1 - inner) / 500)).all()
    assert (level - halved > 5 * error).all()


def test_coverage_is_that_of_intervals_of_the_draws() -> None:
    draws, truth = torch.randn(99, 200), torch.randn(200)
    result = SBCResult({"z": (draws < truth).sum(0)}, num_draws=99)
    for level in (0.5, 0.9):  # their ends are draws: 25 and 75, 5 and 95
        inside = float(coverage(draws, truth, level))
        assert float(result.coverage(level)["z"]) == pytest.approx(inside, abs=1e-12)
    even = SBCResult({"z": torch.arange(8)}, num_draws=7)
    assert float(even.coverage(0.9)["z"]) == pytest.approx(0.9)


# --- rows that share a latent site ---


class Shared(PyroModule):
    """A level of all rows, and two neurons each: `y_n ~ Normal(level + z_n1 + z_n2, 1)`."""

    def __init__(self) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(1, 2)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        level = pyro.sample("level", dist.Normal(0.0, 2.0))
        with pyro.plate("rows", len(x), dim=-2):
            loc = level + self.neurons(x).sum(-1, keepdim=True)
            seen: Tensor = pyro.sample("y", dist.Normal(loc, 1.0), obs=y)
        return seen


def fit_exactly(x: Tensor, y: Tensor, *, narrow: float = 1.0) -> Any:
    """Return a guide of the exact posterior of level and neurons, by Gaussian conditioning."""
    rows = len(y)
    read = torch.cat([torch.ones(rows, 1), torch.eye(rows).repeat_interleave(2, 1)], 1)
    prior = torch.diag(torch.cat([torch.tensor([0.25]), torch.ones(2 * rows)]))
    covariance = torch.linalg.inv(prior + read.mT @ read)
    mean = covariance @ (read.mT @ y[:, 0])
    joint = dist.MultivariateNormal(mean, narrow**2 * covariance)

    def guide(x: Tensor, y: Tensor) -> None:
        every = pyro.sample("all", joint, infer={"is_auxiliary": True})  # (draws, 1, 1, all)
        pyro.sample("level", dist.Delta(every[..., 0]))
        with pyro.plate("rows", rows, dim=-2), pyro.plate("neurons.units", 2, dim=-1):
            z = every[..., 1:].reshape(-1, rows, 2)
            pyro.sample("neurons.z", dist.Delta(z))

    return guide


@pytest.mark.parametrize("narrow", [1.0, 0.5])
def test_guide_fitted_to_each_data_set(narrow: float) -> None:
    result = simulation_based_calibration(
        Shared(),
        None,
        (torch.zeros(3, 1),),
        fit=lambda x, y: fit_exactly(x, y, narrow=narrow),
        num_simulations=100,
        num_draws=39,
        quantities={
            "sum": lambda values: values["level"] + values["neurons.z"].sum((-1, -2), True)
        },
    )
    assert {name: ranks.shape[1:] for name, ranks in result.ranks.items()} == {
        "level": (),
        "neurons.z": (2,),
        "log_likelihood": (),
        "sum": (),
    }
    assert result.passed == (narrow == 1.0)
    if not result.passed:
        assert {"level", "neurons.z[0]", "sum"} <= set(result.failures)


def test_fitted_guide_makes_a_data_set_one_simulation() -> None:
    model = conjugate().train()
    shown: list[Tensor] = []
    modes: list[bool] = []

    def observe(drawn: Any) -> tuple[Tensor]:
        modes.append(model.training)
        return (drawn["y"],)

    def fit(y: Tensor) -> NeuronGuide:
        shown.append(y)
        return NeuronGuide(model)

    args = (torch.zeros(4, 4),)
    result = simulation_based_calibration(
        model, None, args, observe=observe, fit=fit, num_simulations=6, num_draws=9
    )
    assert len(shown) == 6
    assert modes == [False] * 6
    assert result.ranks["neurons.z"].shape == (6, 3)


def test_every_fit_starts_anew_and_leaves_no_parameters() -> None:
    model, store = Shared(), pyro.get_param_store()
    pyro.param("own", torch.tensor(1.0))
    starts: list[float] = []

    def fit(x: Tensor, y: Tensor) -> NeuronGuide:
        guide = NeuronGuide(model, others=AutoNormal(without_neurons(model), init_loc_fn=at_zero))
        guide(x, y)
        with torch.no_grad():
            loc = guide.others.locs.level
            starts.append(float(loc))
            loc.add_(5.0)  # in place of training
        return guide

    def at_zero(site: Any) -> Tensor:
        return torch.zeros(site["fn"].shape())

    result = simulation_based_calibration(
        model, None, (torch.zeros(2, 1),), fit=fit, num_simulations=4, num_draws=9
    )
    assert starts == [0.0] * 4
    assert set(store.keys()) == {"own"}
    assert (result.ranks["level"] == 0).all()  # what was fitted is what is ranked


# --- ranks ---


def test_ties_are_broken_at_random() -> None:
    signs = {"positive": lambda values: (values["neurons.z"] > 0).double()}
    result = check(conjugate(), quantities=signs, num_draws=9)
    assert result.passed
    ranks = result.ranks["positive"]
    assert ranks.shape == (500, 3)
    assert {int(rank) for rank in ranks.unique()} == set(range(10))


def test_seed_decides_and_the_callers_noise_is_untouched() -> None:
    model = conjugate().train()
    state = torch.get_rng_state()
    first, again, other = (check(model, num_simulations=20, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert torch.equal(first.ranks["neurons.z"], again.ranks["neurons.z"])
    assert not torch.equal(first.ranks["neurons.z"], other.ranks["neurons.z"])
    assert first.num_simulations == 20


def test_verdicts_together_have_the_stated_error_rate() -> None:
    generator = torch.Generator().manual_seed(0)
    alarms = 0
    for _ in range(60):
        ranks = torch.randint(0, 20, (60, 5), generator=generator)
        alarms += not SBCResult({"z": ranks}, num_draws=19, level=0.8).passed
    # The mean is 12 or a little less, the standard deviation 3.1.
    assert 3 <= alarms <= 21


@pytest.mark.parametrize("num_draws", [1, 3, 19])
def test_moments_of_uniform_ranks_are_standardised_for_any_number_of_draws(num_draws: int) -> None:
    every = torch.cartesian_prod(*[torch.arange(num_draws + 1)] * 2).mT  # two of all equally often
    mean, spread = SBCResult({"z": every}, num_draws).moments["z"]
    assert mean.mean() == pytest.approx(0.0, abs=1e-12)
    assert (mean**2).mean() == pytest.approx(1.0)
    assert spread.mean() == pytest.approx(0.0, abs=1e-12)
    assert (spread**2).mean() == pytest.approx(0.0 if num_draws == 1 else 1.0)


def test_figure_shows_every_quantity_and_names_what_fails() -> None:
    result = check(scale_noise(conjugate(), torch.tensor([1.0, 0.5, 1.0])), num_simulations=250)
    panels = plot_sbc(result).axes
    assert [panel.get_title(loc="left") for panel in panels] == [
        "neurons.z: 1 of 3 fail",
        "log_likelihood: 1 of 1 fail",
    ]
    _, lines = panels[0].get_legend_handles_labels()
    assert lines == ["99.9 % band", "neurons.z[1]"]
    drawn = {tuple(line.get_ydata()[1:-1]) for line in panels[0].lines[1:]}
    ranks = result.ranks["neurons.z"]
    assert drawn == {tuple(result.band.difference(ranks[:, unit])) for unit in range(3)}


# --- refusals ---


class ReadsItsOutcome(PyroModule):
    """A prior that reads what is observed."""

    def __init__(self) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(1, 1, prior=ConditionalNormal())

    def forward(self, y: Tensor) -> None:
        with pyro.plate("rows", len(y), dim=-2):
            z = self.neurons(y)
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def without_latents(x: Tensor, y: Tensor | None = None) -> None:
    with pyro.plate("rows", len(x), dim=-2):
        pyro.sample("y", dist.Normal(x, 1.0), obs=y)


X = torch.zeros(2, 3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (Regression, {"observe": lambda drawn: (X,)}, "observe: expected arguments that show"),
        (Regression, {"observe": lambda drawn: (X, X[:, :1])}, "site 'y': expected the very out"),
        (Regression, {"site": "t"}, "site: expected an outcome among .* got 't'"),
        (Regression, {"num_simulations": 1}, "num_simulations: expected at least 2, got 1"),
        (Regression, {"fit": lambda x, y: None}, "guide, fit: expected exactly one .* got both"),
        (lambda _: without_latents, {}, r"model: expected a latent site, got .*\['y'\]"),
        (lambda _: ReadsItsOutcome(), {"observe": outcome}, "a prior that is the same whatever"),
        (
            Regression,
            {"quantities": {"rows": lambda values: values["neurons.z"].sum(0)}},
            r"quantity 'rows': expected shape \(2, ...\) .* got \(50,\) and \(2, 50\)",
        ),
        (
            Regression,
            {"quantities": {"odd": lambda values: values["neurons.z"].sum(-1) * torch.nan}},
            "quantity 'odd': expected numbers, got nan",
        ),
        (
            Regression,
            {"quantities": {"log_likelihood": lambda values: values["neurons.z"].sum(-1)}},
            "quantity 'log_likelihood': expected a name of its own",
        ),
    ],
)
def test_refuses_what_cannot_be_simulated(model: Any, options: Any, message: str) -> None:
    program = model(3)
    width = 1 if isinstance(program, ReadsItsOutcome) else 3
    with pytest.raises(InputError, match=message):
        simulation_based_calibration(
            program, NeuronGuide(program), (torch.zeros(2, width),), **options
        )


def test_refuses_a_guide_that_leaves_something_out() -> None:
    with pytest.raises(InputError, match=r"guide: expected a program that draws .*'neurons\.z'"):
        simulation_based_calibration(Regression(3), lambda x, y: None, (X,))
