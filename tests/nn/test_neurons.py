"""The layer: shapes, names, dtypes, gradients, parts written by users, local reconstruction."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from pyro_vdn.guides import NeuronGuide
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO
from pyro_vdn.nn import (
    ConditionalNormal,
    LayerShape,
    LearnedNormal,
    NormalPosterior,
    StandardNormal,
    VariationalNeurons,
)
from pyro_vdn.nn.plates import NeuronDraws, NeuronPlate, SiteEffects
from pyro_vdn.nn.shapes import inverse_softplus
from pyro_vdn.nn.sites import layer_of, local_site, units_plate
from pyro_vdn.poutine import PosteriorMessenger, deterministic
from pyro_vdn.testing import posterior_by_hand, randomise

PRIORS = [StandardNormal, LearnedNormal, ConditionalNormal]
SCALES = ["shared", "unit", "input", "low_rank"]


def site_of(layer: nn.Module, h: Tensor, *, posterior: bool = False) -> dict[str, Any]:
    program = PosteriorMessenger()(layer) if posterior else layer
    return dict(pyro.poutine.trace(program).get_trace(h).nodes["z"])


# --- shapes ---


@pytest.mark.parametrize("posterior", [False, True], ids=["prior", "posterior"])
@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize("num_units", [1, 4])
@pytest.mark.parametrize("batch", [(), (1,), (4,), (0, 5), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("make_prior", PRIORS)
def test_shapes(
    make_prior: Any, batch: tuple[int, ...], num_units: int, latent_dim: int, posterior: bool
) -> None:
    layer = VariationalNeurons(5, num_units, latent_dim=latent_dim, prior=make_prior())
    site = site_of(layer, torch.randn(*batch, 5), posterior=posterior)
    event = (latent_dim,) if latent_dim > 1 else ()
    assert site["fn"].batch_shape == (*batch, num_units)
    assert site["fn"].event_shape == event
    assert site["value"].shape == (*batch, num_units, *event)
    assert layer(torch.randn(*batch, 5)).shape == (*batch, num_units)


@pytest.mark.parametrize(("pool", "width"), [("mean", 4), ("sum", 4), ("flatten", 12)])
def test_pools(pool: Any, width: int) -> None:
    layer = VariationalNeurons(5, 4, latent_dim=3, pool=pool)
    trace = pyro.poutine.trace(layer).get_trace(torch.randn(2, 5))
    z, output = trace.nodes["z"]["value"], trace.nodes["_RETURN"]["value"]
    by_hand = {"mean": z.sum(-1) / 3, "sum": z.sum(-1), "flatten": z.reshape(2, 12)}
    assert output.shape == (2, width)
    torch.testing.assert_close(output, by_hand[pool])


@pytest.mark.parametrize("rows", [0, 1])
def test_empty_and_single_batches_have_a_loss(rows: int) -> None:
    layer = VariationalNeurons(4, 3)  # in no plate: Pyro's own have no size of zero
    terms = LocalELBO().terms(layer, NeuronGuide(layer), torch.zeros(rows, 4))
    assert terms.kl[""].shape == (3,)
    assert (terms.loss == 0) == (rows == 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("make_prior", PRIORS)
def test_dtype_is_kept(make_prior: Any, dtype: torch.dtype) -> None:
    layer = VariationalNeurons(5, 4, latent_dim=2, prior=make_prior(), local_reconstruction=True)
    layer = layer.to(dtype)
    h = torch.randn(3, 5).to(dtype)
    for posterior in (False, True):
        site = site_of(layer, h, posterior=posterior)
        assert site["value"].dtype == dtype
    assert layer(h).dtype == deterministic(layer)(h).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_losses_keep_the_dtype(dtype: torch.dtype) -> None:
    model = Net(VariationalNeurons(4, 3)).to(dtype)
    x = torch.randn(5, 4).to(dtype)
    assert LocalELBO().differentiable_loss(model, NeuronGuide(model), x).dtype == dtype


# --- posterior and prior ---


@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize("scale", SCALES)
def test_posterior_formula(scale: Any, latent_dim: int) -> None:
    layer = VariationalNeurons(
        5, 4, latent_dim=latent_dim, posterior=NormalPosterior(scale, rank=2, min_scale=0.05)
    )
    randomise(layer)
    h = torch.randn(2, 3, 5)
    q, (loc, spread) = layer.posterior(h), posterior_by_hand(layer, h)
    torch.testing.assert_close(q.mean, loc)
    torch.testing.assert_close(q.stddev, spread)
    assert (q.stddev > 0.05).all()
    varies = {"shared": (False, False), "unit": (True, False)}.get(scale, (True, True))
    across_units = q.stddev.flatten(2).std(-1).max() > 1e-12
    across_rows = q.stddev.flatten(2).flatten(0, 1).std(0).max() > 1e-12
    assert (across_units.item(), across_rows.item()) == varies


@pytest.mark.parametrize("initial", [0.05, 0.3, 1.5])
@pytest.mark.parametrize("scale", SCALES)
def test_initial_scale(scale: Any, initial: float) -> None:
    layer = VariationalNeurons(5, 4, posterior=NormalPosterior(scale, initial_scale=initial))
    stddev = layer.posterior(torch.randn(7, 5)).stddev
    torch.testing.assert_close(stddev, torch.full_like(stddev, initial), rtol=0.02, atol=0)


@pytest.mark.parametrize(("in_features", "num_units"), [(50, 50), (256, 1024), (4, 3)])
def test_low_rank_head_is_small(in_features: int, num_units: int) -> None:
    layer = VariationalNeurons(in_features, num_units, posterior=NormalPosterior("low_rank"))
    head = sum(p.numel() for p in layer.posterior.raw_scale.parameters())
    rank = layer.posterior.raw_scale[0].out_features
    biases = num_units + rank
    assert rank >= 1
    assert head - biases <= 0.05 * in_features * num_units or rank == 1
    larger = (in_features + num_units) * (rank + 1)
    assert larger > 0.05 * in_features * num_units  # the largest rank that fits


def test_identity_location() -> None:
    layer = VariationalNeurons(4, 4, posterior=NormalPosterior(loc="identity"))
    h = torch.randn(3, 4)
    torch.testing.assert_close(deterministic(layer)(h), h)


@pytest.mark.parametrize("initial", [0.4, 1.0])
@pytest.mark.parametrize("make_prior", [LearnedNormal, ConditionalNormal])
def test_prior_starts_at_its_scale(make_prior: Any, initial: float) -> None:
    layer = VariationalNeurons(5, 4, prior=make_prior(initial_scale=initial))
    prior = layer.prior(torch.zeros(2, 5))
    torch.testing.assert_close(prior.mean, torch.zeros_like(prior.mean))
    torch.testing.assert_close(prior.stddev, torch.full_like(prior.stddev, initial))


def test_conditional_prior_formula() -> None:
    layer = VariationalNeurons(5, 4, prior=ConditionalNormal(min_scale=0.1))
    randomise(layer)
    h, prior = torch.randn(3, 5), layer.prior
    expected = h @ prior.loc.weight.T + prior.loc.bias
    raw = h @ prior.raw_scale.weight.T + prior.raw_scale.bias
    torch.testing.assert_close(prior(h).mean, expected)
    torch.testing.assert_close(prior(h).stddev, 0.1 + torch.log1p(raw.exp()))


class OneMethodPrior(nn.Module):
    def forward(self, h: Tensor) -> dist.Distribution:
        return dist.Laplace(0.5, 2.0)


class FunctionalPrior(nn.Module):
    """A prior of one method whose batch shape follows its input."""

    def forward(self, h: Tensor) -> dist.Distribution:
        return dist.StudentT(5.0, h.mean(-1, keepdim=True), 1.0)


@pytest.mark.parametrize(
    ("make_prior", "latent_dim"), [(OneMethodPrior, 1), (OneMethodPrior, 3), (FunctionalPrior, 1)]
)
def test_user_prior_of_one_method(make_prior: Any, latent_dim: int) -> None:
    layer = VariationalNeurons(5, 4, latent_dim=latent_dim, prior=make_prior())
    h = torch.randn(3, 5)
    trace = pyro.poutine.trace(layer).get_trace(h)
    trace.compute_log_prob()
    site = trace.nodes["z"]
    prior = make_prior()(h)
    each = prior.log_prob(site["value"])
    torch.testing.assert_close(site["log_prob"], each.sum(-1) if latent_dim > 1 else each)
    model = Net(layer, width=4, features=5)
    loss = TraceMeanField_ELBO().loss_and_grads(model, NeuronGuide(model), h)
    assert math.isfinite(loss)


@pytest.mark.parametrize("local", [False, True], ids=["plain", "local"])
@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("make_prior", PRIORS)
def test_every_parameter_gets_a_gradient(
    make_prior: Any, scale: Any, latent_dim: int, local: bool
) -> None:
    layer = VariationalNeurons(
        4,
        3,
        latent_dim=latent_dim,
        prior=make_prior(),
        posterior=NormalPosterior(scale),
        local_reconstruction=local,
    )
    model = Net(layer)
    randomise(model)
    LocalELBO().loss_and_grads(model, NeuronGuide(model), torch.randn(5, 4))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any(), name


# --- names ---


class Net(PyroModule):
    """Something with neurons, observed at zero."""

    def __init__(self, body: nn.Module, *, width: int = 3, features: int = 4) -> None:
        super().__init__()
        self.body = body
        self.readout = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            loc = self.readout(self.body(x))
            pyro.sample("y", dist.Normal(loc, 1.0), obs=torch.zeros_like(loc))


class Plain(nn.Module):
    """A plain module with two layers of neurons and a list of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = VariationalNeurons(4, 3)
        self.more = nn.ModuleList([VariationalNeurons(3, 3) for _ in range(2)])
        self.tail = nn.Sequential(nn.Tanh(), VariationalNeurons(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        for layer in self.more:
            h = layer(h)
        return self.tail(h)


class Inner(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.neurons(x)


class Outer(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = Inner(), Inner()
        self.deep = nn.Sequential(nn.Identity(), nn.Sequential(Inner()))

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) + self.right(x) + self.deep(x)


CASES: dict[str, tuple[Any, list[str]]] = {
    "sequential": (
        lambda: nn.Sequential(VariationalNeurons(4, 3), nn.Tanh(), VariationalNeurons(3, 3)),
        ["body.0", "body.2"],
    ),
    "plain": (Plain, ["body.first", "body.more.0", "body.more.1", "body.tail.1"]),
    "pyro": (
        Outer,
        ["body.left.neurons", "body.right.neurons", "body.deep.1.0.neurons"],
    ),
    "bare": (lambda: VariationalNeurons(4, 3), ["body"]),
}


@pytest.mark.parametrize("twice", [False, True], ids=["original", "deepcopy"])
@pytest.mark.parametrize("name", CASES)
def test_names(name: str, twice: bool) -> None:
    make, paths = CASES[name]
    model = Net(make())
    model = copy.deepcopy(model) if twice else model
    trace = pyro.poutine.trace(model).get_trace(torch.randn(5, 4))
    sites = [site for site in trace.nodes if site.endswith("z")]
    assert sorted(sites) == sorted(f"{path}.z" for path in paths)
    for path in paths:
        frames = trace.nodes[f"{path}.z"]["cond_indep_stack"]
        assert {(frame.name, frame.dim) for frame in frames} == {
            (f"{path}.units", -1),
            ("data", -2),
        }
        assert isinstance(model.get_submodule(path), VariationalNeurons)


@pytest.mark.parametrize("name", CASES)
def test_names_below_wrappers_are_the_same(name: str) -> None:
    make, paths = CASES[name]
    model, x = Net(make()), torch.randn(5, 4)
    seen: set[str] = set()

    class Names(pyro.poutine.messenger.Messenger):
        def _pyro_sample(self, msg: dict[str, Any]) -> None:
            seen.add(msg["name"])

    module = Trace_ELBO()(model, NeuronGuide(model))
    with Names():
        module(x).backward()
        SVI(model, NeuronGuide(model), pyro.optim.Adam({}), loss=Trace_ELBO()).step(x)
        LocalELBO()(model, NeuronGuide(model))(x)
    assert {site for site in seen if site.endswith("z")} == {f"{path}.z" for path in paths}


@pytest.mark.parametrize("name", ["sequential", "plain"])
def test_names_without_a_pyro_module(name: str) -> None:
    make, paths = CASES[name]
    trace = pyro.poutine.trace(make()).get_trace(torch.randn(5, 4))
    sites = {site for site in trace.nodes if site.endswith("z")}
    assert sites == {f"{path.removeprefix('body.')}.z" for path in paths}


def test_bare_layer_has_short_names() -> None:
    trace = pyro.poutine.trace(VariationalNeurons(4, 3, local_reconstruction=True)).get_trace(
        torch.randn(5, 4)
    )
    assert {"z", "units", "local"} <= set(trace.nodes)


def test_two_models_keep_their_names() -> None:
    first, second = Net(VariationalNeurons(4, 3)), Net(Plain())
    names = [
        set(pyro.poutine.trace(model).get_trace(torch.ones(2, 4)).nodes)
        for model in (first, second, first)
    ]
    assert names[0] == names[2] != names[1]


def test_a_moved_layer_takes_its_new_name() -> None:
    layer = VariationalNeurons(4, 3)
    first = Net(layer)
    assert "body.z" in pyro.poutine.trace(first).get_trace(torch.ones(2, 4)).nodes
    first.body = nn.Sequential(layer)
    assert "body.0.z" in pyro.poutine.trace(first).get_trace(torch.ones(2, 4)).nodes


@pytest.mark.parametrize("path", ["", "a", "a.b.2"])
def test_names_and_paths(path: str) -> None:
    site = f"{path}.z" if path else "z"
    assert layer_of(site) == path
    assert units_plate(path).removesuffix("units").removesuffix(".") == path
    assert local_site(path).removesuffix("local").removesuffix(".") == path


def test_round_trips() -> None:
    layer = VariationalNeurons(4, 3, prior=LearnedNormal(), local_reconstruction=True)
    randomise(layer)
    other = VariationalNeurons(4, 3, prior=LearnedNormal(), local_reconstruction=True)
    other.load_state_dict(layer.state_dict())
    for one in (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        pyro.set_rng_seed(0)
        expected = layer(torch.ones(2, 4))
        pyro.set_rng_seed(0)
        torch.testing.assert_close(one(torch.ones(2, 4)), expected)


def test_printed_form() -> None:
    assert "4, 3, latent_dim=2, pool='sum'" in repr(
        VariationalNeurons(4, 3, latent_dim=2, pool="sum")
    )


# --- local reconstruction ---


@pytest.mark.parametrize("latent_dim", [1, 3])
def test_local_reconstruction_by_hand(latent_dim: int) -> None:
    layer = VariationalNeurons(4, 3, latent_dim=latent_dim, local_reconstruction=True)
    randomise(layer)
    decoder = layer.local_decoder
    h = torch.randn(5, 4, requires_grad=True)
    trace = pyro.poutine.trace(layer).get_trace(h)
    trace.compute_log_prob()
    z = trace.nodes["z"]["value"]
    weighted = decoder.weight * z
    loc = (weighted.sum(-1) if latent_dim > 1 else weighted) + decoder.bias
    scale = 1e-2 + F.softplus(decoder.raw_scale)
    target = h @ decoder.projection.T
    site = trace.nodes["local"]
    assert site["is_observed"]
    torch.testing.assert_close(site["value"], target.detach())
    torch.testing.assert_close(site["log_prob"], dist.Normal(loc, scale).log_prob(target))
    assert not site["value"].requires_grad


def test_local_elbo_learns_to_reconstruct() -> None:
    layer = VariationalNeurons(4, 3, local_reconstruction=True)
    x = torch.randn(64, 4)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            layer(x)

    guide = NeuronGuide(model)
    before = LocalELBO().terms(model, guide, x)
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.02)
    for _ in range(200):
        optimiser.zero_grad()
        LocalELBO().loss_and_grads(model, guide, x)
        optimiser.step()
    after = LocalELBO().terms(model, guide, x)
    assert (after.local_elbo("") > before.local_elbo("")).all()
    torch.testing.assert_close(after.loss, -after.local_elbo("").sum())


# --- refusals ---


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"in_features": 0}, "in_features: expected a positive integer, got 0"),
        ({"num_units": -1}, "num_units: expected a positive integer, got -1"),
        ({"num_units": 2.0}, r"num_units: expected a positive integer, got 2\.0"),
        ({"latent_dim": 0}, "latent_dim: expected a positive integer, got 0"),
        ({"pool": "max"}, r"pool: expected one of \('mean', 'sum', 'flatten'\), got 'max'"),
    ],
)
def test_refuses_sizes(kwargs: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        VariationalNeurons(**({"in_features": 4, "num_units": 3} | kwargs))


@pytest.mark.parametrize(
    ("h", "text"),
    [
        (
            torch.zeros(2, 5),
            r"input of VariationalNeurons: expected shape \(\.\.\., 4\), got shape",
        ),
        (torch.zeros(()), r"expected shape \(\.\.\., 4\), got shape \(\)"),
        (
            torch.zeros(2, 4, dtype=torch.long),
            r"expected a floating-point tensor, got torch\.int64",
        ),
    ],
)
def test_refuses_inputs(h: Tensor, text: str) -> None:
    with pytest.raises(InputError, match=text):
        VariationalNeurons(4, 3)(h)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: NormalPosterior("diagonal"), "scale: expected one of"),  # type: ignore[arg-type]
        (lambda: NormalPosterior(loc="zero"), "loc: expected one of"),  # type: ignore[arg-type]
        (
            lambda: VariationalNeurons(4, 3, posterior=NormalPosterior(loc="identity")),
            "loc: expected an input of 3 features for loc='identity', got 4 features",
        ),
        (
            lambda: VariationalNeurons(4, 3, posterior=NormalPosterior(initial_scale=1e-3)),
            "initial_scale: expected a value above min_scale",
        ),
        (
            lambda: VariationalNeurons(4, 3, prior=LearnedNormal(initial_scale=0.0)),
            "initial_scale: expected a value above min_scale",
        ),
    ],
)
def test_refuses_parts(make: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        make()


@pytest.mark.parametrize("part", ["prior", "posterior"])
def test_refuses_a_part_of_another_layer(part: str) -> None:
    parts = {"prior": LearnedNormal(), "posterior": NormalPosterior()}
    VariationalNeurons(4, 3, **{part: parts[part]})
    with pytest.raises(InputError, match="expected a part of one layer, got one that another"):
        VariationalNeurons(4, 3, **{part: parts[part]})


# --- small parts ---


@pytest.mark.parametrize("value", [1e-6, 0.5, 3.0, 80.0])
def test_inverse_softplus(value: float) -> None:
    assert F.softplus(torch.tensor(inverse_softplus(value))).item() == pytest.approx(
        value, rel=1e-9
    )


@pytest.mark.parametrize(("latent_dim", "latent", "event_dim"), [(1, (4,), 0), (2, (4, 2), 1)])
def test_layer_shape(latent_dim: int, latent: tuple[int, ...], event_dim: int) -> None:
    shape = LayerShape(3, 4, latent_dim)
    assert shape.latent == latent
    assert shape.event_dim == event_dim


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (SiteEffects(1.0, None, None), None),
        (SiteEffects(torch.ones(3), None, None), None),
        (SiteEffects(0.5, None, None), "scale"),
        (SiteEffects(1.0, torch.tensor([True, False]), None), "mask"),
        (SiteEffects(1.0, None, False), "silenced"),
    ],
)
def test_site_effects(other: SiteEffects, difference: str | None) -> None:
    assert SiteEffects(1.0, None, None).difference(other) == difference


def test_plate_and_draws() -> None:
    with NeuronPlate("units", 3):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
    draws = NeuronDraws({"z": z}, effects={"z": SiteEffects(1.0, None, None)})
    assert z.shape == (3,)
    assert draws["z"] is z
    assert draws.effects["z"].scale == 1.0


class PerUnitPrior(nn.Module):
    """A prior of one location per unit that says nothing about latent dimensions."""

    def forward(self, h: Tensor) -> dist.Distribution:
        return dist.Normal(torch.tensor([0.0, 10.0, 20.0]), 1.0)


def test_a_prior_per_unit_is_not_taken_for_one_per_latent_dimension() -> None:
    layer = VariationalNeurons(4, 3, latent_dim=3, prior=PerUnitPrior())
    with pytest.raises(InputError, match=r"an event of 3 latent dimensions, or a scalar.*\(3,\)"):
        layer(torch.zeros(1, 4))
