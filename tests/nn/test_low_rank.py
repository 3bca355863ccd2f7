"""The low-rank Student-t against scipy and against its own draws."""

from __future__ import annotations

from typing import Any

import pytest
import scipy.stats
import torch

from pyro_vdn.nn import LowRankStudentT

DF = [None, 2.7, 30.0]
#: Outputs and rank: none, below, equal, above.
SIZES = [(4, 0), (4, 1), (4, 3), (4, 4), (3, 7), (1, 2)]


def make_case(df: float | None, outputs: int, rank: int, *batch: int) -> LowRankStudentT:
    return LowRankStudentT(
        None if df is None else torch.tensor(df),
        torch.randn(*batch, outputs),
        torch.randn(*batch, outputs, rank),
        0.3 + torch.rand(*batch, outputs),
    )


def in_scipy(case: LowRankStudentT) -> Any:
    shape = (case.factor @ case.factor.mT + torch.diag(case.scale**2)).detach().numpy()
    if case.df is None:
        return scipy.stats.multivariate_normal(case.loc.numpy(), shape)
    return scipy.stats.multivariate_t(case.loc.numpy(), shape, df=float(case.df))


@pytest.mark.parametrize(("outputs", "rank"), SIZES)
@pytest.mark.parametrize("df", DF)
def test_log_density(df: float | None, outputs: int, rank: int) -> None:
    case = make_case(df, outputs, rank)
    y = case.loc + 2 * torch.randn(outputs)
    assert case.log_prob(y).item() == pytest.approx(in_scipy(case).logpdf(y.numpy()), rel=1e-10)


@pytest.mark.parametrize("df", DF)
def test_log_density_of_a_batch(df: float | None) -> None:
    case, y = make_case(df, 4, 2, 5, 3), torch.randn(5, 3, 4)
    one = LowRankStudentT(case.df, case.loc[2, 1], case.factor[2, 1], case.scale[2, 1])
    assert case.log_prob(y).shape == (5, 3)
    torch.testing.assert_close(case.log_prob(y)[2, 1], one.log_prob(y[2, 1]))
    assert case.expand((2, 5, 3)).log_prob(y).shape == (2, 5, 3)


@pytest.mark.parametrize(("outputs", "rank"), [(3, 0), (3, 1), (3, 5)])
@pytest.mark.parametrize("df", [None, 9.0])
def test_draws_have_its_moments(df: float | None, outputs: int, rank: int) -> None:
    case = make_case(df, outputs, rank)
    draws = case.rsample((200_000,))
    error = case.variance.sqrt() / 200_000**0.5
    assert ((draws.mean(0) - case.mean).abs() < 5 * error).all()
    torch.testing.assert_close(draws.T.cov(), case.covariance, rtol=0.05, atol=0.03)
    torch.testing.assert_close(case.variance, case.covariance.diagonal())


@pytest.mark.parametrize("df", [None, 4.0])
def test_draws_have_its_density(df: float | None) -> None:
    case = make_case(df, 2, 1)
    draws = case.rsample((20_000,))
    # A squared distance is chi-square (normal), or twice an F variable (Student-t) of two outputs.
    shape = case.factor @ case.factor.mT + torch.diag(case.scale**2)
    distance = ((draws - case.loc) @ torch.linalg.inv(shape) * (draws - case.loc)).sum(-1)
    reference = scipy.stats.chi2(2) if df is None else scipy.stats.f(2, df)
    scaled = distance if df is None else distance / 2
    assert scipy.stats.kstest(scaled.numpy(), reference.cdf).pvalue > 1e-3


@pytest.mark.parametrize("df", [None, 4.0])
def test_marginals_integrate_the_joint(df: float | None) -> None:
    case = make_case(df, 2, 1)
    y0 = case.loc[0] + 0.7
    other = torch.linspace(-4000, 4000, 800_001)
    joint = case.log_prob(torch.stack([y0.expand_as(other), other], -1)).exp()
    marginal = case.per_output().log_prob(torch.stack([y0, y0]))[0].exp()
    torch.testing.assert_close(torch.trapezoid(joint, other), marginal, rtol=1e-6, atol=0)


def test_many_degrees_of_freedom_are_normal() -> None:
    case, y = make_case(None, 3, 2), torch.randn(3)
    nearly = LowRankStudentT(torch.tensor(1e7), case.loc, case.factor, case.scale)
    torch.testing.assert_close(nearly.log_prob(y), case.log_prob(y), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("outputs", "rank"), [(3, 2), (2, 3)])
@pytest.mark.parametrize("df", [None, 4.0])
def test_gradients(df: float | None, outputs: int, rank: int) -> None:
    y = torch.randn(outputs)

    def log_prob(loc: Any, factor: Any, scale: Any, nu: Any) -> Any:
        return LowRankStudentT(None if df is None else nu, loc, factor, scale).log_prob(y)

    inputs = (torch.randn(outputs), torch.randn(outputs, rank), 0.5 + torch.rand(outputs))
    nu = torch.tensor(df or 1.0)
    leaves = tuple(value.requires_grad_() for value in (*inputs, nu))
    if df is None:
        leaves = (*leaves[:3], nu.detach())
    assert torch.autograd.gradcheck(log_prob, leaves)


@pytest.mark.parametrize("df", [None, 5.0])
def test_draws_are_pathwise(df: float | None) -> None:
    nu = None if df is None else torch.tensor(df, requires_grad=True)
    leaves = [t.requires_grad_() for t in (torch.randn(3), torch.randn(3, 2), torch.ones(3))]
    LowRankStudentT(nu, *leaves).rsample((7,)).square().sum().backward()
    assert all(leaf.grad.abs().sum() > 0 for leaf in (*leaves, *([] if nu is None else [nu])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    case = LowRankStudentT(
        torch.tensor(4.0, dtype=dtype), *(torch.ones(s, dtype=dtype) for s in [(3,), (3, 1), (3,)])
    )
    assert case.rsample().dtype == case.log_prob(torch.zeros(3, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    parts = [value.to(dtype) for value in (torch.tensor(5.0), torch.zeros(2, 3), torch.ones(3, 1))]
    distribution = LowRankStudentT(*parts, torch.ones(3, dtype=dtype))
    draw = distribution.rsample()
    assert draw.dtype == distribution.log_prob(draw).dtype == torch.float32
