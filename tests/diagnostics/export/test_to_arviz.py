"""The export of a fitted model: what is in it, how it is named, and that it fits in memory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from pyro_vdn.guides import NeuronGuide, without_neurons
from pyro_vdn.models import (
    DeepRegression,
    Forecaster,
    Regression,
    SingleNeuron,
    StateSpace,
    VariationalGPT,
)
from torch import Tensor, nn

from pyro_vdn.diagnostics import EXPORT_GROUPS, load_netcdf, save_netcdf, to_arviz, unit_statistics
from pyro_vdn.errors import InputError
from pyro_vdn.infer import joint_draws, log_density, token_draws
from pyro_vdn.nn import AutoregressiveNormal, CategoricalLikelihood, VariationalNeurons
from pyro_vdn.poutine import clamp, deterministic, dropout
from pyro_vdn.testing import ConjugateNeurons, randomise

pytestmark = pytest.mark.usefixtures("double")
SAMPLE = ("chain", "draw")
DRAWS = 6


class Level(PyroModule):
    """Neurons of two latent dimensions, a global level named like a column, hardly any noise."""

    def __init__(self, *, latent_dim: int = 2) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(2, 3, latent_dim=latent_dim, pool="sum")
        self.readout = nn.Linear(3, 2)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        level = pyro.sample("scale", dist.Normal(0.0, 2.0))
        with pyro.plate("data", x.shape[-2], dim=-2):
            loc = self.readout(self.neurons(x)) + level
            return pyro.sample("y", dist.Normal(loc, 1e-6), obs=y)


class TwoInputs(PyroModule):
    """Features, and pictures that are read as features too."""

    def __init__(self) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(6, 3)

    def forward(self, x: Tensor, pictures: Tensor, y: Tensor | None = None) -> Tensor:
        with pyro.plate("data", x.shape[-2], dim=-2):
            z = self.neurons(torch.cat([x, pictures.flatten(-2)], -1))
            return pyro.sample("y", dist.Normal(z.sum(-1, keepdim=True), 1.0), obs=y)


class Event(PyroModule):
    """An outcome that no plate of outputs holds: joint without marginals, or a class."""

    def __init__(self, *, classes: bool) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(2, 3)
        self.readout = nn.Linear(3, 2)
        self.classes = classes

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        with pyro.plate("data", x.shape[-2], dim=-2):
            loc = self.readout(self.neurons(x))
            if self.classes:
                return pyro.sample("y", CategoricalLikelihood()(loc), obs=y)
            outcome = dist.MultivariateNormal(loc.unsqueeze(-2), torch.eye(2))
            return pyro.sample("y", outcome, obs=None if y is None else y.unsqueeze(-2))


class Task(PyroModule):
    """A layer of neurons of the whole data set, outside of rows, beside one of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(3))
        self.task = VariationalNeurons(3, 4)
        self.neurons = VariationalNeurons(2, 5)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        task = self.task(self.embedding)
        with pyro.plate("data", x.shape[-2], dim=-2):
            loc = self.neurons(x).sum(-1, keepdim=True) + task.sum(-1, keepdim=True)
            return pyro.sample("y", dist.Normal(loc, 1e-6), obs=y)


