"""Effects and transforms on neurons with memory, beside each other in both ways to run them."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule
from pyro_vdn.guides import NeuronGuide, StructuredPosterior
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO, PACmELBO
from pyro_vdn.nn import AutoregressiveNormal, NormalPosterior, VariationalNeurons
from pyro_vdn.nn.chain import GaussianChain
from pyro_vdn.nn.chain_kl import chain_kl, chain_unit_kl
from pyro_vdn.nn.neurons import Steps
from pyro_vdn.nn.scan import affine_scan
from pyro_vdn.poutine import clamp, dropout, kl_weight, record

ROWS, TIME, UNITS = 5, 7, 3


class Tracker(PyroModule):
    def __init__(self, steps: Steps, posterior: nn.Module | None = None) -> None:
        super().__init__()
        prior = AutoregressiveNormal(UNITS, phi=torch.tensor([0.5, 0.8, 0.95]))
        posterior = StructuredPosterior() if posterior is None else posterior
        self.neurons = VariationalNeurons(2, UNITS, prior=prior, posterior=posterior, steps=steps)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        with pyro.plate("rows", x.shape[-3], dim=-3):
            z = self.neurons(x)
            with pyro.plate("time", x.shape[-2], dim=-2):
                sampled: Tensor = pyro.sample("y", dist.Normal(z, 0.5), obs=y)
        return sampled


def pair() -> tuple[Tracker, Tracker]:
    parallel, markov = Tracker("parallel"), Tracker("markov")
    markov.load_state_dict(parallel.state_dict())
    return parallel, markov


def data() -> tuple[Tensor, Tensor]:
    return torch.randn(ROWS, TIME, 2), torch.randn(ROWS, TIME, UNITS)


@pytest.mark.parametrize(
    "effect",
    [
        lambda model: pyro.poutine.mask(model, mask=torch.ones(ROWS, TIME, 1) > 0),
        lambda model: pyro.poutine.scale(model, scale=torch.linspace(0.1, 1, TIME).unsqueeze(-1)),
        lambda model: kl_weight(model, torch.linspace(0.1, 1, TIME).unsqueeze(-1)),
        lambda model: clamp(model, {"neurons": {0: torch.arange(TIME).unsqueeze(-1)}}),
    ],
)
@pytest.mark.parametrize("loss", [Trace_ELBO(), LocalELBO()])
def test_effects_per_step_need_all_steps_at_one_site(effect, loss) -> None:
    parallel, markov = (effect(model) for model in pair())
    assert loss.loss(parallel, NeuronGuide(parallel), *data()) > 0
    with pytest.raises(InputError, match='steps="parallel"'):
        loss.loss(markov, NeuronGuide(markov), *data())


def test_particles_beside_a_step_that_is_held() -> None:
    held = pyro.condition(pair()[1], {"neurons.z_3": torch.ones(ROWS, 1, UNITS)})
    guide, args = NeuronGuide(held), data()
    many = Trace_ELBO(num_particles=4000, vectorize_particles=True, max_plate_nesting=3)
    local = LocalELBO(num_particles=4000).loss(held, guide, *args)
    assert many.loss(held, guide, *args) == pytest.approx(local, rel=2e-2)


def test_dropout_is_the_same_distribution() -> None:
    x, _ = data()
    parallel, markov = pair()
    mean = parallel.neurons.posterior(x, parallel.neurons.prior(x).expand((ROWS, TIME, UNITS))).mean
    for model in (parallel, markov):
        values = dropout(model.neurons, 0.5)(x)
        kept = (values - 2 * mean).abs() < 1e-9
        assert bool((kept | (values == 0)).all())
        assert 0 < int(kept.sum()) < kept.numel()


def test_record_under_clamp_is_the_same() -> None:
    x, _ = data()
    seen = []
    for model in pair():
        with record() as layers:
            clamp(model, {"neurons": {0: 0.3}})(x)
            NeuronGuide(clamp(model, {"neurons": {0: 0.3}}))(x)
        seen.append(layers["neurons"])
    for name in ("loc", "scale", "prior_variance", "kl"):
        first, second = (getattr(one, name).mean for one in seen)
        torch.testing.assert_close(first, second)
    assert seen[0].loc.mean[0] == pytest.approx(0.3)


class SecondOrder(nn.Module):
    """A posterior of higher order than its prior."""

    needs_prior = True

    def forward(self, h: Tensor, prior: GaussianChain, mask: Tensor | None) -> GaussianChain:
        coefficients = torch.tensor([0.5, 0.4]).expand(1, UNITS, 2)
        scale = torch.full((TIME, UNITS), 0.1)
        return GaussianChain(coefficients, h.sum(-1, keepdim=True), scale)


def test_a_posterior_of_higher_order_keeps_its_past() -> None:
    parallel, markov = Tracker("parallel", SecondOrder()), Tracker("markov", SecondOrder())
    x = torch.randn(1, TIME, 2).expand(4000, TIME, 2)
    with torch.no_grad():
        first, second = (NeuronGuide(model)(x) for model in (parallel, markov))
    values = torch.cat([second[f"neurons.z_{t}"] for t in range(TIME)], -2)
    error = first["neurons.z"].std(0) * (2 / 4000) ** 0.5
    assert bool(((first["neurons.z"].mean(0) - values.mean(0)).abs() < 5 * error).all())


def test_a_run_of_the_prior_evaluates_no_posterior() -> None:
    class Refusing(NormalPosterior):
        def forward(self, h: Tensor) -> dist.Distribution:
            raise AssertionError

    model = Tracker("markov", Refusing())
    x, _ = data()
    held = pyro.condition(model, {"neurons.z_2": torch.zeros(ROWS, 1, UNITS)})
    assert held(x).shape == (ROWS, TIME, UNITS)


def test_a_loop_needs_a_prior_over_time() -> None:
    with pytest.raises(InputError, match='prior over time for steps="markov"'):
        VariationalNeurons(2, 3, steps="markov")(torch.zeros(TIME, 2))


def test_a_closed_form_needs_all_steps_at_one_site() -> None:
    from pyro_vdn.models import StateSpace

    model = StateSpace(2, num_units=3)
    model.neurons.steps = "markov"
    loss = PACmELBO(closed_form=True)
    with pytest.raises(InputError, match='steps="parallel"'):
        loss.loss(model, NeuronGuide(model), torch.randn(4, TIME, 2), torch.randn(4, TIME, 1))


def test_a_potential_belongs_to_one_layer() -> None:
    potential = NormalPosterior()
    Tracker("parallel", StructuredPosterior(potential))
    with pytest.raises(InputError, match="a part of one layer"):
        Tracker("parallel", StructuredPosterior(potential))


def test_a_scale_without_time_is_one_for_every_step() -> None:
    coefficients = torch.full((1, 2, 1), 0.9)
    short = GaussianChain(coefficients, torch.zeros(5, 2), torch.ones(2))
    full = GaussianChain(coefficients, torch.zeros(5, 2), torch.ones(5, 2))
    torch.testing.assert_close(short.variance, full.variance)
    with pytest.raises(ValueError, match="scale"):
        GaussianChain(coefficients, None, -torch.ones(5, 2))


def chains() -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.rand(1, UNITS, 1, requires_grad=True),
        torch.randn(2, TIME, UNITS, requires_grad=True),
        torch.rand(TIME, UNITS).add(0.5).requires_grad_(),
    )


def unit_kl(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    prior = GaussianChain(0.5 * torch.ones(1, UNITS, 1), None, torch.ones(TIME, UNITS))
    return chain_unit_kl(GaussianChain(a, b, c), prior)


def test_second_derivatives_of_the_kl() -> None:
    assert torch.autograd.gradcheck(unit_kl, chains())
    assert torch.autograd.gradgradcheck(unit_kl, chains())


def test_the_kl_of_units_is_the_mean_of_that_of_steps() -> None:
    a, b, c = chains()
    prior = GaussianChain(0.5 * torch.ones(1, UNITS, 1), None, torch.ones(TIME, UNITS))
    steps = chain_kl(GaussianChain(a, b, c), prior)
    torch.testing.assert_close(unit_kl(a, b, c), steps.mean((0, 1)))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("in_dims", [(0, 0), (None, 0), (0, None), (1, 2)])
def test_scans_and_kls_are_mapped(in_dims: tuple[int | None, ...], reverse: bool) -> None:
    def scan(a: Tensor, u: Tensor) -> Tensor:
        return affine_scan(a, u, reverse=reverse)

    a, u = torch.rand(TIME, UNITS), torch.randn(4, TIME, UNITS)
    many_a = torch.stack([a + 0.1 * k for k in range(3)], in_dims[0] or 0)
    many_u = torch.stack([u + k for k in range(3)], in_dims[1] or 0)
    given = (a if in_dims[0] is None else many_a, u if in_dims[1] is None else many_u)
    mapped = torch.func.vmap(scan, in_dims=in_dims)(*given)
    for k in range(3):
        one = scan(a if in_dims[0] is None else a + 0.1 * k, u if in_dims[1] is None else u + k)
        torch.testing.assert_close(mapped[k], one)


def test_the_kl_is_mapped() -> None:
    a, b, c = chains()
    many = torch.stack([b, b + 1])
    mapped = torch.func.vmap(unit_kl, in_dims=(None, 0, None))(a, many, c)
    torch.testing.assert_close(mapped[1], unit_kl(a, b + 1, c))


@pytest.mark.parametrize("steps", ["parallel", "markov"])
@pytest.mark.parametrize("front", [True, False])
def test_padding_changes_nothing_that_is_recorded(steps: Steps, front: bool) -> None:
    layer = VariationalNeurons(
        2, UNITS, prior=AutoregressiveNormal(UNITS), posterior=NormalPosterior(), steps=steps
    )
    x = torch.randn(ROWS, TIME, 2)
    padding = torch.full((ROWS, 4, 2), torch.nan)
    padded = torch.cat([padding, x] if front else [x, padding], -2)
    seen = []
    for values in (x, padded):
        mask = values.isfinite().all(-1)
        with record() as layers:
            layer(values, mask)
        seen.append(layers[""])
    for name in ("loc", "scale", "energy", "prior_variance"):
        first, second = (getattr(one, name) for one in seen)
        assert first.count == second.count == ROWS * TIME
        torch.testing.assert_close(first.mean, second.mean)
    assert seen[0].innovation.count == seen[1].innovation.count == ROWS * (TIME - 1)
    torch.testing.assert_close(seen[0].innovation.mean, seen[1].innovation.mean)
    if not front:  # in front, the first step is charged for a past that is not known
        torch.testing.assert_close(seen[0].kl.mean, seen[1].kl.mean)
