"""Decaying summaries against the loop they replace."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.nn.summaries import DecayingSummary
from pyro_vdn.testing import randomise

ROWS, TIME, SIZE = 3, 6, 4


def make_summary(*, reverse: bool = False) -> DecayingSummary:
    summary = DecayingSummary(2, SIZE, reverse=reverse)
    randomise(summary)
    return summary


def by_hand(summary: DecayingSummary, h: Tensor, mask: Tensor | None = None) -> Tensor:
    decay, total = torch.sigmoid(summary.raw_decay), torch.zeros(len(h), SIZE)
    steps, found = range(h.shape[1]), {}
    for step in reversed(steps) if summary.reverse else steps:
        added = (1 - decay) * summary.linear(h[:, step])
        if mask is not None:
            added = torch.where(mask[:, step, None], added, 0.0)
        total = found[step] = decay * total + added
    return torch.stack([found[step] for step in steps], 1)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_is_the_loop(reverse: bool, masked: bool) -> None:
    summary, h = make_summary(reverse=reverse), torch.randn(ROWS, TIME, 2)
    mask = torch.rand(ROWS, TIME) > 0.4 if masked else None
    mine, theirs = summary(h, mask), by_hand(summary, h, mask)
    torch.testing.assert_close(mine, theirs)
    weights = torch.randn(ROWS, TIME, SIZE)
    parameters = list(summary.parameters())
    for a, b in zip(
        torch.autograd.grad((mine * weights).sum(), parameters),
        torch.autograd.grad((theirs * weights).sum(), parameters),
        strict=True,
    ):
        assert bool((a != 0).any())
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("reverse", [False, True])
def test_reads_one_direction_alone(reverse: bool) -> None:
    summary, h = make_summary(reverse=reverse), torch.randn(TIME, 2, requires_grad=True)
    (grad,) = torch.autograd.grad(summary(h)[2].sum(), h)
    reads = (grad != 0).any(-1).tolist()
    assert reads == [(step >= 2) if reverse else (step <= 2) for step in range(TIME)]


@pytest.mark.parametrize("size", [1, 6])
def test_half_lives_at_the_start(size: int) -> None:
    summary = DecayingSummary(2, size)
    half_lives = torch.log(torch.tensor(0.5)) / torch.log(torch.sigmoid(summary.raw_decay))
    expected = 2.0 ** torch.linspace(0.0, 5.0, size)
    torch.testing.assert_close(half_lives, expected, rtol=1e-6, atol=1e-6)


def test_of_a_constant_input_it_becomes_its_projection() -> None:
    summary, h = make_summary(), torch.randn(2)
    last = summary(h.expand(2_000, 2))[-1]
    torch.testing.assert_close(last, summary.linear(h))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    assert make_summary().to(dtype)(torch.zeros(TIME, 2, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize(("in_features", "size"), [(0, 3), (2, 0), (2, -1)])
def test_sizes_are_positive(in_features: int, size: int) -> None:
    with pytest.raises(InputError, match="expected a positive integer"):
        DecayingSummary(in_features, size)
