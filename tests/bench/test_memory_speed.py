"""The benchmark of what memory costs, on the smallest sizes."""

from __future__ import annotations

import pytest

from pyro_vdn.bench.memory_speed import (
    POSTERIORS,
    bench_memory_speed,
    memory_speed_table,
    window_table,
)


@pytest.mark.slow
def test_memory_speed() -> None:
    results = bench_memory_speed(
        rows=2, units=3, length=6, lengths=(4, 8), window_sizes=(4, 30, 3, 4, 5), repeats=1
    )
    assert [growth["posterior"] for growth in results["growth"]] == list(POSTERIORS)
    for growth in results["growth"]:
        assert growth["mebibytes"][1] > growth["mebibytes"][0] > 0
        assert 0.5 < growth["exponents"]["mebibytes"] < 1.5
    for loop in results["loops"]:  # which of them is quicker is no matter for a test
        assert min(loop["loop_milliseconds"], loop["milliseconds"]) > 0
    assert len(memory_speed_table(results).splitlines()) == 2 + 2 * len(POSTERIORS)
    assert "| one window, no memory |" in window_table(results)
    assert all(costs["one window"] > 0 for costs in results["windows"].values())
