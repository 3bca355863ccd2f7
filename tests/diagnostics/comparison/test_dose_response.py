from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pyro_vdn.diagnostics.comparison.dose_response import dose_response
from pyro_vdn.errors import InputError

Array = NDArray[np.float64]
ROWS, TIME = 50, 10


def corpus(seed: int, *, slope: float = 1.0) -> tuple[Array, Array, NDArray[np.intp]]:
    """Signals in (0, 1), risks `slope * signal` on average, and sequences with a level each."""
    generator = np.random.default_rng(seed)
    signal = generator.random((ROWS, TIME))
    level = generator.normal(size=(ROWS, 1))
    risk = slope * signal + level + 0.3 * generator.normal(size=(ROWS, TIME))
    return signal.ravel(), risk.ravel(), np.repeat(np.arange(ROWS), TIME)


def test_bins_equal_loops() -> None:
    signal, risk, sequences = corpus(0)
    found = dose_response(signal, risk, bins=4, blocks=sequences, resamples=50)
    order = np.argsort(signal)
    for at, part in enumerate(np.array_split(order, 4)):
        assert found.dose[at] == pytest.approx(signal[part].mean())
        assert found.risk[at] == pytest.approx(risk[part].mean())
        assert found.count[at] == len(part)
    assert found.rise == pytest.approx(found.risk[-1] - found.risk[0])
    assert found.blocks == ROWS


def test_intervals_are_those_of_whole_sequences_drawn_again() -> None:
    signal, risk, sequences = corpus(0)
    found = dose_response(signal, risk, bins=2, blocks=sequences, resamples=2000)
    upper = signal > np.median(signal)
    generator, drawn = np.random.default_rng(5), []
    for _ in range(500):
        at = (TIME * generator.integers(ROWS, size=ROWS)[:, None] + np.arange(TIME)).ravel()
        drawn.append([risk[at][upper[at] == high].mean() for high in (False, True)])
    width = np.subtract(*np.percentile(drawn, [97.5, 2.5], axis=0))
    np.testing.assert_allclose(found.high - found.low, width, rtol=0.15)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    held = np.zeros(3)
    for seed in range(150):
        signal, risk, sequences = corpus(seed, slope=2.0)
        found = dose_response(signal, risk, bins=2, blocks=sequences, level=0.8, resamples=200)
        held[0] += found.low[0] <= 0.5 <= found.high[0]
        held[1] += found.low[1] <= 1.5 <= found.high[1]
        held[2] += found.rise_low <= 1.0 <= found.rise_high
    assert (np.abs(held - 120) <= 18).all()  # 5 is a standard deviation; blocks are few


@pytest.mark.parametrize(("slope", "trend"), [(3.0, "rises"), (-3.0, "falls"), (0.0, "unclear")])
def test_trend_says_what_is_there(slope: float, trend: str) -> None:
    signal, risk, sequences = corpus(1, slope=slope)
    found = dose_response(signal, risk, bins=3, blocks=sequences)
    assert found.trend == trend
    assert (found.steps_up, found.steps_down) == {3.0: (2, 0), -3.0: (0, 2), 0.0: (0, 0)}[slope]
    assert f"mean risk {trend}: " in str(found)


def test_a_risk_that_turns_is_not_said_to_rise() -> None:
    signal, risk, sequences = corpus(2, slope=0.0)
    found = dose_response(signal, risk + 8 * np.abs(signal - 0.4), bins=5, blocks=sequences)
    assert found.rise_low > 0  # the last bin is above the first
    assert found.steps_down > 0
    assert found.trend == "turns"


def test_no_relation_is_seldom_taken_for_one() -> None:
    trends = []
    for seed in range(100):
        signal, risk, sequences = corpus(seed, slope=0.0)
        trends.append(dose_response(signal, risk, bins=3, blocks=sequences, resamples=200).trend)
    assert trends.count("unclear") >= 86  # 5 in 100 for each of two statements at most


def test_given_doses_are_bins_and_sequences_seen_at_each_are_paired() -> None:
    generator = np.random.default_rng(0)
    level = generator.normal(size=100)
    corruption = np.repeat([0.0, 0.05, 0.15, 0.3], 100)
    risk = np.tile(level, 4) + corruption + 0.01 * generator.normal(size=400)
    paired = dose_response(corruption, risk, bins=None, blocks=np.tile(np.arange(100), 4))
    np.testing.assert_allclose(paired.dose, [0.0, 0.05, 0.15, 0.3])
    assert paired.trend == "rises"
    assert paired.steps_up == 3
    apart = dose_response(corruption, risk, bins=None, blocks=np.arange(400))
    assert apart.rise_high - apart.rise_low > 10 * (paired.rise_high - paired.rise_low)


def test_equal_signals_share_a_bin() -> None:
    signal = np.r_[np.zeros(70), np.linspace(0.1, 1.0, 30)]
    found = dose_response(signal, signal, bins=10)
    assert found.count.tolist() == [70, 10, 10, 10]


def test_tensors_booleans_and_seeds() -> None:
    signal, risk, sequences = corpus(3)
    wrong = torch.as_tensor(risk > 1)
    found = dose_response(
        torch.as_tensor(signal), wrong, blocks=torch.as_tensor(sequences), seed=1, resamples=50
    )
    same = dose_response(signal, wrong.numpy(), blocks=sequences, seed=1, resamples=50)
    other = dose_response(signal, wrong.numpy(), blocks=sequences, seed=2, resamples=50)
    np.testing.assert_array_equal(found.low, same.low)
    assert not np.array_equal(found.low, other.low)


LINE = np.arange(4.0)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: dose_response(np.ones(4), LINE), r"signal: expected at least two bins"),
        (lambda: dose_response(LINE, LINE, bins=1), r"signal: expected at least two bins"),
        (lambda: dose_response(LINE, LINE, bins=0), r"bins: expected a positive integer"),
        (lambda: dose_response(LINE, LINE[:3]), r"risk: expected shape \(4,\)"),
        (lambda: dose_response(LINE, LINE, blocks=np.ones(4)), r"blocks: expected at least two"),
        (lambda: dose_response(LINE / 0, LINE), r"signal: expected finite values"),
        (lambda: dose_response(LINE, LINE, level=0.0), r"level: expected a share"),
        (lambda: dose_response(LINE, LINE, resamples=0), r"resamples: expected a positive"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with np.errstate(all="ignore"), pytest.raises(InputError, match=text):
        call()


def test_a_constant_risk_has_no_correlation() -> None:
    found = dose_response(LINE, np.ones(4), bins=2)
    assert math.isnan(found.correlation.value)
    assert found.trend == "unclear"
