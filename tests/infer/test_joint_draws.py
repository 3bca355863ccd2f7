"""Joint draws: which are shared, how they are cut, and that nothing is lost by it."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from pyro.poutine.trace_struct import Trace
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import Regression, VariationalGPT
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.infer import joint_draws, log_density
from pyro_vdn.infer.joint_draws import chunks_of_draws, draw_jointly, look_at
from pyro_vdn.nn import NormalPosterior, VariationalNeurons
from pyro_vdn.poutine import deterministic


class Levels(PyroModule):
    """A global vector in a plate at the place of rows, rows in a plate of another size."""

    def __init__(self) -> None:
        super().__init__()
        posterior = NormalPosterior("unit", initial_scale=0.01)
        self.neurons = VariationalNeurons(2, 4, posterior=posterior)
        self.readout = nn.Linear(4, 1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        with pyro.plate("groups", 3, dim=-2):
            levels = pyro.sample("levels", dist.Normal(torch.zeros(3, 1), 2.0))
        with pyro.plate("data", x.shape[-2], dim=-2):
            loc = 0.01 * self.readout(self.neurons(x)) + levels.mean(-2, keepdim=True)
            return pyro.sample("y", dist.Normal(loc, 0.1), obs=y)


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("cut", [2, 3])
def test_sites_outside_of_rows_are_shared(guided: bool, cut: int) -> None:
    """Also where a chunk happens to have as many rows as another plate in their place."""
    model, x = Levels(), torch.randn(5, 2)
    guide, shared = NeuronGuide(model) if guided else None, Trace()
    calls = [
        draw_jointly(model, guide, (x[part],), 7, site="y", shared=shared)
        for part in (slice(0, cut), slice(cut, 5))
    ]
    first, second = (call.latents["levels"]["value"] for call in calls)
    assert first.shape == (7, 3, 1)
    assert torch.equal(first, second)
    assert list(shared.nodes) == ["levels"]
    assert [call.outcome["value"].shape for call in calls] == [(7, cut, 1), (7, 5 - cut, 1)]


class FixedRows(PyroModule):
    """A plate of rows that holds three of them, whatever comes."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        with pyro.plate("data", 3, dim=-2):
            z = pyro.sample("z", dist.Normal(x, 0.01))
            return pyro.sample("y", dist.Normal(z, 0.01), obs=y)


def test_rows_of_a_plate_of_fixed_size_are_not_shared() -> None:
    x = torch.arange(6.0).unsqueeze(-1)
    for chunk in chunks_of_draws(FixedRows(), None, (x,), 5, batch_size=3, site="y"):
        for node in (chunk.values.latents["z"], chunk.values.outcome):
            torch.testing.assert_close(
                node["value"].mean(0), x[chunk.rows], atol=0.1, rtol=0, check_dtype=False
            )


@pytest.mark.parametrize("hidden", [[], ["levels"], ["levels", "neurons.z"]])
def test_what_a_guide_leaves_out_comes_from_the_prior(hidden: list[str]) -> None:
    """Once for all rows where it is shared, and among the latent sites."""
    model, x, levels = Levels(), torch.randn(5, 2), []
    guide = pyro.poutine.block(NeuronGuide(model), hide=hidden)
    for chunk in chunks_of_draws(model, guide, (x,), 7, batch_size=2, site="y"):
        latents = chunk.values.latents
        assert set(latents) == {"levels", "neurons.z"}
        levels.append(latents["levels"]["value"])
        # Far wider than the posterior, whose scale is 0.01.
        assert (latents["neurons.z"]["fn"].stddev.min() > 0.5) == ("neurons.z" in hidden)
    assert len(levels) == 3
    assert all(torch.equal(level, levels[0]) for level in levels)


def test_a_guide_may_name_its_plate_of_rows_otherwise() -> None:
    def guide(x: Tensor) -> None:
        with pyro.plate("its own", len(x), dim=-2), pyro.plate("units", 4, dim=-1):
            pyro.sample("neurons.z", dist.Normal(x[:, :1], torch.ones(len(x), 4)))

    model, x = Regression(2, num_units=4), torch.arange(10.0).reshape(5, 2)
    for chunk in chunks_of_draws(model, guide, (x,), 50, batch_size=2, site="y"):
        z = chunk.values.latents["neurons.z"]["value"]
        error = (z - x[chunk.rows, :1]).mean(0).abs()
        assert error.max() < 5 / math.sqrt(50)


