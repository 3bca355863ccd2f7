from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from pyro_vdn.diagnostics.tokens.token_calibration import (
    adaptive_calibration_error,
    expected_calibration_error,
    reliability_curve,
)
from pyro_vdn.errors import InputError


def predictions(count: int = 2000, *, sharpness: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    probs = (sharpness * torch.randn(count, 5, generator=generator)).softmax(-1)
    return probs, torch.multinomial(probs.sqrt(), 1, generator=generator).squeeze(-1)


@pytest.mark.parametrize("bins", [3, 15])
@pytest.mark.parametrize("count", [4, 2000])
def test_error_equals_torchmetrics(count: int, bins: int) -> None:
    probs, targets = predictions(count)
    expected = multiclass_calibration_error(probs, targets, num_classes=5, n_bins=bins, norm="l1")
    highest = probs.max(-1)
    got = expected_calibration_error(highest.values, highest.indices == targets, bins=bins)
    assert got == pytest.approx(float(expected), abs=1e-6)
    assert got > 0.05


def test_probabilities_at_an_edge_start_a_bin_and_1_ends_the_last() -> None:
    curve = reliability_curve(torch.tensor([0.0, 0.2, 0.6, 1.0]), torch.ones(4), bins=5)
    assert curve.count.tolist() == [1, 1, 0, 1, 1]
    assert curve.confidence[-1] == 1.0


def test_curve_equals_loops() -> None:
    probs, targets = predictions(300)
    highest = probs.max(-1)
    correct = highest.indices == targets
    curve = reliability_curve(highest.values, correct, bins=4)
    for at in range(4):
        inside = (highest.values >= at / 4) & (highest.values < (at + 1) / 4)
        assert int(curve.count[at]) == int(inside.sum())
        if inside.any():
            assert float(curve.accuracy[at]) == pytest.approx(float(correct[inside].float().mean()))
            assert float(curve.confidence[at]) == pytest.approx(
                float(highest.values[inside].mean())
            )


@pytest.mark.parametrize("count", [5, 60, 61])
def test_adaptive_error_equals_loops(count: int) -> None:
    probs, targets = predictions(count)
    highest = probs.max(-1)
    pairs = sorted(zip(highest.values.tolist(), (highest.indices == targets).tolist(), strict=True))
    bins = min(15, count)
    sizes = [count // bins + (at < count % bins) for at in range(bins)]
    total, start = 0.0, 0
    for size in sizes:
        part = pairs[start : start + size]
        total += abs(sum(hit - probability for probability, hit in part))
        start += size
    got = adaptive_calibration_error(highest.values, highest.indices == targets)
    assert got == pytest.approx(total / count, abs=1e-6)


def test_order_of_equal_probabilities_is_of_no_consequence() -> None:
    confidence = torch.full((30,), 0.5)
    correct = torch.arange(30) < 15
    assert adaptive_calibration_error(confidence, correct, bins=3) == pytest.approx(0.0)
    assert adaptive_calibration_error(confidence, correct.flip(0), bins=3) == pytest.approx(0.0)


HALF = torch.full((2,), 0.5)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: reliability_curve(HALF + 1, HALF > 0), r"max_probability: .* got 1.5 at \(0,\)"),
        (lambda: reliability_curve(HALF * torch.nan, HALF > 0), r"max_probability: .* got nan"),
        (lambda: reliability_curve(HALF, HALF[:1] > 0), r"correct: expected shape \(2,\)"),
        (lambda: adaptive_calibration_error(HALF, HALF > 0, bins=0), r"bins: expected a positive"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
