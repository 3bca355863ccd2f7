"""Mixtures of predictions, against their definition."""

from __future__ import annotations

import math

import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import Regression
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer import Prediction, pooled, predict
from pyro_vdn.infer.prediction import ClosedForm


def made(value: float, draws: int = 12, *, log_prob: float = 0.0) -> Prediction:
    """A prediction of 3 rows whose draws all have one value."""
    densities = torch.full((3, 2), log_prob), torch.full((3,), 2 * log_prob)
    return Prediction(torch.full((draws, 3, 2), value), *densities)


@pytest.fixture
def members() -> list[Prediction]:
    x, y = torch.randn(4, 3), torch.randn(4, 2)
    models = [Regression(3, 2, num_units=4, likelihood="normal") for _ in range(3)]
    return [predict(m, NeuronGuide(m), x, y=y, num_samples=2000) for m in models]


def test_densities_are_those_of_the_mixture(members: list[Prediction]) -> None:
    weights = [0.5, 0.2, 0.3]
    mixture = pooled(members, [5, 2, 3])
    for name in ("log_prob_per_output", "log_prob_joint"):
        densities = [w * getattr(m, name).exp() for w, m in zip(weights, members, strict=True)]
        assert torch.allclose(getattr(mixture, name).exp(), sum(densities, torch.zeros(())))


def test_the_closed_form_has_the_moments_of_its_draws(members: list[Prediction]) -> None:
    form = pooled(members).closed_form
    assert form is not None
    assert len(form.draws) == 6000
    error = form.variance.sqrt() / 6000**0.5
    assert bool(((form.draws.mean(0) - form.mean).abs() < 4 * error).all())
    assert torch.allclose(form.draws.var(0), form.variance, rtol=0.08)
    joint = [m.closed_form.log_prob_joint for m in members if m.closed_form is not None]
    assert form.log_prob_joint is not None
    assert torch.allclose(form.log_prob_joint, torch.stack(joint).logsumexp(0) - math.log(3))


def test_the_variance_of_a_mixture_counts_the_spread_of_its_means() -> None:
    def form(mean: float) -> ClosedForm:
        return ClosedForm(torch.full((1, 1), mean), torch.ones(1, 1), torch.full((4, 1, 1), mean))

    both = [Prediction(form(m).draws, closed_form=form(m)) for m in (0.0, 6.0)]
    found = pooled(both, [1.0, 2.0]).closed_form
    assert found is not None
    assert found.mean.item() == pytest.approx(4.0)
    assert found.variance.item() == pytest.approx(1.0 + (16.0 + 2 * 4.0) / 3)


@pytest.mark.parametrize(
    ("draws", "weights", "taken"),
    [
        ((12, 12), None, (12, 12)),
        ((12, 4), None, (4, 4)),
        ((12, 12), (1.0, 3.0), (4, 12)),
        ((12, 12), (0.0, 1.0), (0, 12)),
        ((10, 90), (0.1, 0.9), (10, 90)),
    ],
)
def test_draws_are_joined_in_their_shares(
    draws: tuple[int, int], weights: tuple[float, float] | None, taken: tuple[int, int]
) -> None:
    mixture = pooled([made(0.0, draws[0]), made(1.0, draws[1])], weights)
    counts = [int((mixture.draws[:, 0, 0] == value).sum()) for value in (0.0, 1.0)]
    assert tuple(counts) == taken
    assert len(mixture.draws) == sum(taken)


def test_a_member_of_weight_zero_leaves_nothing() -> None:
    mixture = pooled([made(0.0, log_prob=-1.0), made(1.0, log_prob=-2.0)], [0.0, 7.0])
    assert mixture.log_prob_joint is not None
    assert torch.allclose(mixture.log_prob_joint, torch.full((3,), -4.0))


def test_missing_targets_stay_missing() -> None:
    one, two = made(0.0), made(1.0)
    for member in (one, two):
        assert isinstance(member.log_prob_per_output, Tensor)
        member.log_prob_per_output[1] = math.nan
    found = pooled([one, two]).log_prob_per_output
    assert found is not None
    assert found.isnan().any(-1).tolist() == [False, True, False]


def test_what_one_member_does_not_know_is_not_known() -> None:
    mixture = pooled([made(0.0), Prediction(torch.zeros(12, 3, 2))])
    assert mixture.log_prob_joint is None
    assert mixture.closed_form is None


def test_no_members_are_refused() -> None:
    with pytest.raises(InputError, match="predictions: expected at least one, got none"):
        pooled([])


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, math.nan]])
def test_weights_that_are_none_are_refused(weights: list[float]) -> None:
    with pytest.raises(InputError, match="weights: expected 2 numbers of at least 0"):
        pooled([made(0.0), made(1.0)], weights)


def test_other_rows_are_refused() -> None:
    with pytest.raises(InputError, match=r"draws of one shape \(draws, 3, 2\), got shape"):
        pooled([made(0.0), Prediction(torch.zeros(12, 4, 2))])


def test_too_few_draws_for_the_shares_are_refused() -> None:
    many = [made(float(at), draws=1) for at in range(3)]
    with pytest.raises(InputError, match="expected enough draws that every member can give"):
        pooled([many[0], made(1.0, draws=0)], [1.0, 1.0])
