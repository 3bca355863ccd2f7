"""Which rows are drawn and which depend on each other; coverage along the horizon."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pyro_vdn.guides import NeuronGuide

from pyro_vdn.report.number_results import draw_rows, inside, stretches
from pyro_vdn.train.problem import Problem, Source, load_problem
from pyro_vdn.train.recipes import RegressionRecipe


def test_blocks_are_stretches_of_one_horizon_with_all_channels(series: Problem) -> None:
    blocks = series.blocks
    starts = [int(label.rsplit(" ", 1)[1]) for label in series.labels]
    expected = [(start - starts[0]) // series.recipe.horizon for start in starts]
    assert blocks.tolist() == expected
    table = load_problem(Source("energy"), RegressionRecipe())
    assert table.blocks.tolist() == list(range(len(table.test[0])))


def test_rows_that_are_drawn_do_not_overlap(series: Problem) -> None:
    model = series.build_model(0)
    state = torch.get_rng_state()
    drawn = draw_rows(model, NeuronGuide(model), series, 30)
    assert torch.equal(torch.get_rng_state(), state)
    assert drawn.draws.shape == (30, len(drawn.rows), 6)
    assert torch.equal(drawn.targets, series.test[1][drawn.rows])
    names = [series.labels[row] for row in drawn.rows.tolist()]
    starts = sorted({int(name.rsplit(" ", 1)[1]) for name in names})
    assert len(set(names)) == 2 * len(starts)  # both channels of each
    assert min(np.diff(starts)) >= series.recipe.horizon
    again = draw_rows(model, NeuronGuide(model), series, 30)
    assert torch.equal(drawn.draws, again.draws)


@pytest.mark.parametrize(("steps", "count"), [(1, 1), (3, 3), (8, 8), (96, 8), (100, 8)])
def test_stretches_cover_every_step_once(steps: int, count: int) -> None:
    pit = torch.rand(20, steps)
    found = stretches(pit, 0.5, torch.arange(20))
    assert len(found) == count
    assert [part.first for part in found] == [1, *(part.last + 1 for part in found[:-1])]
    assert found[-1].last == steps
    sizes = [part.last - part.first + 1 for part in found]
    mean = sum(part.share.value * size for part, size in zip(found, sizes, strict=True)) / steps
    assert mean == pytest.approx(float(((pit - 0.5).abs() <= 0.25).double().mean()))


def test_missing_targets_are_neither_inside_nor_outside() -> None:
    held = inside(torch.tensor([0.5, 0.99, math.nan]), 0.9)
    assert held[:2].tolist() == [1.0, 0.0]
    assert held[2].isnan()
