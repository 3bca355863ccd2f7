"""The speed benchmark times equal computations."""

from __future__ import annotations

import pyro
import pytest
import torch
from pyro_vdn.guides import NeuronGuide

from pyro_vdn.bench.handwritten import HandWritten
from pyro_vdn.bench.speed import Comparison, SpeedModel, bench_speed
from pyro_vdn.bench.timing import median_seconds, peak_bytes
from pyro_vdn.infer import LocalELBO

SIZES = (6, 5, 4, 3)


@pytest.mark.parametrize("num_particles", [1, 4])
def test_hand_written_equals_ours(num_particles: int) -> None:
    model, by_hand = SpeedModel(SIZES), HandWritten(SIZES, num_particles)
    by_hand.encode.load_state_dict(model.encode.state_dict())
    by_hand.readout.load_state_dict(model.readout.state_dict())
    by_hand.loc.load_state_dict(model.neurons.posterior.loc.state_dict())
    x, y = torch.randn(8, 6), torch.randn(8, 3)
    pyro.set_rng_seed(1)
    expected = by_hand(x, y)
    pyro.set_rng_seed(1)
    loss = LocalELBO(num_particles, max_plate_nesting=2)
    ours = loss.differentiable_loss(model, NeuronGuide(model), x, y)
    torch.testing.assert_close(ours, expected)
    (mine,) = torch.autograd.grad(ours, [model.neurons.posterior.loc.weight])
    (theirs,) = torch.autograd.grad(expected, [by_hand.loc.weight])
    torch.testing.assert_close(mine, theirs)


def test_bench_speed_compares_pairs_and_all_three() -> None:
    threads = torch.get_num_threads()
    local, two_pass, mixed = bench_speed(2, rows=4, repeats=2, warmup=1)
    assert (mixed.name, mixed.reference) == ("LocalELBO, all three interleaved", "hand-written")
    assert (local.name, local.reference) == ("LocalELBO", "hand-written")
    assert (two_pass.name, two_pass.reference) == ("two-pass TraceMeanField_ELBO", "LocalELBO")
    assert min(local.milliseconds, local.reference_milliseconds, local.peak_mebibytes) > 0
    assert torch.get_num_threads() == threads


def test_relative_cost() -> None:
    comparison = Comparison("a", "b", 1, 3.0, 2.0, 8.0, 4.0)
    assert comparison.relative_time == 1.5
    assert comparison.relative_memory == 2.0


def test_median_takes_rounds_in_turn() -> None:
    calls: list[str] = []
    median_seconds(
        {name: lambda name=name: calls.append(name) for name in "ab"}, repeats=2, warmup=0
    )
    assert calls == ["a", "b", "b", "a"]  # each of them first in its turn


def test_peak_counts_what_is_held_together() -> None:
    def step() -> None:
        held = torch.ones(2**16, dtype=torch.float32)
        del held
        torch.ones(2**16, dtype=torch.float32)

    assert 2**18 <= peak_bytes(step) < 2**19
