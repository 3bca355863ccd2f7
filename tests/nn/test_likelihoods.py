"""Likelihood modules."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F

from pyro_vdn.errors import InputError
from pyro_vdn.nn import (
    CategoricalLikelihood,
    LinearReadout,
    LowRankStudentT,
    MultivariateNormalLikelihood,
    MultivariateStudentTLikelihood,
    NegativeBinomialLikelihood,
    NormalLikelihood,
    OutputScale,
    StudentTLikelihood,
)
from pyro_vdn.nn.likelihoods import DegreesOfFreedom
from pyro_vdn.testing import randomise


@pytest.mark.parametrize(
    ("mode", "shape"), [("shared", (1,)), ("output", (3,)), ("low_rank", (5, 3))]
)
@pytest.mark.parametrize("initial", [0.2, 1.0])
def test_output_scale(mode: Any, shape: tuple[int, ...], initial: float) -> None:
    scale = OutputScale(3, mode, in_features=4, rank=2, initial_scale=initial, min_scale=0.1)
    value = scale(torch.randn(5, 4))
    assert value.shape == shape
    torch.testing.assert_close(value, torch.full(shape, initial), rtol=0.02, atol=0)
    randomise(scale, spread=5.0)
    assert (scale(torch.randn(5, 4)) > 0.1).all()


def test_low_rank_output_scale_formula() -> None:
    scale = OutputScale(3, "low_rank", in_features=4, rank=2)
    randomise(scale)
    x, (first, _, last) = torch.randn(5, 4), scale.head
    hidden = torch.tanh(x @ first.weight.T + first.bias)
    expected = 1e-3 + F.softplus(hidden @ last.weight.T + last.bias)
    torch.testing.assert_close(scale(x), expected)


@pytest.mark.parametrize("spread", [1.0, 2.5])
def test_independent_outputs(spread: float) -> None:
    loc, y = torch.randn(5, 3), torch.randn(5, 3)
    normal, student = (make(OutputScale(3)) for make in (NormalLikelihood, StudentTLikelihood))
    for likelihood in (normal, student):
        randomise(likelihood)
    s = spread * (1e-3 + F.softplus(normal.scale.raw))
    torch.testing.assert_close(
        normal(loc, spread=spread).log_prob(y), dist.Normal(loc, s).log_prob(y)
    )
    s = spread * (1e-3 + F.softplus(student.scale.raw))
    expected = dist.StudentT(2 + student.df.raw.exp(), loc, s)
    torch.testing.assert_close(student(loc, spread=spread).log_prob(y), expected.log_prob(y))


@pytest.mark.parametrize("spread", [1.0, torch.tensor([[0.5], [1.0], [2.0], [1.0], [3.0]])])
@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("mode", ["shared", "output", "low_rank"])
def test_joint_outputs(mode: Any, rank: int, spread: Any) -> None:
    likelihood = MultivariateNormalLikelihood(
        OutputScale(3, mode, in_features=4, rank=2), covariance_rank=rank
    )
    randomise(likelihood)
    loc, x, y = torch.randn(5, 3), torch.randn(5, 4), torch.randn(5, 3)
    outcome = likelihood(loc, x, spread=spread)
    assert (outcome.batch_shape, outcome.event_shape) == ((5, 1), (3,))
    own = torch.zeros(3, 3) if rank == 0 else likelihood.factor @ likelihood.factor.T
    covariance = own + torch.diag_embed((likelihood.scale(x).expand(5, 3)) ** 2)
    covariance = covariance * torch.as_tensor(spread).reshape(-1, 1, 1) ** 2
    expected = dist.MultivariateNormal(loc, covariance).log_prob(y)
    torch.testing.assert_close(outcome.log_prob(y.unsqueeze(-2)).squeeze(-1), expected)


def test_a_diagonal_multivariate_normal_is_the_product() -> None:
    joint, product = (
        make(OutputScale(3)) for make in (MultivariateNormalLikelihood, NormalLikelihood)
    )
    loc, y = torch.randn(5, 3), torch.randn(5, 3)
    torch.testing.assert_close(
        joint(loc).log_prob(y.unsqueeze(-2)).squeeze(-1), product(loc).log_prob(y).sum(-1)
    )


@pytest.mark.parametrize("initial", [2.5, 6.0, 30.0])
def test_degrees_of_freedom(initial: float) -> None:
    assert DegreesOfFreedom(initial)().item() == pytest.approx(initial)
    likelihood = MultivariateStudentTLikelihood(OutputScale(3), initial_df=initial)
    outcome = likelihood(torch.zeros(5, 3))
    assert isinstance(outcome, LowRankStudentT)
    assert outcome.df.item() == pytest.approx(initial)


def test_categorical() -> None:
    logits, y = torch.randn(5, 4), torch.tensor([0, 3, 1, 2, 2])
    outcome = CategoricalLikelihood()(logits)
    assert outcome.batch_shape == (5, 1)
    expected = logits.log_softmax(-1)[torch.arange(5), y]
    torch.testing.assert_close(outcome.log_prob(y.unsqueeze(-1)).squeeze(-1), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_probabilities_of_half_precision_add_up(dtype: torch.dtype) -> None:
    logits = (3 * torch.randn(20, 500)).to(dtype)
    outcome = CategoricalLikelihood()(logits)
    log_probs = outcome.logits.squeeze(-2)
    assert log_probs.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(
        log_probs.double(), logits.double().log_softmax(-1), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: NormalLikelihood(OutputScale(3, "low_rank", in_features=4)),
        lambda: StudentTLikelihood(OutputScale(3)),
        lambda: MultivariateStudentTLikelihood(OutputScale(3, "shared"), covariance_rank=2),
    ],
)
def test_every_parameter_gets_a_gradient(make: Any) -> None:
    likelihood = make()
    randomise(likelihood)
    outcome = likelihood(torch.randn(5, 3), torch.randn(5, 4))
    y = torch.randn(5, 1, 3) if outcome.event_dim else torch.randn(5, 3)
    outcome.log_prob(y).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in likelihood.parameters())


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: OutputScale(0), "num_outputs: expected a positive integer"),
        (lambda: OutputScale(2, rank=0), "rank: expected a positive integer"),
        (lambda: OutputScale(2, "input"), "scale: expected one of"),  # type: ignore[arg-type]
        (lambda: OutputScale(2, "low_rank"), "in_features: expected the size of the features"),
        (
            lambda: OutputScale(2, "low_rank", in_features=3)(None),
            "features: expected the features that the scale reads, got None",
        ),
        (lambda: OutputScale(2, initial_scale=1e-4), "initial_scale: expected a value above"),
        (lambda: StudentTLikelihood(OutputScale(2), initial_df=2.0), "initial_df: expected more"),
        (
            lambda: LinearReadout(2, 3, activation="gelu"),  # type: ignore[arg-type]
            r"activation: expected one of \('identity', 'relu'\), got 'gelu'",
        ),
    ],
)
def test_refusals(make: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        make()


@pytest.mark.parametrize("link", ["exp", "softplus"])
@pytest.mark.parametrize("initial", [0.1, 1.5])
def test_negative_binomial_has_the_moments_it_says(link: Any, initial: float) -> None:
    likelihood = NegativeBinomialLikelihood(OutputScale(2, initial_scale=initial), link=link)
    randomise(likelihood)
    loc = torch.randn(5, 2)
    outcome = likelihood(loc)
    mean = loc.exp() if link == "exp" else F.softplus(loc)
    variance = mean + likelihood.dispersion(None) * mean.square()
    torch.testing.assert_close(outcome.mean, mean)
    torch.testing.assert_close(outcome.variance, variance)
    counts = torch.arange(400.0)[:, None, None]
    mass = outcome.log_prob(counts).exp().detach()
    torch.testing.assert_close(mass.sum(0), torch.ones(5, 2), atol=1e-6, rtol=0)
    torch.testing.assert_close((counts * mass).sum(0), mean.detach(), atol=1e-4, rtol=1e-4)
    draws = outcome.sample((20_000,)).detach()
    assert (draws == draws.round()).all()
    error = (draws.mean(0) - mean) / (variance / 20_000).sqrt()
    assert error.abs().max() < 5


def test_negative_binomial_approaches_the_poisson() -> None:
    likelihood = NegativeBinomialLikelihood(OutputScale(1, initial_scale=1e-5, min_scale=0.0))
    loc, y = torch.randn(6, 1), torch.arange(6.0)[:, None]
    expected = dist.Poisson(loc.exp()).log_prob(y)
    torch.testing.assert_close(likelihood(loc).log_prob(y), expected, atol=1e-3, rtol=0)


def test_negative_binomial_reads_features_and_refuses_other_links() -> None:
    dispersion = OutputScale(2, "low_rank", in_features=4, rank=2)
    assert NegativeBinomialLikelihood(dispersion)(
        torch.zeros(5, 2), torch.randn(5, 4)
    ).batch_shape == (5, 2)
    with pytest.raises(InputError, match="link: expected one of"):
        NegativeBinomialLikelihood(dispersion, link="log")  # type: ignore[arg-type]
