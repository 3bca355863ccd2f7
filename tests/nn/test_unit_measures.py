"""Energy and KL per unit: values and gradients of the plain formulas, remembered with care."""

from __future__ import annotations

from collections.abc import Callable

import pyro.distributions as dist
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from torch import Tensor

from pyro_vdn.infer import LocalELBO
from pyro_vdn.nn import LearnedNormal, VariationalNeurons
from pyro_vdn.nn.normals import ShiftedNormal, UnitNormal
from pyro_vdn.nn.unit_measures import over_rows, precise, unit_energy, unit_kl
from pyro_vdn.poutine import PosteriorMessenger, record
from pyro_vdn.testing import NeuronStack, loss_and_grads, randomise

ROWS, UNITS = 6, 3


def unit_normal(*shape: int) -> dist.Distribution:
    normal = UnitNormal(torch.zeros(()), torch.ones(()))
    return normal.expand([*shape]) if shape else normal


#: Shapes of location and scale, and how they are expanded, if at all.
SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...] | None]] = {
    "one row": ((1, UNITS), (UNITS,), None),
    "scale per unit": ((ROWS, UNITS), (UNITS,), None),
    "one scale": ((ROWS, UNITS), (), None),
    "scale per row and unit": ((ROWS, UNITS), (ROWS, UNITS), None),
    "scale per row": ((ROWS, UNITS), (ROWS, 1), None),
    "for every particle": ((ROWS, UNITS), (UNITS,), (4, ROWS, UNITS)),
    "particles of their own": ((4, ROWS, UNITS), (ROWS, UNITS), None),
    "the same for all rows": ((UNITS,), (UNITS,), (ROWS, UNITS)),
    "the same for all": ((), (), (ROWS, UNITS)),
}


def parameters_of(name: str) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    loc_shape, scale_shape, expanded = SHAPES[name]
    loc = torch.randn(loc_shape).requires_grad_()
    scale = torch.rand(scale_shape).add(0.1).requires_grad_()
    return loc, scale, expanded or torch.broadcast_shapes(loc_shape, scale_shape)


def assert_same(mine: Tensor, plain: Tensor, *leaves: Tensor) -> None:
    """Values are equal, and so are gradients of a sum with uneven weights."""
    assert mine.shape == (UNITS,)
    torch.testing.assert_close(mine, plain, rtol=1e-12, atol=1e-12)
    weights = torch.tensor([1.0, -2.0, 0.5])
    grads = [
        torch.autograd.grad((weights * value).sum(), leaves, allow_unused=True)
        for value in (mine, plain)
    ]
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [dist.Normal, ShiftedNormal])
@pytest.mark.parametrize("name", SHAPES)
def test_energy(name: str, kind: Callable[..., dist.Distribution]) -> None:
    loc, scale, shape = parameters_of(name)
    posterior = kind(loc, scale).expand(torch.Size(shape))
    plain = loc.expand(shape).square().reshape(-1, UNITS).mean(0)
    assert_same(unit_energy(posterior), plain, loc)


@pytest.mark.parametrize("name", SHAPES)
def test_kl_from_the_unit_normal(name: str) -> None:
    loc, scale, shape = parameters_of(name)
    posterior = ShiftedNormal(loc, scale).expand(torch.Size(shape))
    m, s = loc.expand(shape), scale.expand(shape)
    plain = (0.5 * (m**2 + s**2 - 2 * s.log() - 1)).reshape(-1, UNITS).mean(0)
    mine = unit_kl(posterior, unit_normal(*shape))
    assert mine is not None
    assert_same(mine, plain, loc, scale)


@pytest.mark.parametrize("prior_shape", [(), (UNITS,), (ROWS, UNITS)])
@pytest.mark.parametrize("name", ["scale per unit", "scale per row and unit", "one scale"])
def test_kl_from_a_learned_prior(name: str, prior_shape: tuple[int, ...]) -> None:
    loc, scale, shape = parameters_of(name)
    n = torch.randn(prior_shape).requires_grad_()
    t = torch.rand(prior_shape).add(0.5).requires_grad_()
    posterior, prior = ShiftedNormal(loc, scale), dist.Normal(n, t).expand(torch.Size(shape))
    plain = torch.log(t / scale) + (scale**2 + (loc - n) ** 2) / (2 * t**2) - 0.5
    mine = unit_kl(posterior, prior)
    assert mine is not None
    assert_same(mine, plain.expand(shape).reshape(-1, UNITS).mean(0), loc, scale, n, t)


