"""What the chain benchmarks refer to, checked, and the benchmarks on small budgets."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from torch import Tensor
from typer.testing import CliRunner

from pyro_vdn.bench import chain_tables, evidence, nuts
from pyro_vdn.bench.app import app
from pyro_vdn.bench.chain_reference import curvature, exact_posterior, log_evidence
from pyro_vdn.bench.marginals import Marginals, distances, exact_marginals
from pyro_vdn.bench.seen_chains import SeenChains, distance_to_exact, fit_steps
from pyro_vdn.bench.small_chains import COUNTS, STUDENT_T, SmallChains
from pyro_vdn.infer import LocalELBO
from pyro_vdn.testing import LinearGaussianChain

PHI, SCALE, NOISE = torch.tensor([[0.9, -0.5], [0.4, 0.7], [0.5, 0.3]]).double()


def series(rows: int = 2, steps: int = 30) -> Tensor:
    return LinearGaussianChain(PHI, SCALE, NOISE).sample(steps, (rows,)).observed


def exact_model(noise: float = 0.5) -> SeenChains:
    """Return a model whose posterior is exact: each unit reads its own output, at its noise."""
    model = SeenChains(2, noise=noise)
    potential = model.neurons.posterior.potential
    with torch.no_grad():
        potential.loc.weight.copy_(torch.eye(2))
        potential.loc.bias.zero_()
        potential.multiply_scale_(torch.full((2,), noise), torch.ones(2))
    return model


def test_scalar_filter_is_the_dense_one() -> None:
    y = series()
    exact = LinearGaussianChain(PHI, SCALE, NOISE).log_evidence(y).sum()
    torch.testing.assert_close(log_evidence(y, PHI, SCALE, NOISE).sum(), exact)


def test_scalar_filter_takes_grids() -> None:
    y, phis = series(), torch.tensor([[0.9, -0.5], [0.1, 0.2], [0.3, 0.8]])
    together = log_evidence(y, phis, SCALE, NOISE)
    for row, phi in zip(together, phis, strict=True):
        torch.testing.assert_close(row, log_evidence(y, phi, SCALE, NOISE))


@pytest.mark.parametrize("learn_noise", [False, True])
def test_curvature_is_that_of_the_dense_evidence(learn_noise: bool) -> None:
    y, count = series(4), 3 if learn_noise else 2

    def evidence_of(values: Tensor) -> Tensor:
        phi, scale, noise = torch.cat([values, torch.stack([PHI, SCALE, NOISE])[count:]])
        return LinearGaussianChain(phi, scale, noise).log_evidence(y).sum()

    at = torch.stack([PHI, SCALE, NOISE])[:count]
    hessian = torch.autograd.functional.hessian(evidence_of, at).reshape(2 * count, 2 * count)
    slope = torch.autograd.functional.jacobian(evidence_of, at).reshape(-1)
    errors, step = curvature(y, PHI, SCALE, NOISE, learn_noise=learn_noise)
    torch.testing.assert_close(
        errors.reshape(-1), torch.linalg.inv(-hessian).diagonal().sqrt(), rtol=1e-6, atol=0.0
    )
    torch.testing.assert_close(step.reshape(-1), torch.linalg.solve(-hessian, slope))


def test_exact_posterior_against_draws_of_the_hyper_priors() -> None:
    y = series(1, 12)
    widths = (PHI, torch.full((2,), 0.3)), (SCALE, torch.full((2,), 0.4))
    found = exact_posterior(y, *widths, NOISE, level=0.8, points=300)
    phi = dist.Uniform(-1.0, 1.0).sample((200_000, 2))
    scale = dist.LogNormal(-1.0, 1.0).sample((200_000, 2))
    log_weights = log_evidence(y, phi, scale, NOISE)
    evidence_of_units = log_weights.logsumexp(0) - math.log(len(phi))
    assert found.log_evidence == pytest.approx(float(evidence_of_units.sum()), abs=0.02)
    weights = log_weights.softmax(0)
    for draws, (low, high) in ((phi, found.phi), (scale, found.scale)):
        assert (weights * (draws < low)).sum(0).tolist() == pytest.approx([0.1, 0.1], abs=0.01)
        assert (weights * (draws > high)).sum(0).tolist() == pytest.approx([0.1, 0.1], abs=0.01)


def test_bound_in_closed_form_is_that_of_draws() -> None:
    y, model = series(), SeenChains(2, noise=0.5)
    loss = LocalELBO(500, max_plate_nesting=4)
    losses = torch.tensor([loss.loss(model, NeuronGuide(model), y) for _ in range(20)])
    error = losses.std() / math.sqrt(len(losses))
    assert abs(model.elbo(y) + losses.mean()) < 4 * error


def test_exact_posterior_has_no_distance() -> None:
    y, model = series(), exact_model()
    assert max(map(abs, distance_to_exact(model, y).values())) < 1e-8


def test_distance_of_a_posterior_that_is_off() -> None:
    y, model = series(), exact_model()
    with torch.no_grad():
        model.neurons.posterior.potential.multiply_loc_(torch.tensor([1.0, 1.1]))
    off = distance_to_exact(model, y)
    assert off["gap"] > 1e-3
    assert off["mean_error"] == pytest.approx(0.1)
    assert off["variance_error"] < 1e-8
    potential = exact_model(0.5).neurons.posterior.potential
    model.neurons.posterior.potential = potential
    with torch.no_grad():
        potential.multiply_scale_(torch.tensor([1.0, 1.2]), torch.ones(2))
    assert distance_to_exact(model, y)["variance_error"] > 0.01


def test_known_noise_stays_and_learned_noise_moves() -> None:
    for learn_noise in (False, True):
        model = SeenChains(2, noise=0.5, learn_noise=learn_noise)
        fit_steps(model, NeuronGuide(model), LocalELBO(), series, steps=3, rate=0.03)
        moved = bool((model.log_noise.exp() - 0.5).abs().max() > 0.01)
        assert moved == learn_noise


def test_fit_comes_close_to_exact_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "TIME", 40)
    monkeypatch.setattr(evidence, "RATE", 0.1)
    setting = evidence.Setting("several sequences", rows=4, learn_noise=False)
    run = evidence.fit_point(setting, seed=0, steps=150)
    assert 0 < run["metrics"]["gap"] < 1e-2
    assert run["metrics"]["mean_error"] < 0.05
    for one in run["parameters"].values():
        off = torch.tensor(one["to_maximum"]) * torch.tensor(one["standard_error"])
        assert bool((off.abs() < 0.2).all())


def test_intervals_under_hyper_priors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "TIME", 40)
    monkeypatch.setattr(evidence, "RATE", 0.1)
    exact = evidence.fit_intervals(evidence.EXACT, seed=1, steps=0)
    fitted = evidence.fit_intervals("AutoNormal", seed=1, steps=150)
    assert 0 < fitted["metrics"]["gap"] < 4
    for name in ("phi", "scale"):
        ends, found = (
            torch.tensor(exact["intervals"][name]),
            torch.tensor(fitted["intervals"][name]),
        )
        assert bool((found[0] < found[1]).all())
        overlap = torch.minimum(ends[1], found[1]) - torch.maximum(ends[0], found[0])
        assert bool((overlap > 0.5 * (ends[1] - ends[0])).all())


def test_grid_integrates_a_linear_gaussian_chain() -> None:
    y = series(2, 10)
    grid = torch.linspace(-8, 8, 1601)
    found = exact_marginals(
        lambda z: dist.Normal(z, NOISE[:, None]).log_prob(y.unsqueeze(-1)), PHI, SCALE, grid
    )
    exact = LinearGaussianChain(PHI, SCALE, NOISE).smoothed(y)
    torch.testing.assert_close(found.mean, exact.mean)
    torch.testing.assert_close(found.scale, exact.variance.sqrt())
    normal = Marginals.of_normal(dist.Normal(exact.mean, exact.variance.sqrt()), grid)
    torch.testing.assert_close(found.cdf, normal.cdf, atol=1e-4, rtol=0.0)


def test_marginals_of_draws() -> None:
    normal = dist.Normal(torch.tensor([[[1.0, -2.0]]]), torch.tensor([[[0.5, 2.0]]]))
    grid = torch.linspace(-12, 12, 2001)
    found = Marginals.of_draws(normal.sample((20_000,)), grid)
    off = distances(found, Marginals.of_normal(normal, grid), grid)
    assert off["mean_worst"] < 0.03
    assert off["ratio_low"] > 0.98
    assert 0 < off["wasserstein_worst"] < 0.03


def test_distances_of_normals() -> None:
    """Shifted normals are apart by their shift; scaled ones by `E|z|` times the difference."""
    grid = torch.linspace(-30, 30, 6001)
    zero = torch.zeros(1, 1, 2)
    reference = Marginals.of_normal(dist.Normal(zero, 2.0), grid)
    found = Marginals.of_normal(
        dist.Normal(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[2.0, 3.0]]])), grid
    )
    off = distances(found, reference, grid)
    assert (off["mean"], off["mean_worst"]) == pytest.approx((0.25, 0.5))
    assert (off["ratio"], off["ratio_low"], off["ratio_high"]) == pytest.approx((1.25, 1.0, 1.5))
    scaled = 0.5 * math.sqrt(2 / math.pi)
    assert off["wasserstein_worst"] == pytest.approx(0.5, abs=1e-4)
    assert off["wasserstein"] == pytest.approx(0.5 * (0.5 + scaled), abs=1e-4)


@pytest.mark.parametrize("name", nuts.POSTERIORS)
@pytest.mark.parametrize("kind", [STUDENT_T, COUNTS])
def test_marginals_are_those_of_the_guide(name: str, kind: str) -> None:
    model = SmallChains(kind, nuts.POSTERIORS[name]())
    y = model.simulate(3, 6)
    found = model.marginals(y)
    site = pyro.poutine.trace(NeuronGuide(model)).get_trace(y).nodes["neurons.z"]["fn"]
    torch.testing.assert_close(found.mean, site.mean)
    torch.testing.assert_close(found.variance, site.variance)
    assert found.batch_shape == y.shape == (3, 6, 2)


def runs_of(path: Path) -> list[dict[str, Any]]:
    results: dict[str, Any] = json.loads(path.read_text())
    runs: list[dict[str, Any]] = results["runs"]
    return runs


@pytest.mark.slow
def test_evidence_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "TIME", 20)
    out = tmp_path / "evidence.json"
    result = CliRunner().invoke(app, ["evidence", "--sets=2", "--steps=2", f"--out={out}"])
    assert result.exit_code == 0, result.output
    names = [*(one.name for one in evidence.SETTINGS), *evidence.GUIDES, evidence.EXACT]
    runs = runs_of(out)
    assert [(run["seed"], run["method"]) for run in runs] == [
        (seed, name) for seed in (0, 1) for name in names
    ]
    assert ["parameters" in run for run in runs[:5]] == [True, True, False, False, False]


@pytest.mark.slow
def test_nuts_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nuts, "TIME", 4)
    out = tmp_path / "nuts.json"
    result = CliRunner().invoke(app, ["nuts", "--steps=2", "--draws=20", f"--out={out}"])
    assert result.exit_code == 0, result.output
    methods = [run["method"] for run in runs_of(out) if run["kind"] == COUNTS]
    assert methods[0] == nuts.METHOD
    assert [name for name in methods if nuts.HERE in name] == [
        f"{name}, {nuts.HERE}" for name in nuts.LOOKING_AHEAD
    ]
    assert len(methods) == 1 + len(nuts.POSTERIORS) + len(nuts.LOOKING_AHEAD)


def test_counts_of_tables() -> None:
    run = {
        "method": "a",
        "parameters": {"phi": {"estimate": [0.5, 0.9, 0.7], "standard_error": [0.1, 0.1, None]}},
        "intervals": {"phi": [[0.4, 0.2], [0.6, 0.3]]},
    }
    assert chain_tables.within([run], "phi", [0.69] * 3) == [True, False, False]
    assert chain_tables.covered([run], "phi", [0.5, 0.5]) == [True, False]
