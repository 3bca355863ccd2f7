from __future__ import annotations

import pytest
import scipy.optimize
import torch
from torch import Tensor

from pyro_vdn.diagnostics import _checks, event_reliability
from pyro_vdn.errors import InputError


def uniform(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def case(count: int, power: float = 1.0, *, digits: int = 9) -> tuple[Tensor, Tensor]:
    """Return predicted probabilities and events, calibrated at a power of 1."""
    truth = uniform(count)
    event = uniform(count, seed=1) < truth
    return torch.sigmoid(power * torch.logit(truth)).round(decimals=digits), event


@pytest.mark.parametrize("digits", [9, 1], ids=["distinct", "with ties"])
def test_curve_is_the_isotonic_regression_of_events(digits: int) -> None:
    p, event = case(180, 2.0, digits=digits)
    found = event_reliability(p, event, resamples=2)
    values, place, ties = p.unique(return_inverse=True, return_counts=True)
    mean = torch.zeros(len(values)).double().index_add_(0, place, event.double()) / ties
    fit = scipy.optimize.isotonic_regression(mean.numpy(), weights=ties.double().numpy()).x
    torch.testing.assert_close(found.probability, values)
    torch.testing.assert_close(found.frequency, torch.as_tensor(fit))
    expected = (torch.as_tensor(fit)[place] - event.double()).square().mean()
    recalibrated = found.uncertainty - found.discrimination
    assert recalibrated == pytest.approx(float(expected))


def test_parts_add_up_to_the_brier_score_and_are_not_negative() -> None:
    p, event = case(300, 2.0)
    found = event_reliability(p.reshape(50, 3, 2), event.reshape(50, 3, 2), resamples=2)
    assert found.brier_score == pytest.approx(float((p - event.double()).square().mean()))
    rate = float(event.double().mean())
    assert found.uncertainty == pytest.approx(rate * (1 - rate))
    assert min(found.miscalibration, found.discrimination) > 0
    assert int(found.count.sum()) == 300
    # A recalibration that keeps the order keeps the discrimination.
    other = event_reliability(p**3, event, resamples=2)
    assert other.discrimination == pytest.approx(found.discrimination)
    assert other.miscalibration > found.miscalibration


@pytest.mark.parametrize("chunk", [2**24, 50_000])
def test_band_holds_calibrated_predictions_and_no_others(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_checks, "CHUNK_ELEMENTS", chunk)

    def inside(power: float) -> float:
        found = event_reliability(*case(600, power), level=0.9, seed=2)
        held = (found.lower <= found.frequency) & (found.frequency <= found.upper)
        return float(held.double().mean())

    assert inside(1.0) > 0.8
    assert inside(3.0) < 0.4


def test_band_covers_point_by_point_over_simulations() -> None:
    hits = []
    for seed in range(30):
        p = uniform(150, seed=2 * seed)
        event = uniform(150, seed=2 * seed + 1) < p
        found = event_reliability(p, event, level=0.8, resamples=60, seed=1000 + seed)
        middle = (found.probability - 0.5).abs().argmin()
        hits.append(bool(found.lower[middle] <= found.frequency[middle] <= found.upper[middle]))
    assert sum(hits) / 30 == pytest.approx(0.8, abs=0.2)


def test_fewer_independent_predictions_widen_the_band_only() -> None:
    p, event = case(400)
    plain, honest = event_reliability(p, event), event_reliability(p, event, effective_count=40)
    torch.testing.assert_close(plain.frequency, honest.frequency)
    assert float((honest.upper - honest.lower).mean()) > 1.5 * float(
        (plain.upper - plain.lower).mean()
    )


def test_many_predictions_are_shown_at_a_few_and_the_seed_decides_the_band() -> None:
    p, event = case(900)
    before = torch.get_rng_state()
    one, same, other = (event_reliability(p, event, resamples=9, seed=s) for s in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert one.probability.shape == (201,)
    assert float(one.probability[0]) == float(p.min())
    assert float(one.probability[-1]) == float(p.max())
    assert torch.equal(one.upper, same.upper)
    assert not torch.equal(one.upper, other.upper)


TWO, NEVER = torch.zeros(2), torch.zeros(2, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: event_reliability(TWO + 2, NEVER), r"probability: .* \[0, 1\], got 2.0"),
        (lambda: event_reliability(TWO / 0, NEVER), r"probability: expected finite"),
        (lambda: event_reliability(TWO, NEVER[:1]), r"event: expected the shape of probability"),
        (lambda: event_reliability(TWO, TWO + 0.5), r"event: expected True or False, .* got 0.5"),
        (lambda: event_reliability(TWO, NEVER, level=1.0), r"level: .* got 1.0"),
        (lambda: event_reliability(TWO, NEVER, resamples=0), r"resamples"),
        (lambda: event_reliability(TWO, NEVER, effective_count=0), r"effective_count"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