@pytest.mark.parametrize("shared", [True, False])
def test_latent_dimensions_are_averaged_in_energy_and_summed_in_kl(shared: bool) -> None:
    loc = torch.randn(ROWS, UNITS, 2).requires_grad_()
    scale = torch.rand((UNITS, 2) if shared else (ROWS, UNITS, 2)).add(0.1).requires_grad_()
    posterior = ShiftedNormal(loc, scale).to_event(1)
    prior = unit_normal(ROWS, UNITS, 2).to_event(1)
    assert_same(unit_energy(posterior), loc.square().mean((0, 2)), loc)
    kl = unit_kl(posterior, prior)
    assert kl is not None
    plain = (0.5 * (loc**2 + scale**2 - 2 * scale.log() - 1)).sum(-1).mean(0)
    assert_same(kl, plain, loc, scale)


def test_no_closed_form() -> None:
    posterior = dist.Normal(torch.zeros(ROWS, UNITS), 1.0)
    assert unit_kl(posterior, dist.StudentT(4.0, torch.zeros(ROWS, UNITS), 1.0)) is None


def test_an_empty_batch_has_no_energy_and_no_nan() -> None:
    posterior = dist.Normal(torch.zeros(0, UNITS, requires_grad=True), torch.ones(UNITS))
    assert unit_energy(posterior).tolist() == [0.0] * UNITS
    kl = unit_kl(posterior, unit_normal(0, UNITS))
    assert kl is not None
    assert kl.tolist() == [0.0] * UNITS
    learned = unit_kl(posterior, dist.Normal(torch.zeros(UNITS), 2.0))
    assert learned is not None
    assert not learned.isnan().any()


def test_an_empty_batch_does_not_move_the_prior_s_location() -> None:
    posterior = dist.Normal(torch.zeros(0, UNITS, requires_grad=True), torch.ones(UNITS))
    loc = torch.full((UNITS,), 3.0, requires_grad=True)
    kl = unit_kl(posterior, dist.Normal(loc, 2.0))
    assert kl is not None
    (grad,) = torch.autograd.grad(kl.sum(), loc)
    assert grad.tolist() == [0.0] * UNITS


@pytest.mark.parametrize("prior_shape", [(), (1,), (UNITS,)])
@pytest.mark.parametrize("name", SHAPES)
def test_the_kl_to_one_prior_for_all_rows(name: str, prior_shape: tuple[int, ...]) -> None:
    loc, scale, shape = parameters_of(name)
    n = torch.randn(prior_shape).requires_grad_()
    t = torch.rand(prior_shape).add(0.5).requires_grad_()
    posterior = ShiftedNormal(loc, scale).expand(torch.Size(shape))
    plain = torch.log(t / scale) + (scale**2 + (loc - n) ** 2) / (2 * t**2) - 0.5
    prior = dist.Normal(n, t).expand(torch.Size(shape))
    mine = unit_kl(posterior, prior)
    assert mine is not None
    assert_same(mine, plain.expand(shape).reshape(-1, UNITS).mean(0), loc, scale, n, t)


def test_the_kl_to_one_prior_does_not_keep_rows_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_vdn.nn import unit_measures

    def no_table(*_: object) -> None:
        raise AssertionError("the KL of every row was asked for")

    monkeypatch.setattr(unit_measures, "closed_form_kl", no_table)
    posterior = ShiftedNormal(torch.randn(ROWS, UNITS), torch.ones(UNITS))
    assert unit_kl(posterior, dist.Normal(torch.ones(UNITS), 2.0)) is not None
    with pytest.raises(AssertionError, match="every row"):
        unit_kl(posterior, dist.Normal(torch.ones(ROWS, UNITS), 2.0))