class ReadsOutcome(ConjugateNeurons):
    """Neurons that read the outcome itself."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        with pyro.plate("data", x.shape[-2], dim=-2):
            z = self.neurons(x)
            return pyro.sample("y", dist.Normal(z @ self.weight.mT, self.noise), obs=y)


class Widest(pyro.poutine.messenger.Messenger):
    """Remember how many numbers the largest site held, and how many rows it had."""

    numbers = 0

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        if isinstance(msg["value"], Tensor):
            self.numbers = max(self.numbers, msg["value"].numel())


def make(model: Any) -> tuple[Any, NeuronGuide]:
    randomise(pyro.poutine.unwrap(model))
    return model, NeuronGuide(model)


def export(model: Any, data: Any, **given: Any) -> Any:
    return to_arviz(*make(model), data, **{"num_samples": DRAWS, **given})


def values(data: Any, group: str, name: str) -> Tensor:
    """Return the draws of a variable, `(draws, ...)`."""
    return torch.as_tensor(data[group][name].values[0])


def names(data: Any) -> set[str]:
    return set(data.children) if hasattr(data, "children") else set(data.groups())


@pytest.fixture
def x() -> Tensor:
    return torch.randn(7, 2)


@pytest.fixture
def y() -> Tensor:
    return torch.randn(7, 2)


def series() -> tuple[Tensor, Tensor]:
    x, y = torch.randn(4, 5, 1), torch.randn(4, 5, 2)
    x[0, 3] = y[1, 2, 0] = math.nan
    y[2] = math.nan
    return x, y


def tokens() -> tuple[Tensor, Tensor]:
    return torch.randint(9, (3, 6)), torch.randint(9, (3, 6))


def gpt() -> VariationalGPT:
    return VariationalGPT(9, block_size=6, num_layers=2, width=4, num_heads=2)


def chain_prior() -> AutoregressiveNormal:
    return AutoregressiveNormal(3, phi=dist.Uniform(0.0, 1.0), scale=dist.LogNormal(-1.0, 0.5))


def windows(**given: Any) -> Forecaster:
    return Forecaster(8, 3, num_units=2, hidden=4, rank=1, kernel_size=3, **given)


# Model, data, options; then variables with their dimensions.
CASES: dict[str, tuple[Callable[[], Any], Callable[[], Any], dict[str, Any], dict[str, str]]] = {
    "rows": (
        lambda: Regression(2, 2, num_units=3),
        lambda: (torch.randn(7, 2), torch.randn(7, 2)),
        {},
        {
            "posterior/neurons.z": "row unit",
            "posterior/neurons.loc": "row unit",
            "prior/neurons.scale": "row unit",
            "posterior_predictive/y": "row output",
            "prior_predictive/y": "row output",
            "log_likelihood/y": "row output",
            "log_likelihood/y_row": "row",
            "observed_data/y": "row output",
            "constant_data/x": "row feature",
            "unit_stats/neurons.kl": "unit",
            "layer_stats/kl": "layer",
        },
    ),
    "latent dimensions and a global": (
        Level,
        lambda: (torch.randn(7, 2), torch.randn(7, 2)),
        {},
        {
            "posterior/neurons.z": "row unit latent",
            "posterior/neurons.scale": "row unit latent",
            "posterior/scale": "",
            "prior/scale": "",
            "layer_stats/scale": "layer",
        },
    ),
    "several layers": (
        lambda: DeepRegression(2, num_units=(3, 4)),
        lambda: (torch.randn(7, 2), torch.randn(7, 1)),
        {},
        {
            "posterior/layers.0.z": "row layers.0.unit",
            "posterior/layers.1.loc": "row layers.1.unit",
            "unit_stats/layers.1.kl": "layers.1.unit",
            "log_likelihood/y": "row output",
        },
    ),
    "sequences": (
        lambda: StateSpace(1, 2, num_units=3, hidden=4, prior=chain_prior()),
        series,
        {},
        {
            "posterior/neurons.z": "row time unit",
            "posterior/neurons.scale": "row time unit",
            "posterior/neurons.prior.phi": "unit",
            "prior/neurons.loc": "row time unit",
            "posterior_predictive/y": "row time output",
            "log_likelihood/y": "row time output",
            "log_likelihood/y_row": "row",
            "observed_data/y": "row time output",
            "constant_data/x": "row time feature",
        },
    ),
    "joint outcomes": (
        windows,
        lambda: (torch.randn(4, 8), torch.randn(4, 3)),
        {"dim_names": {"output": "horizon", "feature": "lag"}},
        {
            "posterior/neurons.z": "row unit",
            "posterior_predictive/y": "row horizon",
            "log_likelihood/y": "row horizon",
            "log_likelihood/y_row": "row",
            "observed_data/y": "row horizon",
            "constant_data/x": "row lag",
        },
    ),
    "last steps scored": (
        lambda: windows(memory=AutoregressiveNormal(2), scored_steps=2),
        lambda: (torch.randn(4, 5, 8), torch.randn(4, 2, 3)),
        {},
        {
            "posterior/neurons.z": "row time unit",
            "posterior_predictive/y": "row scored_time output",
            "observed_data/y": "row scored_time output",
            "constant_data/x": "row time feature",
        },
    ),
    "tokens": (
        gpt,
        tokens,
        {"site": "next_token"},
        {
            "posterior/blocks.1.neurons.z": "row token blocks.1.neurons.unit",
            "posterior_predictive/next_token": "row token",
            "log_likelihood/next_token": "row token",
            "log_likelihood/next_token_row": "row",
            "observed_data/next_token": "row token",
            "constant_data/x": "row token",
        },
    ),
    "joint without marginals": (
        lambda: Event(classes=False),
        lambda: (torch.randn(7, 2), torch.randn(7, 2)),
        {},
        {"posterior_predictive/y": "row output", "log_likelihood/y_row": "row"},
    ),
    "classes": (
        lambda: Event(classes=True),
        lambda: (torch.randn(7, 2), torch.randint(2, (7, 1))),
        {},
        {"posterior_predictive/y": "row output", "log_likelihood/y": "row output"},
    ),
    "several inputs": (
        TwoInputs,
        lambda: (torch.randn(7, 2), torch.randn(7, 2, 2), torch.randn(7, 1)),
        {},
        {"constant_data/x_0": "row x_0.feature", "constant_data/x_1": "row x_1_dim_0 x_1_dim_1"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_dimensions_are_named(case: str) -> None:
    model, data, options, expected = CASES[case]
    found = export(model(), data(), **options)
    for key, dims in expected.items():
        group, _, name = key.partition("/")
        sample = SAMPLE if "chain" in found[group][name].dims else ()
        assert found[group][name].dims == (*sample, *dims.split()), key


@pytest.mark.parametrize("steps", ["parallel", "markov"])
def test_steps_of_a_loop_are_put_together(steps: Any) -> None:
    """A loop and a single site are the same density: moments of each step, the past averaged."""
    model = StateSpace(1, 2, num_units=3, hidden=4, prior=AutoregressiveNormal(3, phi=0.8))
    randomise(model)
    x, y = series()
    found = to_arviz(model, NeuronGuide(model), (x, y), num_samples=4)
    model.neurons.steps = steps
    other = to_arviz(model, NeuronGuide(model), (x, y), num_samples=4, rows=[2, 0])
    for group in ("posterior", "prior"):
        for name in ("neurons.loc", "neurons.scale"):
            torch.testing.assert_close(
                values(other, group, name), values(found, group, name)[:, [2, 0]]
            )
    assert values(other, "posterior", "neurons.z").shape == (4, 2, 5, 3)


@pytest.mark.parametrize("given", [{}, {"rows": [1, 5]}, {"units": {"task": [3, 0]}}])
def test_a_layer_outside_of_rows_has_none(x: Tensor, given: dict[str, Any]) -> None:
    model = Task()
    found = export(model, x, batch_size=3, **given)
    units = given.get("units", {"task": [0, 1, 2, 3]})["task"]
    expected = model.task.posterior(model.embedding).mean.detach()[units].expand(DRAWS, -1)
    torch.testing.assert_close(values(found, "posterior", "task.loc"), expected)
    for latent, outcome in (("posterior", "posterior_predictive"), ("prior", "prior_predictive")):
        task = found[latent]["task.z"]
        assert task.dims == (*SAMPLE, "task.unit")
        assert task["task.unit"].values.tolist() == units
        if not given:
            z = values(found, latent, "task.z").sum(-1, keepdim=True)
            total = values(found, latent, "neurons.z").sum(-1) + z
            y = values(found, outcome, "y")[..., 0]
            torch.testing.assert_close(y, total, atol=1e-4, rtol=0)


def test_posterior_of_upper_layers_depends_on_the_draw_below(x: Tensor) -> None:
    model = DeepRegression(2, num_units=(3, 4), prior="conditional")
    found = export(model, (x, torch.randn(7, 1)), batch_size=3)
    first = model.layers[0].posterior(x)
    for name, expected in (("loc", first.mean), ("scale", first.variance.sqrt())):
        torch.testing.assert_close(
            values(found, "posterior", f"layers.0.{name}"), expected.detach().expand(DRAWS, 7, 3)
        )
    for group, part in (("posterior", "posterior"), ("prior", "prior")):
        below = torch.relu(values(found, group, "layers.0.z"))
        with torch.no_grad():
            expected = getattr(model.layers[1], part)(below)
        torch.testing.assert_close(values(found, group, "layers.1.loc"), expected.mean)
        scale = expected.variance.sqrt().expand(DRAWS, 7, 4)
        torch.testing.assert_close(values(found, group, "layers.1.scale"), scale)


@pytest.mark.parametrize("budget", [20, 60, 2**22])
def test_draws_belong_together_however_they_are_cut(
    x: Tensor, y: Tensor, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each outcome follows from its own draw of the neurons and the one global of all rows."""
    monkeypatch.setattr(joint_draws, "CHUNK_ELEMENTS", budget)
    widest = Widest()
    model = Level()
    randomise(model)
    watched = widest(model)
    drawn = ("posterior", "posterior_predictive", "prior", "prior_predictive", "log_likelihood")
    found = to_arviz(
        watched, NeuronGuide(watched), (x, y), num_samples=DRAWS, batch_size=4, groups=drawn
    )
    assert widest.numbers <= min(budget, DRAWS * 4 * 6)
    for latent, outcome in (("posterior", "posterior_predictive"), ("prior", "prior_predictive")):
        z, level = values(found, latent, "neurons.z"), values(found, latent, "scale")
        assert level.unique().numel() == DRAWS
        with torch.no_grad():
            expected = model.readout(z.sum(-1)) + level[:, None, None]
        torch.testing.assert_close(values(found, outcome, "y"), expected, atol=1e-4, rtol=0)
        assert z.unique().numel() == z.numel()


