from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pyro_vdn.decision import READOUTS, TEMPERATURES, Readout, candidate_readouts
from pyro_vdn.errors import InputError


def bank(*shape: int, spread: float = 2.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(shape, generator=generator, dtype=torch.float64)).log_softmax(-1)


def by_hand(name: str, log_probs: Tensor) -> Tensor:
    """Go word by word, in probabilities."""
    draws, vocabulary = log_probs.shape
    p = [[math.exp(float(log_probs[s, v])) for v in range(vocabulary)] for s in range(draws)]
    if name == "median":
        middle = [sorted(p[s][v] for s in range(draws)) for v in range(vocabulary)]
        values = [(m[(draws - 1) // 2] + m[draws // 2]) / 2 for m in middle]
    elif name == "mean_logit":
        values = [
            math.exp(sum(math.log(p[s][v]) for s in range(draws)) / draws)
            for v in range(vocabulary)
        ]
    else:
        weight = {
            "mean_probability": lambda row: 1.0,
            "entropy_weighted": lambda row: math.exp(sum(q * math.log(q) for q in row) / 0.25),
            "confidence_weighted": lambda row: math.exp(max(row) / 0.25),
        }[name]
        values = [sum(weight(row) * row[v] for row in p) for v in range(vocabulary)]
    return torch.tensor(values, dtype=torch.float64) / sum(values)


@pytest.mark.parametrize("name", READOUTS)
@pytest.mark.parametrize("draws", [1, 3, 4])
def test_a_readout_is_its_definition(name: str, draws: int) -> None:
    log_probs = bank(draws, 5)
    torch.testing.assert_close(Readout(name)(log_probs).exp(), by_hand(name, log_probs))


@pytest.mark.parametrize("name", READOUTS)
@pytest.mark.parametrize("temperature", [0.8, 1.0, 3.0])
def test_it_is_a_distribution_whatever_the_order_of_draws(name: str, temperature: float) -> None:
    log_probs, readout = bank(7, 2, 3, 11), Readout(name, temperature)
    once = readout(log_probs)
    assert once.shape == (2, 3, 11)
    torch.testing.assert_close(once.exp().sum(-1), torch.ones(2, 3))
    torch.testing.assert_close(readout(log_probs[[3, 0, 6, 1, 5, 2, 4]]), once)


@pytest.mark.parametrize("name", READOUTS)
def test_one_draw_is_itself_and_temperature_scales_the_result(name: str) -> None:
    one, many = bank(1, 4, 6), bank(5, 4, 6)
    torch.testing.assert_close(Readout(name)(one), one[0])
    powered = Readout(name)(many).exp() ** (1 / 2.5)
    expected = powered / powered.sum(-1, keepdim=True)
    torch.testing.assert_close(Readout(name, 2.5)(many).exp(), expected)


def test_readouts_differ_and_keep_the_dtype() -> None:
    log_probs = bank(4, 3, 6).float()
    results = [Readout(name)(log_probs) for name in READOUTS]
    assert {result.dtype for result in results} == {torch.float32}
    for i, first in enumerate(results):
        assert all((first - other).abs().max() > 1e-3 for other in results[i + 1 :])


@pytest.mark.parametrize("name", READOUTS)
def test_far_below_the_smallest_number_nothing_breaks(name: str) -> None:
    log_probs = torch.tensor([[0.0, -400.0, -900.0], [-300.0, 0.0, -800.0]]).log_softmax(-1)
    result = Readout(name)(log_probs.float())
    assert result.isfinite().all()
    torch.testing.assert_close(result.exp().sum(), torch.tensor(1.0, dtype=torch.float32))


def test_candidates_are_every_name_at_every_temperature() -> None:
    every = candidate_readouts()
    assert len(every) == len(set(every)) == len(READOUTS) * len(TEMPERATURES)
    assert (min(TEMPERATURES), max(TEMPERATURES)) == (0.8, 3.0)
    assert candidate_readouts(["median"], temperatures=[1.0, 2.0]) == (
        Readout("median", 1.0),
        Readout("median", 2.0),
    )


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: Readout("mode"), r"name: expected one of mean_probability, .* got 'mode'"),
        (lambda: Readout(temperature=0.0), r"temperature: expected a positive, .* got 0.0"),
        (lambda: Readout(temperature=math.nan), r"temperature: expected a positive, .* got nan"),
        (lambda: Readout()(torch.zeros(3)), r"log_probs: expected shape \(draws, \.\.\., voc"),
        (lambda: Readout()(torch.zeros(2, 3, 4)), r"sum to 1 .* got a sum of 4 at \(0, 0\)"),
        (lambda: Readout()(bank(2, 3).log()), r"log_probs: expected finite values, got nan"),
        (lambda: Readout()(torch.zeros(2, 3).long()), r"log_probs: expected a floating-point"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
