"""The prior of neurons that remember: fixed, learned, and with hyper-priors."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from pyro_vdn.guides import NeuronGuide, without_neurons
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO
from pyro_vdn.nn import AutoregressiveNormal, GaussianChain, LayerShape, VariationalNeurons
from pyro_vdn.testing import LinearGaussianChain

UNITS, TIME = 2, 7
#: Stationary coefficients of both units by order.
PHI = {
    1: torch.tensor([[0.8], [-0.5]], dtype=torch.float64),
    2: torch.tensor([[0.6, 0.3], [0.5, -0.7]], dtype=torch.float64),
    3: torch.tensor([[0.8, -0.3, 0.2], [-0.4, 0.1, 0.3]], dtype=torch.float64),
}
SCALE = torch.tensor([0.5, 1.5], dtype=torch.float64)


def hyper() -> dict[str, Any]:
    """Hyper-priors, made inside of a test for its dtype."""
    return {"phi": dist.Uniform(-1.0, 1.0), "scale": dist.LogNormal(-1.0, 0.3)}


def make_prior(order: int, **kwargs: Any) -> AutoregressiveNormal:
    given = {"phi": PHI[order].to(torch.get_default_dtype()), "scale": SCALE} | kwargs
    return AutoregressiveNormal(UNITS, order=order, **given)


def covariance_of(chain: GaussianChain) -> Tensor:
    """Covariance of the steps of each unit, `(units, time, time)`, from responses to shocks."""
    time = chain.batch_shape[-2]
    moves = torch.zeros(UNITS, time, time)
    a = chain.coefficients.expand(time, UNITS, chain.order)
    for step in range(time):
        for lag in range(1, min(chain.order, step) + 1):
            moves[:, step, step - lag] = a[step, :, lag - 1]
    response = torch.linalg.inv(torch.eye(time) - moves) * chain.scale.mT.unsqueeze(-2)
    return response @ response.mT


# --- the chain ---


@pytest.mark.parametrize("learn", [True, False])
@pytest.mark.parametrize("time", [1, 2, 3, TIME])
@pytest.mark.parametrize("order", PHI)
def test_is_the_stationary_process(order: int, time: int, learn: bool) -> None:
    chain = make_prior(order, learn=learn)(torch.zeros(3, time, 5))
    assert chain.batch_shape == (time, UNITS)
    exact = LinearGaussianChain(PHI[order], SCALE, torch.ones(UNITS))
    steps = torch.arange(time)
    for unit in range(UNITS):
        start = unit * order
        state = exact.start[start : start + order, start : start + order]
        move = exact.move[start : start + order, start : start + order]
        known = [(torch.linalg.matrix_power(move, lag) @ state)[0, 0] for lag in range(time)]
        theory = torch.stack(known)[(steps[:, None] - steps).abs()]
        torch.testing.assert_close(covariance_of(chain)[unit], theory)
    torch.testing.assert_close(chain.mean, torch.zeros(time, UNITS))


@pytest.mark.parametrize("order", PHI)
def test_every_step_has_the_stationary_scale(order: int) -> None:
    prior = make_prior(order)
    variance = prior(torch.zeros(TIME, 5)).variance
    torch.testing.assert_close(variance, prior.stationary_scale().square().expand(TIME, UNITS))


@pytest.mark.parametrize("order", PHI)
def test_draws_have_the_autocovariance(order: int) -> None:
    chain, number = make_prior(order)(torch.zeros(TIME, 5)), 50_000
    draws = chain.sample(torch.Size((number,))).mT
    for unit in range(UNITS):
        exact = covariance_of(chain)[unit]
        error = (exact.square() + exact[0, 0] ** 2).sqrt() / number**0.5
        assert bool(((torch.cov(draws[:, unit].mT) - exact).abs() < 5 * error).all())


@pytest.mark.parametrize("order", PHI)
def test_says_what_it_was_given(order: int) -> None:
    prior = make_prior(order)
    torch.testing.assert_close(prior.coefficients(), PHI[order])
    torch.testing.assert_close(prior.innovation_scale(), SCALE)


def test_by_default_every_unit_has_a_prior_variance_of_one() -> None:
    prior = AutoregressiveNormal(3)
    torch.testing.assert_close(prior.coefficients(), torch.full((3, 1), 0.9))
    torch.testing.assert_close(prior.stationary_scale(), torch.ones(3))
    several = AutoregressiveNormal(UNITS, phi=PHI[3], order=3)
    torch.testing.assert_close(several.stationary_scale(), torch.ones(UNITS))


@pytest.mark.parametrize(
    ("phi", "order", "expected"),
    [
        (0.7, 1, [[0.7], [0.7]]),
        (0.7, 3, [[0.7, 0.0, 0.0], [0.7, 0.0, 0.0]]),
        (torch.tensor([0.7, -0.2]), 1, [[0.7], [-0.2]]),
        (torch.tensor([[0.7], [-0.2]]), 1, [[0.7], [-0.2]]),
        (torch.tensor([0.7, -0.2, 0.1]), 3, [[0.7, -0.2, 0.1], [0.7, -0.2, 0.1]]),
    ],
)
def test_forms_of_phi(phi: Any, order: int, expected: list[list[float]]) -> None:
    prior = AutoregressiveNormal(UNITS, phi=phi, order=order)
    torch.testing.assert_close(prior.coefficients(), torch.tensor(expected), rtol=1e-6, atol=1e-6)


# --- learning ---


@pytest.mark.parametrize(
    ("learn", "parameters"),
    [
        (True, {"raw_partials", "raw_scale"}),
        (False, set()),
        (("phi",), {"raw_partials"}),
        (["scale"], {"raw_scale"}),
        ((), set()),
    ],
)
def test_what_is_learned(learn: Any, parameters: set[str]) -> None:
    prior = make_prior(2, learn=learn)
    assert {name for name, _ in prior.named_parameters()} == parameters
    assert {"raw_partials", "raw_scale"} == set(prior.state_dict())
    value = torch.randn(TIME, UNITS)
    if parameters:
        prior(torch.zeros(TIME, 5)).log_prob(value).sum().backward()
        assert all(bool((p.grad != 0).all()) for p in prior.parameters() if p.grad is not None)
        assert all(p.grad is not None for p in prior.parameters())


@pytest.mark.parametrize("order", PHI)
def test_gradient_is_that_of_the_exact_log_density(order: int) -> None:
    prior, value = make_prior(order), torch.randn(TIME, UNITS)
    mine = torch.autograd.grad(
        prior(torch.zeros(TIME, 5)).log_prob(value).sum(), list(prior.parameters())
    )
    phi, scale = prior.coefficients(), prior.innovation_scale()
    exact = LinearGaussianChain(phi, scale, torch.full((UNITS,), 1e-6))
    theirs = torch.autograd.grad(exact.log_evidence(value), list(prior.parameters()))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("step", [1e6, -1e6])
@pytest.mark.parametrize("order", PHI)
def test_stays_stationary_and_finite_after_a_huge_step(order: int, step: float) -> None:
    prior = make_prior(order)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(step)
    chain = prior(torch.zeros(TIME, 5))
    if order == 1:
        assert bool((prior.coefficients().abs() < 1).all())
    for row in prior.coefficients():
        companion = torch.cat([row.unsqueeze(0), torch.eye(order)[:-1]])
        assert bool((torch.linalg.eigvals(companion).abs() < 1).all())
    assert bool(prior.stationary_scale().isfinite().all())
    assert bool((chain.scale > 0).all())
    assert bool(chain.log_prob(torch.randn(TIME, UNITS)).isfinite().all())


def test_learns_phi_and_scale_of_a_series() -> None:
    truth = LinearGaussianChain(torch.tensor([0.9, -0.3]), SCALE, torch.ones(UNITS))
    series = truth.sample(400, (20,)).latent
    prior = AutoregressiveNormal(UNITS, phi=0.1, scale=1.0)
    optimiser = torch.optim.LBFGS(prior.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = -prior(series).log_prob(series).mean()
        value.backward()
        return value

    optimiser.step(loss)
    errors = ((1 - truth.phi.square()) / 8_000).sqrt()  # of the maximum likelihood estimate
    assert bool(((prior.coefficients() - truth.phi).abs() < 4 * errors).all())
    relative = (prior.innovation_scale() / SCALE - 1).abs()
    assert bool((relative < 4 / (2 * 8_000) ** 0.5).all())


def test_scale_stays_above_its_floor() -> None:
    prior = make_prior(1, min_scale=0.2)
    torch.testing.assert_close(prior.innovation_scale(), SCALE)
    with torch.no_grad():
        prior.raw_scale.fill_(-50.0)
    torch.testing.assert_close(prior.innovation_scale(), torch.full((UNITS,), 0.2))


def test_state_round_trips() -> None:
    prior, other = make_prior(3), AutoregressiveNormal(UNITS, order=3)
    other.load_state_dict(prior.state_dict())
    torch.testing.assert_close(other.coefficients(), prior.coefficients())
    torch.testing.assert_close(other.innovation_scale(), prior.innovation_scale())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("order", PHI)
def test_dtype(order: int, dtype: torch.dtype) -> None:
    prior = make_prior(order).to(dtype)
    chain = prior(torch.zeros(TIME, 5, dtype=dtype))
    draw = chain.rsample()
    assert {draw.dtype, chain.log_prob(draw).dtype, prior.coefficients().dtype} == {dtype}


def test_default_dtype_of_float32() -> None:
    torch.set_default_dtype(torch.float32)
    layer = VariationalNeurons(3, UNITS, prior=make_prior(2))
    assert layer(torch.zeros(4, TIME, 3)).dtype == torch.float32
    torch.testing.assert_close(layer.prior.coefficients(), PHI[2].float(), rtol=1e-5, atol=1e-6)


# --- errors ---


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AutoregressiveNormal(2, phi=1.0), r"phi: expected coefficients of a stationary"),
        (
            lambda: AutoregressiveNormal(2, phi=torch.tensor([0.8, 0.4]), order=2),
            r"phi: expected coefficients of a stationary .*got .*0\.8",
        ),
        (
            lambda: AutoregressiveNormal(2, phi=torch.zeros(3)),
            r"phi: expected a number, or shape \(1,\) or \(2, 1\), got shape \(3,\)",
        ),
        (
            lambda: AutoregressiveNormal(2, phi=torch.zeros(3, 2), order=2),
            r"phi: expected a number, or shape \(2,\) or \(2, 2\), got shape \(3, 2\)",
        ),
        (
            lambda: AutoregressiveNormal(2, scale=1e-4),
            r"scale: expected innovation scales above min_scale=0.001, got 0.0001",
        ),
        (
            lambda: AutoregressiveNormal(2, scale=torch.tensor([0.5, -1.0])),
            r"scale: expected innovation scales above min_scale=0.001, got \[0.5, -1.0\]",
        ),
        (
            lambda: AutoregressiveNormal(2, phi=dist.Normal(0.0, 1.0), scale=1.0),
            r"phi: expected a scalar hyper-prior on \(-1.0, 1.0\), got Normal of shape \(\)",
        ),
        (
            lambda: AutoregressiveNormal(2, phi=dist.Uniform(-1.0, 1.5), scale=1.0),
            r"phi: expected a scalar hyper-prior on \(-1.0, 1.0\), got Uniform",
        ),
        (
            lambda: AutoregressiveNormal(
                2, phi=dist.Uniform(-torch.ones(2), torch.ones(2)), scale=1.0
            ),
            r"phi: expected a scalar hyper-prior .*got Uniform of shape \(2,\)",
        ),
        (
            lambda: AutoregressiveNormal(2, scale=dist.Normal(0.0, 1.0)),
            r"scale: expected a scalar hyper-prior on \(0.0, inf\), got Normal",
        ),
        (
            lambda: AutoregressiveNormal(2, phi=dist.Uniform(-1.0, 1.0)),
            r"scale: expected a number, a tensor or a distribution beside a hyper-prior of phi",
        ),
        (
            lambda: AutoregressiveNormal(2, learn="phi"),
            r"learn: expected True, False, or a collection of .* without hyper-priors, got 'phi'",
        ),
        (lambda: AutoregressiveNormal(2, learn=("phi", "order")), r"learn: expected True, False"),
        (lambda: AutoregressiveNormal(0), r"num_units: expected a positive integer, got 0"),
        (lambda: AutoregressiveNormal(2, order=0), r"order: expected a positive integer, got 0"),
        (
            lambda: VariationalNeurons(3, 4, prior=AutoregressiveNormal(2)),
            r"AutoregressiveNormal: expected a layer of 2 units of one latent dimension, "
            r"got num_units=4, latent_dim=1",
        ),
        (
            lambda: VariationalNeurons(3, 2, latent_dim=3, prior=AutoregressiveNormal(2)),
            r"got num_units=2, latent_dim=3.*AutoregressiveNormal\(6\)",
        ),
        (
            lambda: AutoregressiveNormal(2)(torch.zeros(3)),
            r"input of neurons with memory: expected shape \(..., time, features\) with at least "
            r"one step, got shape \(3,\)",
        ),
        (lambda: AutoregressiveNormal(2)(torch.zeros(4, 0, 3)), r"got shape \(4, 0, 3\)"),
        (
            lambda: AutoregressiveNormal(2, **hyper()).coefficients(),
            r"AutoregressiveNormal: expected hyperparameters that are known, got latent ones",
        ),
        (lambda: AutoregressiveNormal(2, **hyper()).innovation_scale(), r"inside of `with prior.d"),
        (lambda: AutoregressiveNormal(2, **hyper()).stationary_scale(), r"inside of `with prior.d"),
    ],
)
def test_errors(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_a_prior_belongs_to_one_layer() -> None:
    prior = AutoregressiveNormal(4)
    VariationalNeurons(3, 4, prior=prior)
    with pytest.raises(InputError, match="AutoregressiveNormal: expected a part of one layer"):
        VariationalNeurons(3, 4, prior=prior)


def test_bind_takes_the_layer_it_was_made_for() -> None:
    prior = AutoregressiveNormal(4)
    prior.bind(LayerShape(3, 4, 1))
    assert VariationalNeurons(3, 4, prior=prior).prior is prior


# --- hyper-priors ---


class Model(PyroModule):
    """Neurons with hyper-priors under a likelihood."""

    def __init__(self, order: int = 1, **kwargs: Any) -> None:
        super().__init__()
        prior = AutoregressiveNormal(UNITS, order=order, **(hyper() | kwargs))
        self.neurons = VariationalNeurons(3, UNITS, prior=prior)
        self.read = nn.Linear(UNITS, 1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        prior = self.neurons.prior
        assert isinstance(prior, AutoregressiveNormal)
        with prior.drawn(), pyro.plate("rows", x.shape[-3], dim=-3):
            z = self.neurons(x)
            with pyro.plate("time", x.shape[-2], dim=-2):
                outcome: Tensor = pyro.sample("y", dist.Normal(self.read(z), 0.5), obs=y)
        return outcome


PARTICLES: dict[str, Any] = {
    "num_particles": 3,
    "vectorize_particles": True,
    "max_plate_nesting": 3,
}


def given(order: int, phi: Tensor, scale: Tensor) -> GaussianChain:
    """The prior chain of given hyperparameters, each of its shape without particles."""
    values = phi.reshape(UNITS, *(order,) * (order > 1))
    data = {latent(order): values, "scale": scale.reshape(UNITS)}
    with pyro.poutine.condition(data=data):
        chain: GaussianChain = AutoregressiveNormal(UNITS, order=order, **hyper())(
            torch.zeros(TIME, 3)
        )
    return chain


def latent(order: int) -> str:
    """Return the last part of the name of the latent site behind `phi`."""
    return "phi" if order == 1 else "partials"


@pytest.mark.parametrize("order", [1, 2])
def test_hyper_priors_are_global_sites(order: int) -> None:
    model = Model(order)
    trace = pyro.poutine.trace(model).get_trace(torch.randn(4, TIME, 3))
    phi, scale = (trace.nodes[f"neurons.prior.{name}"] for name in (latent(order), "scale"))
    assert phi["fn"].batch_shape == scale["fn"].batch_shape == (UNITS,)
    assert phi["fn"].event_shape == ((order,) if order > 1 else ())
    assert [frame.name for frame in phi["cond_indep_stack"]] == [
        f"neurons.prior.{latent(order)}.units"
    ]
    assert [frame.name for frame in scale["cond_indep_stack"]] == ["neurons.prior.scale.units"]
    # The chain that was sampled is the one of these draws.
    expected = given(order, phi["value"], scale["value"])
    site = trace.nodes["neurons.z"]
    draw = torch.randn(TIME, UNITS)
    torch.testing.assert_close(site["fn"].log_prob(draw), expected.log_prob(draw).expand(4, -1, -1))
    torch.testing.assert_close(site["fn"].scale[-1], scale["value"])
    named = trace.nodes["neurons.prior.phi"]["value"].reshape(UNITS, order)
    torch.testing.assert_close(site["fn"].coefficients[-1], named)


def test_one_hyper_prior_beside_a_learned_value() -> None:
    only_phi = AutoregressiveNormal(UNITS, phi=hyper()["phi"], scale=0.5)
    assert {name for name, _ in only_phi.named_parameters()} == {"raw_scale"}
    only_scale = AutoregressiveNormal(UNITS, phi=0.5, scale=hyper()["scale"])
    assert {name for name, _ in only_scale.named_parameters()} == {"raw_partials"}
    for prior, site in ((only_phi, "phi"), (only_scale, "scale")):
        trace = pyro.poutine.trace(prior).get_trace(torch.zeros(TIME, 3))
        assert [name for name in trace.stochastic_nodes if "units" not in name] == [site]


def test_drawn_holds_inside_of_its_block_alone() -> None:
    prior = AutoregressiveNormal(UNITS, order=2, **hyper())
    with prior.drawn():
        assert torch.equal(prior.coefficients(), prior.coefficients())
        assert prior.coefficients().shape == (UNITS, 2)
        scale = prior.innovation_scale()
        chain = prior(torch.zeros(TIME, 3))
        torch.testing.assert_close(chain.scale[-1], scale)
        torch.testing.assert_close(
            chain.variance, prior.stationary_scale().square().expand(TIME, UNITS)
        )
    with pytest.raises(InputError, match="known"):
        prior.coefficients()
    with prior.drawn():
        assert not torch.equal(prior.innovation_scale(), scale)


def test_drawn_is_left_after_an_error() -> None:
    prior = AutoregressiveNormal(UNITS, **hyper())
    with pytest.raises(ZeroDivisionError), prior.drawn():
        _ = 1 / 0
    with pytest.raises(InputError, match="known"):
        prior.innovation_scale()


def test_drawn_is_harmless_where_nothing_is_latent() -> None:
    prior = make_prior(1)
    with prior.drawn():
        torch.testing.assert_close(prior.coefficients(), PHI[1])
    prior(torch.zeros(TIME, 3)).log_prob(torch.ones(TIME, UNITS)).sum().backward()
    assert prior.raw_scale.grad is not None


def test_global_draws_inside_of_rows_are_refused() -> None:
    layer = VariationalNeurons(3, UNITS, prior=AutoregressiveNormal(UNITS, **hyper()))
    message = (
        r"site 'prior.phi': expected a global draw, outside of plates of rows, got one inside of "
        r"plate 'rows'.*layer.prior.drawn\(\)"
    )
    with pytest.raises(InputError, match=message), pyro.plate("rows", 4, dim=-3):
        layer(torch.zeros(4, TIME, 3))


def test_a_layer_outside_of_plates_draws_them_itself() -> None:
    layer = VariationalNeurons(3, UNITS, prior=AutoregressiveNormal(UNITS, **hyper()))
    trace = pyro.poutine.trace(layer).get_trace(torch.zeros(TIME, 3))
    assert {"prior.phi", "prior.scale", "z"} <= set(trace.stochastic_nodes)


@pytest.mark.parametrize("order", [1, 2])
def test_particles_have_hyperparameters_each(order: int) -> None:
    model, x = Model(order), torch.randn(4, TIME, 3)
    with pyro.plate("num_particles_vectorized", 5, dim=-4):
        trace = pyro.poutine.trace(model).get_trace(x)
    site = trace.nodes["neurons.z"]
    assert site["fn"].batch_shape == (5, 4, TIME, UNITS)
    log_prob = site["fn"].log_prob(site["value"])
    phi, scale = (
        trace.nodes[f"neurons.prior.{name}"]["value"] for name in (latent(order), "scale")
    )
    assert len(phi.reshape(5, -1).unique(dim=0)) == 5
    for particle in range(5):
        alone = given(order, phi[particle], scale[particle])
        value = site["value"][particle]
        torch.testing.assert_close(log_prob[particle], alone.log_prob(value))


@pytest.mark.parametrize("loss", [Trace_ELBO, LocalELBO])
@pytest.mark.parametrize("order", [1, 2])
def test_a_guide_of_the_hyperparameters_learns(order: int, loss: Any) -> None:
    model = Model(order)
    x, y = torch.randn(4, TIME, 3), torch.randn(4, TIME, 1)
    guide = NeuronGuide(model, others=AutoNormal(without_neurons(model)))
    value = loss(**PARTICLES).differentiable_loss(model, guide, x, y)
    value.backward()
    others = dict(guide.named_parameters())
    assert len(others) == 4
    still = [
        name
        for name, parameter in (*others.items(), *model.named_parameters())
        if parameter.grad is None or not bool((parameter.grad != 0).any())
    ]
    assert still == []


def test_vectorised_particles_estimate_the_same_bound() -> None:
    model = Model(2)
    x, y = torch.randn(4, TIME, 3), torch.randn(4, TIME, 1)
    guide = NeuronGuide(model, others=AutoNormal(without_neurons(model)))
    guide(x, y)
    losses = []
    for vectorize in (True, False):
        pyro.set_rng_seed(1)
        options = PARTICLES | {"num_particles": 200, "vectorize_particles": vectorize}
        with torch.no_grad():
            losses.append(float(Trace_ELBO(**options).loss(model, guide, x, y)))
    with torch.no_grad():
        single = torch.tensor([Trace_ELBO().loss(model, guide, x, y) for _ in range(60)])
    assert abs(losses[0] - losses[1]) < 5 * float(single.std()) * (2 / 200) ** 0.5


@pytest.mark.parametrize("parallel", [True, False])
def test_predictive(parallel: bool) -> None:
    model = Model(1)
    x, y = torch.randn(4, TIME, 3), torch.randn(4, TIME, 1)
    guide = NeuronGuide(model, others=AutoNormal(without_neurons(model)))
    guide(x, y)
    sites = ("neurons.prior.phi", "neurons.prior.scale", "neurons.z", "y")
    draws = Predictive(model, guide=guide, num_samples=6, parallel=parallel, return_sites=sites)(x)
    assert draws["y"].shape == (6, 4, TIME, 1)
    assert draws["neurons.z"].shape == (6, 4, TIME, UNITS)
    # Draws of all plates are kept to the left of global ones.
    assert draws["neurons.prior.phi"].reshape(6, UNITS).unique(dim=0).shape == (6, UNITS)
    assert bool((draws["neurons.prior.phi"].abs() < 1).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("phi", [0.5, 0.999, 0.99998])
def test_the_prior_variance_is_one_near_one_too(phi: float, dtype: torch.dtype) -> None:
    prior = AutoregressiveNormal(2, phi=phi, min_scale=0.0).to(dtype)
    torch.testing.assert_close(
        prior.stationary_scale(), torch.ones(2, dtype=dtype), rtol=1e-3, atol=0
    )
    assert prior.coefficients().dtype == dtype


def test_half_precision_stays_finite() -> None:
    prior = AutoregressiveNormal(2, phi=0.999).bfloat16()
    chain = prior(torch.zeros(TIME, 3, dtype=torch.bfloat16))
    assert chain.scale.dtype == torch.bfloat16
    assert bool(chain.scale.isfinite().all())


def test_hyper_parameters_take_the_dtype_of_the_input() -> None:
    one = torch.ones((), dtype=torch.float32)
    prior = AutoregressiveNormal(2, phi=dist.Uniform(-one, one), scale=dist.LogNormal(-one, one))
    assert prior(torch.zeros(TIME, 3)).scale.dtype == torch.float64


def test_an_inner_draw_is_the_outer_one() -> None:
    prior = AutoregressiveNormal(2, **hyper())
    with prior.drawn():
        outer = prior.coefficients()
        with prior.drawn():
            assert torch.equal(prior.coefficients(), outer)
        assert torch.equal(prior.coefficients(), outer)


def test_what_is_given_as_a_tensor_is_copied() -> None:
    phi = torch.tensor(0.5, requires_grad=True)
    prior = copy.deepcopy(AutoregressiveNormal(2, phi=phi, learn=False))
    assert not prior.coefficients().requires_grad


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AutoregressiveNormal(2, phi=0.999999), "phi: expected partial autocorr"),
        (lambda: AutoregressiveNormal(2, phi="0.9"), "phi: expected a number, a tensor"),
        (lambda: AutoregressiveNormal(4, scale=torch.ones(3)), r"scale: .* shape \(4,\), got"),
        (lambda: AutoregressiveNormal(2, scale=math.inf), "scale: expected innovation scales"),
        (lambda: AutoregressiveNormal(2, min_scale=-1.0), "min_scale: expected at least 0"),
        (lambda: AutoregressiveNormal(2, **hyper(), learn=("phi",)), "without hyper-priors"),
    ],
)
def test_more_errors(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