def test_only_what_is_wanted_is_drawn(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, seen = torch.randn(500, 2), []
    model = Regression(2, num_units=3)
    monkeypatch.setattr(
        model.encoder, "forward", lambda h: seen.append(h.shape[-2]) or h, raising=True
    )
    guide = NeuronGuide(model)
    found = to_arviz(model, guide, rows, groups=("posterior",), rows=[499, 3], batch_size=10)
    assert names(found) == {"posterior"}
    assert max(seen) == 10  # the first rows show what there is; the others are not run
    expected = model.neurons.posterior(rows[[499, 3]]).mean.detach()
    torch.testing.assert_close(values(found, "posterior", "neurons.loc")[0], expected)
    assert sum(seen) < 100
    assert found["posterior"]["row"].values.tolist() == [499, 3]


def test_chosen_rows_and_units_keep_their_labels(x: Tensor, y: Tensor) -> None:
    model, guide = make(Level(latent_dim=1))
    labels = {"row": list("abcdefg"), "unit": ["u", "v", "w"]}
    whole = to_arviz(model, guide, (x, y), coords=labels)
    found = to_arviz(model, guide, (x, y), coords=labels, rows=[5, 0], units=[2])
    for group in ("posterior", "prior"):
        assert found[group]["row"].values.tolist() == ["f", "a"]
        assert found[group]["unit"].values.tolist() == ["w"]
        for name in ("neurons.z", "neurons.loc"):
            some = whole[group][name].sel(row=["f", "a"], unit=["w"])
            xarray.testing.assert_identical(found[group][name], some)
    assert found["posterior_predictive"]["row"].values.tolist() == labels["row"]
    assert found["unit_stats"]["unit"].values.tolist() == labels["unit"]
    plain = export(model, (x, y), rows=torch.tensor([5, 0]), units={"neurons": [2, 1]})
    assert plain["posterior"]["row"].values.tolist() == [5, 0]
    assert plain["posterior"]["unit"].values.tolist() == [2, 1]


def test_layers_that_are_not_named_are_left_out(x: Tensor) -> None:
    model = DeepRegression(2, num_units=(3, 4))
    found = export(model, x, units={"layers.1": None})
    assert set(found["posterior"].data_vars) == {"layers.1.z", "layers.1.loc", "layers.1.scale"}
    assert found["posterior"]["layers.1.z"].sizes["layers.1.unit"] == 4


def test_log_likelihood_is_that_of_the_draws() -> None:
    model = StateSpace(1, 2, num_units=3, hidden=4)
    x, y = series()
    found = export(model, (x, y), coords={"time": range(10, 15)})
    with torch.no_grad():
        z = values(found, "posterior", "neurons.z")
        expected = model.likelihood(model.readout(z)).log_prob(y)
    log_likelihood = values(found, "log_likelihood", "y")
    torch.testing.assert_close(log_likelihood, expected, equal_nan=True)
    torch.testing.assert_close(values(found, "log_likelihood", "y_row"), expected.nansum((-2, -1)))
    assert found["log_likelihood"]["y"].sel(time=12, row=1).isnull().values[0, :, 0].all()
    attrs = found["log_likelihood"].attrs
    assert attrs["meaning"].startswith("conditional: log p(y | z")
    assert "PSIS-LOO" in attrs["caution"]


@pytest.mark.parametrize("joint", [False, True])
def test_marginal_log_likelihood_is_the_predictive_density(joint: bool, x: Tensor) -> None:
    model, guide = make(windows() if joint else DeepRegression(2, num_units=(3, 4)))
    rows = torch.randn(7, 8) if joint else x
    y = torch.randn(7, 3 if joint else 1)
    found = to_arviz(
        model,
        guide,
        (rows, y),
        num_samples=500,
        groups=("predictive_density", "log_likelihood"),
        log_likelihood="marginal",
    )
    per_output, row = log_density(model, guide, rows, y, num_samples=20_000)
    near = {"atol": 1e-9, "rtol": 0} if joint else {"atol": 0.05, "rtol": 0}
    torch.testing.assert_close(values(found, "log_likelihood", "y")[0], per_output, **near)
    density = found["predictive_density"]
    torch.testing.assert_close(torch.as_tensor(density["log_density"].values), per_output, **near)
    torch.testing.assert_close(torch.as_tensor(density["log_density_joint"].values), row, **near)
    how = "in closed form" if joint else "a mixture of 500 draws"
    for group in ("log_likelihood", "predictive_density"):
        assert how in found[group].attrs["meaning"]
        assert "only where the guide does not see y" in found[group].attrs["meaning"]
    assert ("y_row" in found["log_likelihood"]) == joint


def test_marginal_log_likelihood_of_a_guide_that_sees_its_targets_is_said_to_be_too_high() -> None:
    exact = ReadsOutcome(torch.eye(3, 2), torch.zeros(3), 0.1)
    exact.set_exact_()
    y = exact.simulate(40)
    found = to_arviz(
        exact,
        NeuronGuide(exact),
        (y, y),
        num_samples=200,
        groups=("predictive_density", "log_likelihood"),
        log_likelihood="marginal",
    )
    evidence = exact.log_evidence(y).sum()
    for group, name in (("log_likelihood", "y_row"), ("predictive_density", "log_density_joint")):
        assert found[group][name].values.sum() > evidence + 40  # more than a nat a row
        meaning = found[group].attrs["meaning"]
        assert meaning.startswith("marginal: log density of y, averaged over the guide's draws, ")
        assert "far too high: use importance_evidence" in meaning
    assert "does not see `y`: else `importance_evidence`" in " ".join(to_arviz.__doc__.split())


def test_tokens_are_scored_as_token_draws_says() -> None:
    twin = deterministic(gpt())
    data = tokens()
    found = export(twin, data, site="next_token", coords={"token": range(1, 7)})
    log_probs = token_draws(twin, NeuronGuide(twin), data[0], num_samples=1).log_probs[0]
    expected = log_probs.gather(-1, data[1].unsqueeze(-1)).squeeze(-1)
    given = values(found, "log_likelihood", "next_token")
    torch.testing.assert_close(given, expected.expand(DRAWS, 3, 6), check_dtype=False)
    assert found["posterior_predictive"]["next_token"].dtype == np.int64
    assert found["observed_data"]["next_token"]["token"].values.tolist() == [1, 2, 3, 4, 5, 6]
    without = export(gpt(), data[0], site="next_token", groups=("posterior_predictive",))
    assert without["posterior_predictive"]["next_token"].dims == (*SAMPLE, "row", "token")


def test_scored_steps_bear_the_labels_of_the_last() -> None:
    model = windows(memory=AutoregressiveNormal(2), scored_steps=2)
    data = torch.randn(4, 5, 8), torch.randn(4, 2, 3)
    assert export(model, data)["observed_data"]["scored_time"].values.tolist() == [3, 4]
    found = export(model, data, coords={"time": list("abcde")})
    assert found["observed_data"]["scored_time"].values.tolist() == ["d", "e"]
    assert found["posterior"]["time"].values.tolist() == list("abcde")


@pytest.mark.parametrize(
    ("effect", "present"),
    [
        (deterministic, set()),
        (lambda model: dropout(model, 0.5), {"posterior", "unit_stats", "layer_stats"}),
        (
            lambda model: clamp(model, {"neurons": {0: 0.0}}),
            {"posterior", "prior", "prior_predictive"},
        ),
    ],
)
def test_effects_are_in_force(effect: Any, present: set[str], x: Tensor) -> None:
    found = export(effect(Regression(2, 2, num_units=3)), (x, torch.randn(7, 2)))
    always = {"posterior_predictive", "log_likelihood", "observed_data", "constant_data"}
    assert names(found) == always | present
    if "prior" in present:
        assert not values(found, "posterior", "neurons.z")[..., 0].any()
        assert values(found, "posterior", "neurons.z")[..., 1].std() > 0
    elif present:
        z, loc = (values(found, "posterior", f"neurons.{name}") for name in ("z", "loc"))
        torch.testing.assert_close(z.unique(), torch.cat([2 * loc, 0 * loc[:1]]).unique())


def test_guides_of_other_sites_and_of_all_sites(x: Tensor, y: Tensor) -> None:
    model = Level(latent_dim=1)
    randomise(model)
    guide = NeuronGuide(model, others=AutoNormal(without_neurons(model)))
    guide(x, y)
    with torch.no_grad():
        guide.others.locs.scale.fill_(30.0)
    level = values(to_arviz(model, guide, (x, y), batch_size=3), "posterior", "scale")
    assert level.shape == (200,)
    assert abs(float(level.mean()) - 30.0) < 0.1
    by_hand = AutoNormal(model)
    by_hand(x, y)
    found = to_arviz(model, by_hand, (x, y), num_samples=DRAWS)
    assert found["posterior"]["neurons.z"].dims == (*SAMPLE, "row", "unit")
    assert set(found["posterior"].data_vars) == {"neurons.z", "scale"}
    assert "unit_stats" not in names(found)


def test_unit_and_layer_statistics(x: Tensor) -> None:
    model = DeepRegression(2, num_units=(3, 4))
    y = torch.randn(7, 1)
    found = export(model, (x, y))
    expected = unit_statistics(model, NeuronGuide(model), (x, y), use=False)
    for path, units in expected.items():
        for name, numbers in units.to_arrays().items():
            np.testing.assert_allclose(found["unit_stats"][f"{path}.{name}"].values, numbers)
    layers = found["layer_stats"]
    assert layers["layer"].values.tolist() == ["layers.0", "layers.1"]
    assert layers["units"].values.tolist() == [3, 4]
    kl = [float(units.kl.sum()) for units in expected.values()]
    np.testing.assert_allclose(layers["kl"].values, kl)
    used = unit_statistics(model, NeuronGuide(model), (x, y), num_samples=2)
    given = export(model, (x, y), statistics=used, groups=["unit_stats"])["unit_stats"]
    np.testing.assert_array_equal(given["layers.1.use"].values, used["layers.1"].use)


def test_attributes_reproduce_the_export(x: Tensor) -> None:
    config = {"task": "regression", "rate": 1e-3, "names": ["ä"]}
    found = export(Regression(2), x, seed=4, config=config, attrs={"note": "n"})
    attrs = found.attrs
    assert (attrs["seed"], attrs["num_samples"], attrs["model"]) == (4, DRAWS, "Regression")
    assert json.loads(attrs["config"]) == config
    assert attrs["note"] == "n"
    assert attrs["inference_library"] == "pyro-vdn"
    assert attrs["created_at"]


def test_the_seed_decides_and_nothing_outside_is_touched(x: Tensor) -> None:
    model, guide = make(Regression(2, num_units=3))
    model.train()
    before = torch.random.get_rng_state()
    first = to_arviz(model, guide, x, num_samples=DRAWS)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.training
    torch.manual_seed(5)
    again = to_arviz(model, guide, x, num_samples=DRAWS)
    other = to_arviz(model, guide, x, num_samples=DRAWS, seed=1)
    for group in ("posterior", "prior"):
        z = values(first, group, "neurons.z")
        assert torch.equal(z, values(again, group, "neurons.z"))
        assert not torch.isclose(z, values(other, group, "neurons.z")).any()
    same = (values(first, group, "neurons.z") for group in ("posterior", "prior"))
    loc, scale = (values(first, "posterior", f"neurons.{name}") for name in ("loc", "scale"))
    noise = (next(same) - loc) / scale
    assert not torch.isclose(noise, next(same)).any()  # the prior's noise is its own


def test_a_second_model_keeps_its_own_parameters() -> None:
    x, y = torch.randn(5, 1), torch.randn(5, 1)
    for noise in (0.1, 3.0):
        model = SingleNeuron()
        model.noise = torch.tensor(noise)
        found = to_arviz(model, NeuronGuide(model), (x, y), groups=("posterior", "log_likelihood"))
        with torch.no_grad():
            loc = model.readout(values(found, "posterior", "neuron.z"))
        expected = dist.Normal(loc, noise).log_prob(y)
        torch.testing.assert_close(values(found, "log_likelihood", "y"), expected)


def test_the_model_is_evaluated_not_trained(x: Tensor) -> None:
    model = Level()
    model.readout = nn.Sequential(model.readout, nn.Dropout(0.5))
    found = to_arviz(model.train(), NeuronGuide(model), x, num_samples=DRAWS)
    z, level = values(found, "posterior", "neurons.z"), values(found, "posterior", "scale")
    with torch.no_grad():
        expected = model.readout[0](z.sum(-1)) + level[:, None, None]
    y = values(found, "posterior_predictive", "y")
    torch.testing.assert_close(y, expected, atol=1e-4, rtol=0)
    assert model.readout[1].training


def test_a_step_with_a_gap_has_no_joint_density() -> None:
    """Its other outputs keep theirs; the row is scored on the steps that are whole."""
    model, guide = make(windows(memory=AutoregressiveNormal(2)))
    x, y = torch.randn(4, 5, 8), torch.randn(4, 5, 3)
    y[0, 2, 1] = math.nan
    whole = y.clone()
    whole[0, 2] = math.nan
    some, none = (to_arviz(model, guide, (x, given), num_samples=3) for given in (y, whole))
    given = values(some, "log_likelihood", "y")
    assert torch.equal(given.isnan(), y.isnan().expand(given.shape))
    rows = [values(found, "log_likelihood", "y_row") for found in (some, none)]
    torch.testing.assert_close(*rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_of_the_model_is_kept(x: Tensor, y: Tensor, dtype: torch.dtype) -> None:
    found = export(Regression(2, 2, num_units=3).to(dtype), (x.to(dtype), y.to(dtype)))
    for group in names(found) - {"unit_stats", "layer_stats"}:
        for name, variable in found[group].data_vars.items():
            assert variable.dtype == torch.empty(0, dtype=dtype).numpy().dtype, (group, name)


def test_half_precision_is_stored_in_single(x: Tensor) -> None:
    model = Regression(2, num_units=3, likelihood="normal").bfloat16()
    found = to_arviz(model, NeuronGuide(model), x.bfloat16(), num_samples=2)
    assert found["posterior"]["neurons.z"].dtype == np.float32
    assert found["constant_data"]["x"].dtype == np.float32


def test_data_come_in_several_forms(x: Tensor, y: Tensor) -> None:
    model, guide = make(Regression(2, 2, num_units=3))
    whole = to_arviz(model, guide, (x, y))
    loader = [(x[:4], y[:4]), (x[4:], y[4:])]
    xarray.testing.assert_identical(
        whole["posterior"]["neurons.z"], to_arviz(model, guide, loader)["posterior"]["neurons.z"]
    )
    alone = [x, (x,), (x, None), [x[:4], x[4:]]]
    for data in alone:
        found = to_arviz(model, guide, data, num_samples=2)
        assert {"log_likelihood", "observed_data"}.isdisjoint(names(found))
        np.testing.assert_array_equal(found["constant_data"]["x"].values, x)


def test_more_is_known_of_rows(x: Tensor) -> None:
    more = {"weight": torch.rand(7), "where": torch.rand(7, 2)}
    data = export(Regression(2), x, constant_data=more)["constant_data"]
    np.testing.assert_array_equal(data["weight"].values, more["weight"])
    assert data["where"].dims == ("row", "where_dim_0")


def test_everything_survives_a_file(tmp_path: Path) -> None:
    model, guide = make(StateSpace(1, 2, num_units=3, hidden=4, prior=chain_prior()))
    before = to_arviz(
        model,
        guide,
        series(),
        num_samples=3,
        groups=EXPORT_GROUPS,
        coords={"row": ["a", "b", "ç", "d"]},
        config={"ä": [1, None]},
    )
    save_netcdf(before, tmp_path / "all.nc")
    after = load_netcdf(tmp_path / "all.nc")
    assert names(before) == names(after) == set(EXPORT_GROUPS)
    assert after.attrs == before.attrs
    for group in names(before):
        old, new = (d[group] for d in (before, after))
        if hasattr(old, "to_dataset"):
            old, new = old.to_dataset(), new.to_dataset()
        xarray.testing.assert_identical(old, new)
    assert np.isnan(after["observed_data"]["y"].values).any()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"num_samples": 0}, r"num_samples: expected a positive integer"),
        ({"log_likelihood": "joint"}, r"log_likelihood: expected one of .*got 'joint'"),
        ({"groups": ("posterior", "plots")}, r"groups: expected some of .* got 'plots'"),
        ({"site": "z"}, r"site: expected one of .* got 'z'"),
        ({"rows": [7]}, r"rows: expected different integers in 0 to 6, got \[7\]"),
        ({"rows": [1, 1]}, r"rows: expected different integers"),
        ({"rows": []}, r"rows: expected different integers"),
        ({"units": [True]}, r"units\['neurons'\]: expected different integers in 0 to 2"),
        ({"units": {"layer": [0]}}, r"units: expected layers that run: \['neurons'\], got 'layer'"),
        ({"dim_names": {"horizon": "h"}}, r"dim_names: .* got 'horizon'"),
        ({"dim_names": {"output": "row"}}, r"dim_names: expected a different name for each"),
        ({"coords": {"rows": [1]}}, r"coords: expected labels of dimensions among .* got 'rows'"),
        ({"coords": {"row": [1]}}, r"coords\['row'\]: expected 7 labels, .* got 1"),
        ({"config": {1, 2}}, r"config: expected what JSON can hold.* got set"),
        ({"constant_data": {"x": torch.zeros(7)}}, r"constant_data\['x'\]: expected 7 rows, under"),
        ({"constant_data": {"w": torch.zeros(3)}}, r"constant_data\['w'\]: expected 7 rows"),
    ],
)
def test_bad_arguments_are_refused(given: dict[str, Any], text: str, x: Tensor, y: Tensor) -> None:
    with pytest.raises(InputError, match=text):
        export(Regression(2, 2, num_units=3), (x, y), **given)