@pytest.mark.parametrize("latent_dim", [2, UNITS])
def test_latent_dimensions_to_a_learned_prior(latent_dim: int) -> None:
    loc = torch.randn(ROWS, UNITS, latent_dim).requires_grad_()
    scale = torch.rand(UNITS, latent_dim).add(0.1).requires_grad_()
    n = torch.randn(UNITS, latent_dim).requires_grad_()
    t = torch.rand(UNITS, latent_dim).add(0.5).requires_grad_()
    mine = unit_kl(ShiftedNormal(loc, scale).to_event(1), dist.Normal(n, t).to_event(1))
    plain = torch.log(t / scale) + (scale**2 + (loc - n) ** 2) / (2 * t**2) - 0.5
    assert mine is not None
    assert_same(mine, plain.sum(-1).mean(0), loc, scale, n, t)


def test_second_derivatives_to_a_learned_prior() -> None:
    leaves = (
        torch.randn(ROWS, UNITS, requires_grad=True),
        torch.rand(UNITS).add(0.5).requires_grad_(),
        torch.randn(UNITS, requires_grad=True),
        torch.rand(UNITS).add(0.5).requires_grad_(),
    )

    def kl(m: Tensor, s: Tensor, n: Tensor, t: Tensor) -> Tensor:
        found = unit_kl(ShiftedNormal(m, s), dist.Normal(n, t))
        assert found is not None
        return found

    assert torch.autograd.gradcheck(kl, leaves)
    assert torch.autograd.gradgradcheck(kl, leaves)


def test_the_kl_to_one_prior_under_vmap() -> None:
    locs, centres = torch.randn(4, ROWS, UNITS), torch.randn(4, UNITS)

    def kl(loc: Tensor, centre: Tensor) -> Tensor:
        posterior = dist.Normal(loc, 0.5, validate_args=False)
        found = unit_kl(posterior, dist.Normal(centre, 2.0, validate_args=False))
        assert found is not None
        return found.sum()

    mine = torch.vmap(kl)(locs, centres)
    expected = [kl(loc, centre) for loc, centre in zip(locs, centres, strict=True)]
    torch.testing.assert_close(mine, torch.stack(expected))
    grads = torch.vmap(torch.func.grad(kl, argnums=(0, 1)))(locs, centres)
    torch.testing.assert_close(grads[0], (locs - centres[:, None]) / 4 / ROWS)
    torch.testing.assert_close(grads[1], (centres - locs.mean(1)) / 4)


@pytest.mark.parametrize("centre", [0.0, 30.0, 1000.0])
def test_nothing_cancels_far_from_zero_in_single_precision(centre: float) -> None:
    """Location and prior lie far from 0 and close together: squares would lose it all."""
    loc = (centre + 0.1 * torch.randn(500, UNITS)).float().requires_grad_()
    n = torch.full((UNITS,), centre, dtype=torch.float32, requires_grad=True)
    ones = torch.ones(UNITS, dtype=torch.float32)
    mine = unit_kl(ShiftedNormal(loc, ones), dist.Normal(n, ones))
    assert mine is not None
    exact = 0.5 * (loc.double() - n.double()).square().mean(0)
    torch.testing.assert_close(mine.double(), exact, rtol=1e-5, atol=1e-7)
    grads = torch.autograd.grad(mine.sum(), (loc, n))
    away = (loc.double() - n.double()).detach() / 500
    rounding = 4 * max(centre, 0.1) * torch.finfo(torch.float32).eps
    torch.testing.assert_close(grads[0].double(), away, rtol=1e-5, atol=rounding / 500)
    torch.testing.assert_close(grads[1].double(), -away.sum(0), rtol=1e-5, atol=rounding)


