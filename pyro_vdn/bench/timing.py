"""Timing and memory of steps, side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

from torch.profiler import ProfilerActivity, profile

Step = Callable[[], object]


def median_seconds(
    steps: Mapping[str, Step], *, repeats: int = 200, warmup: int = 10
) -> dict[str, float]:
    """Time steps in turn, one call of each per round, each of them first in its turn.

    Args:
        steps: What to time, by name.
        repeats: Number of rounds.
        warmup: Calls of each before the first round.

    Returns:
        Median seconds of one call, by name.

    Example:
        >>> sorted(median_seconds({"a": lambda: 1, "b": lambda: 2}, repeats=3, warmup=1))
        ['a', 'b']
    """
    for step in steps.values():
        for _ in range(warmup):
            step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            steps[name]()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_bytes(step: Step) -> int:
    """Return the most bytes of CPU tensors that one call holds at a time.

    It counts from the least held during the call, which frees the gradients of the one before.

    Args:
        step: What to measure; it is called twice, once to warm up.

    Example:
        >>> import torch
        >>> peak_bytes(lambda: torch.ones(1000).double().sum().item()) >= 12000
        True
    """
    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        step()
    assert prof.profiler is not None
    assert prof.profiler.kineto_results is not None
    events = [e for e in prof.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = least = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        least = min(least, held)
        peak = max(peak, held - least)
    return peak