@pytest.mark.parametrize(
    ("budget", "batch_size", "num_samples"), [(1, 4, 3), (40, 2, 7), (40, 9, 7), (10**6, 4, 7)]
)
def test_chunks_hold_each_draw_of_each_row_once(
    budget: int, batch_size: int, num_samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joint_draws, "CHUNK_ELEMENTS", budget)
    model = Levels()
    seen = torch.zeros(num_samples, 9)
    width = look_at(model, (torch.zeros(9, 2),)).width
    assert width == 3 + 4 + 1
    levels: dict[int, Tensor] = {}
    for chunk in chunks_of_draws(
        model,
        NeuronGuide(model),
        (torch.randn(9, 2),),
        num_samples,
        batch_size=batch_size,
        site="y",
    ):
        seen[chunk.draws, chunk.rows] += 1
        draws, rows = chunk.draws.stop - chunk.draws.start, chunk.rows.stop - chunk.rows.start
        assert chunk.values.outcome["value"].shape == (draws, rows, 1)
        assert rows <= batch_size
        assert draws * rows * width <= max(budget, width)
        value = chunk.values.latents["levels"]["value"]
        assert torch.equal(value, levels.setdefault(chunk.draws.start, value))
    assert (seen == 1).all()


@pytest.mark.parametrize("budget", [30, 10**6])
def test_density_of_the_mixture_is_that_of_all_draws(
    budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Independent of rows and neurons, `y ~ Normal(0, 4/3 + 0.01)` up to what the readout adds."""
    model, x = Levels(), torch.randn(3, 2)
    y = torch.tensor([[0.0], [2.0], [-1.0]])
    monkeypatch.setattr(joint_draws, "CHUNK_ELEMENTS", budget * 8)
    with torch.no_grad():
        model.readout.weight.zero_()
        model.readout.bias.zero_()
    count = 600 if budget == 30 else 40_000
    per_output, joint = log_density(model, NeuronGuide(model), x, y, num_samples=count)
    expected = dist.Normal(0.0, math.sqrt(4 / 3 + 0.01)).log_prob(y)
    tolerance = 5 / math.sqrt(count)
    torch.testing.assert_close(per_output, expected, atol=tolerance, rtol=0)
    torch.testing.assert_close(joint, per_output[:, 0])


def test_points_have_the_density_of_their_likelihood_however_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pyro.infer.autoguide import AutoDelta

    model, x, y = Regression(2, 2, num_units=3), torch.randn(6, 2), torch.randn(6, 2)
    y[1, 0] = torch.nan
    model.reads_missing = True
    guide = AutoDelta(model)
    guide(x)
    whole = log_density(model, guide, x, y, num_samples=5)
    monkeypatch.setattr(joint_draws, "CHUNK_ELEMENTS", 6 * 5 * 2)
    torch.testing.assert_close(
        log_density(model, guide, x, y, num_samples=5), whole, equal_nan=True
    )
    with torch.no_grad():
        z = guide(x)["neurons.z"]
        log_prob = model.likelihood(model.readout(z)).log_prob(y.nan_to_num())
    expected = log_prob.masked_fill(y.isnan(), torch.nan)
    torch.testing.assert_close(whole[0], expected, equal_nan=True)
    torch.testing.assert_close(whole[1], expected.nansum(-1))


def test_a_look_counts_classes_and_leaves_no_trace() -> None:
    model = VariationalGPT(11, block_size=6, num_layers=1, width=4, num_heads=2)
    state = torch.random.get_rng_state()
    with pyro.poutine.trace() as outside:
        look = look_at(model, (torch.zeros(3, 6, dtype=torch.long),))
    assert look.width == 6 * 16 + 6 * 11
    assert look.dim == -4
    assert not [site for site in outside.trace.nodes if site in look.sites]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_site_that_is_not_there_is_named() -> None:
    model = deterministic(Regression(2))
    with pytest.raises(InputError, match=r"site: expected one of .* got 'z'"):
        draw_jointly(model, None, (torch.zeros(2, 2),), 3, site="z", shared=Trace())
