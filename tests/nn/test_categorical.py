"""Averages and entropies against sums written out."""

from __future__ import annotations

import math

import pytest
import torch

from pyro_vdn.nn.categorical import entropy_of, mean_log_probs, mutual_information


def test_they_are_sums_over_draws_and_tokens() -> None:
    p = torch.rand(3, 2, 4).softmax(-1)
    p[0, 0] = torch.tensor([0.5, 0.5, 0.0, 0.0])
    mean = sum(p) / 3
    entropies = [
        -sum(float(q) * math.log(q) for q in row if q > 0) for row in (*p.flatten(0, 1), *mean)
    ]
    expected = torch.tensor(entropies)
    found = entropy_of(p.log())
    torch.testing.assert_close(found.flatten(), expected[:6])
    torch.testing.assert_close(mean_log_probs(p.log()).exp(), mean)
    information = mutual_information(mean_log_probs(p.log()), found.mean(0))
    torch.testing.assert_close(information, expected[6:] - expected[:6].reshape(3, 2).mean(0))


def test_the_average_does_not_underflow_and_equal_draws_say_nothing() -> None:
    log_probs = torch.tensor([[-1e3, 0.0]]).expand(3, 2)
    assert mean_log_probs(log_probs)[0] == pytest.approx(-1e3)
    same = torch.full((5, 7), 1 / 7).log()
    assert mutual_information(mean_log_probs(same), entropy_of(same).mean(0) + 1e-12) == 0
    assert mean_log_probs(same.half()).dtype == torch.float32