@pytest.mark.parametrize("centre", [3.0, 5000.0])
def test_a_location_far_from_the_prior_in_single_precision(centre: float) -> None:
    loc = torch.randn(500, UNITS).float()
    n = torch.full((UNITS,), centre, dtype=torch.float32)
    ones = torch.ones(UNITS, dtype=torch.float32)
    mine = unit_kl(ShiftedNormal(loc, ones), dist.Normal(n, ones))
    assert mine is not None
    exact = 0.5 * (loc.double() - centre).square().mean(0)
    torch.testing.assert_close(mine.double(), exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_to_a_learned_prior_is_summed_in_single(dtype: torch.dtype) -> None:
    loc = (300 + torch.rand(50, UNITS)).to(dtype).requires_grad_()
    n = torch.full((UNITS,), 3.0, dtype=dtype, requires_grad=True)
    ones = torch.ones(UNITS, dtype=dtype)
    mine = unit_kl(ShiftedNormal(loc, 64 * ones), dist.Normal(n, 64 * ones))
    assert mine is not None
    assert mine.dtype == dtype  # (300 - 3)^2 is beyond what a float16 can hold
    exact = (loc.double() - 3).square().mean(0) / 2 / 64**2
    torch.testing.assert_close(mine.double(), exact, rtol=1e-2, atol=0)
    grads = torch.autograd.grad(mine.sum(), (loc, n))
    assert [grad.dtype for grad in grads] == [dtype, dtype]
    away = (loc.double() - 3).detach() / 64**2
    torch.testing.assert_close(grads[0].double(), away / 50, rtol=2e-2, atol=0)
    torch.testing.assert_close(grads[1].double(), -away.mean(0), rtol=2e-2, atol=0)


def test_gradients_against_finite_differences() -> None:
    loc = torch.randn(ROWS, UNITS, requires_grad=True)
    scale = torch.rand(UNITS).add(0.5).requires_grad_()

    def both(m: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        posterior = ShiftedNormal(m, s)
        kl = unit_kl(posterior, unit_normal(ROWS, UNITS))
        assert kl is not None
        return unit_energy(posterior), kl

    assert torch.autograd.gradcheck(both, (loc, scale))
    assert torch.autograd.gradgradcheck(both, (loc, scale))


def test_energy_under_vmap() -> None:
    locs = torch.randn(4, ROWS, UNITS)
    mine = torch.vmap(lambda loc: unit_energy(dist.Normal(loc, 1.0, validate_args=False)))(locs)
    torch.testing.assert_close(mine, locs.square().mean(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_single(dtype: torch.dtype) -> None:
    loc = (300 + torch.rand(50, UNITS)).to(dtype).requires_grad_()
    scale = torch.ones(UNITS, dtype=dtype)
    energy = unit_energy(dist.Normal(loc, scale))
    exact = loc.detach().double().square().mean(0)  # beyond what a float16 can hold
    assert energy.dtype == torch.float32
    torch.testing.assert_close(energy.double(), exact, rtol=1e-5, atol=0)
    energy.sum().backward()  # type: ignore[no-untyped-call]
    assert loc.grad is not None
    torch.testing.assert_close(loc.grad, (2 / 50 * loc).to(dtype).detach(), rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("loc", "scale", "kl"),
    [
        (torch.bfloat16, torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.float32, torch.float32),  # as under autocast
        (torch.float32, torch.float32, torch.float32),
        (torch.float64, torch.float64, torch.float64),
    ],
)
def test_the_kl_keeps_the_dtype_of_its_posterior(
    loc: torch.dtype, scale: torch.dtype, kl: torch.dtype
) -> None:
    posterior = dist.Normal(torch.randn(ROWS, UNITS).to(loc), torch.ones(UNITS).to(scale))
    mine = unit_kl(posterior, UnitNormal(torch.zeros((), dtype=scale), torch.ones(()).to(scale)))
    assert mine is not None
    assert mine.dtype == kl


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_precise(dtype: torch.dtype, expected: torch.dtype) -> None:
    values = torch.ones(2, dtype=dtype)
    assert precise(values).dtype == expected
    assert (precise(values) is values) == (dtype == expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (torch.tensor(2.0), [2.0, 2.0, 2.0]),
        (torch.tensor([1.0, 2.0, 3.0]), [1.0, 2.0, 3.0]),
        (torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]), [2.0, 2.0, 2.0]),
        (torch.tensor([[1.0], [3.0]]), [2.0, 2.0, 2.0]),
        (torch.arange(12.0).reshape(2, 2, 3), [4.5, 5.5, 6.5]),
        (torch.zeros(0, 3), [0.0, 0.0, 0.0]),
    ],
    ids=["number", "units", "rows", "one column", "particles", "nothing"],
)
def test_over_rows(values: Tensor, expected: list[float]) -> None:
    assert over_rows(values, UNITS).tolist() == expected


# --- memory ---


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count how often energies are computed."""
    from pyro_vdn.nn import unit_measures

    calls: list[int] = []
    forward = unit_measures._MeanSquare.forward
    monkeypatch.setattr(
        unit_measures._MeanSquare,
        "forward",
        staticmethod(lambda values: (calls.append(1), forward(values))[1]),
    )
    return calls


def test_one_pass_serves_energy_and_kl(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    posterior = dist.Normal(torch.randn(ROWS, UNITS, requires_grad=True), 1.0)
    first = unit_energy(posterior)
    unit_kl(posterior, unit_normal(ROWS, UNITS))
    assert unit_energy(posterior) is first
    assert len(calls) == 1
    with torch.no_grad():
        unit_energy(posterior)
    assert len(calls) == 2


def test_another_posterior_or_an_expanded_one_has_its_own() -> None:
    loc = torch.randn(ROWS, UNITS)
    posterior = dist.Normal(loc, 1.0)
    unit_energy(posterior)
    with torch.no_grad():
        loc.mul_(2.0)
    expected = loc.square().mean(0)
    torch.testing.assert_close(unit_energy(dist.Normal(loc, 1.0)), expected)
    expanded = posterior.expand(torch.Size([4, ROWS, UNITS]))
    torch.testing.assert_close(unit_energy(expanded), expected)


@pytest.mark.parametrize("measure", ["energy", "kl"])
@pytest.mark.parametrize("first_with_grad", [False, True])
def test_a_look_without_gradient_does_not_cut_it(measure: str, first_with_grad: bool) -> None:
    loc = torch.randn(ROWS, UNITS, requires_grad=True)
    posterior, prior = dist.Normal(loc, 1.0), unit_normal(ROWS, UNITS)

    def look() -> Tensor:
        value = unit_energy(posterior) if measure == "energy" else unit_kl(posterior, prior)
        assert value is not None
        return value

    if first_with_grad:
        look()
    with torch.no_grad():
        assert not look().requires_grad
    assert look().requires_grad
    expected = (2.0 if measure == "energy" else 1.0) * loc.detach() / ROWS
    (grad,) = torch.autograd.grad(look().sum(), loc)
    torch.testing.assert_close(grad, expected)


def test_a_record_around_the_loss_does_not_cut_the_gradient() -> None:
    model, data = NeuronStack(num_layers=2), (torch.randn(ROWS, 4), torch.randn(ROWS, 2))
    plain = loss_and_grads(LocalELBO(), model, NeuronGuide(model), *data, of=model)
    with record():
        seen = loss_and_grads(LocalELBO(), model, NeuronGuide(model), *data, of=model)
    assert seen.loss == plain.loss
    torch.testing.assert_close(seen.grads, plain.grads, rtol=0, atol=0)


def test_two_priors_of_one_posterior_are_told_apart() -> None:
    posterior = dist.Normal(torch.ones(ROWS, UNITS), 1.0)
    values = [
        unit_kl(posterior, prior)
        for prior in (
            unit_normal(ROWS, UNITS),
            dist.Normal(torch.ones(UNITS), 1.0),
            dist.Normal(torch.full((UNITS,), 3.0), 1.0),
            unit_normal(ROWS, UNITS),
        )
    ]
    assert [value[0].item() for value in values if value is not None] == [0.5, 0.0, 2.0, 0.5]


def test_a_layer_s_distributions() -> None:
    layer, x = VariationalNeurons(4, UNITS, prior=LearnedNormal()), torch.randn(ROWS, 4)
    randomise(layer)
    with record() as seen, PosteriorMessenger():
        layer(x)
    kl = unit_kl(layer.posterior(x), layer.prior(x))
    assert kl is not None
    torch.testing.assert_close(kl.detach(), seen[""].kl.mean)
    torch.testing.assert_close(unit_energy(layer.posterior(x)).detach(), seen[""].energy.mean)