def test_absent_groups_and_bad_data_are_refused(x: Tensor, y: Tensor) -> None:
    with pytest.raises(InputError, match=r"'log_likelihood' \(there are no targets\)"):
        export(Regression(2), x, groups=("log_likelihood",))
    with pytest.raises(InputError, match=r"'prior' \(nothing latent has a prior\)"):
        export(deterministic(Regression(2)), x, groups=("prior",))
    with pytest.raises(InputError, match=r"'unit_stats' \(no layer has an offered posterior"):
        export(deterministic(Regression(2)), x, groups=("unit_stats",))
    with pytest.raises(InputError, match=r"'posterior' \(nothing latent is random in the guide"):
        export(deterministic(Regression(2)), x, groups="posterior")
    with pytest.raises(InputError, match=r"data: expected at least one row"):
        export(Regression(2), [])
    with pytest.raises(
        InputError, match=r"data: expected a tuple .* a list of 2 tensors of 7 rows"
    ):
        export(Regression(2, 2), [x, y])
    with pytest.raises(InputError, match="y: expected finite values, got nan"):
        export(Regression(2, 2), (x, y.masked_fill(y > 0, math.nan)))
    with pytest.raises(InputError, match=r"y: expected shape \(7, 1\)"):
        export(Regression(2), (x, y))
    with pytest.raises(InputError, match=r"units: expected units by layer path"):
        export(DeepRegression(2), x, units=[0])
