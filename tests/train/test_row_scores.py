from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pyro_vdn.infer import Prediction
from pyro_vdn.train.row_scores import RowScores, error_of_ratio, standard_errors

NAN = math.nan


def scored(rows: int, outputs: int, missing: float = 0.0) -> tuple[RowScores, torch.Tensor]:
    y = torch.randn(rows, outputs)
    y[torch.rand(y.shape) < missing] = NAN
    density = torch.randn(rows, outputs).masked_fill(y.isnan(), NAN)
    prediction = Prediction(torch.randn(30, rows, outputs), density, density.nansum(-1))
    scores = RowScores()
    for part in torch.arange(rows).split(7):
        scores.add(
            Prediction(prediction.draws[:, part], density[part], density[part].nansum(-1)), y[part]
        )
    return scores, y


def test_rows_average_to_the_scores() -> None:
    scores, y = scored(40, 3, missing=0.2)
    rows, means = scores.rows(), scores.means()
    assert rows["nll"].shape == rows["crps"].shape == scores.transforms().shape == y.shape
    assert rows["nll"].isnan().equal(y.isnan())
    observed = float((~y.isnan()).sum())
    assert means["nll"] == pytest.approx(float(rows["nll"].nanmean()))
    assert means["crps"] == pytest.approx(float(rows["crps"].nanmean()))
    assert means["joint_nll"] == pytest.approx(float(rows["joint_nll"].nansum()) / observed)
    assert means["energy_score"] == pytest.approx(float(rows["energy_score"].nanmean()))


def test_a_row_without_any_target_is_missing_as_a_whole() -> None:
    scores, y = RowScores(), torch.tensor([[1.0, NAN], [NAN, NAN]])
    density = torch.tensor([[-1.0, NAN], [NAN, NAN]])
    scores.add(Prediction(torch.randn(20, 2, 2), density, density.nansum(-1)), y)
    rows = scores.rows()
    for name in ("joint_nll", "energy_score"):
        assert rows[name].isnan().tolist() == [False, True]
    assert scores.means()["joint_nll"] == 1.0
    assert standard_errors(rows, torch.arange(2)) == {}


def test_errors_of_complete_rows_are_those_of_a_mean() -> None:
    rows = scored(50, 4)[0].rows()
    errors = standard_errors(rows, torch.arange(50))
    assert errors.keys() == rows.keys()
    for name in ("nll", "crps"):
        means = rows[name].mean(1).numpy()
        assert errors[name] == pytest.approx(np.std(means, ddof=1) / math.sqrt(50))
    energies = rows["energy_score"].numpy()
    assert errors["energy_score"] == pytest.approx(np.std(energies, ddof=1) / math.sqrt(50))
    joint = rows["joint_nll"].numpy() / 4  # per output, as it is reported
    assert errors["joint_nll"] == pytest.approx(np.std(joint, ddof=1) / math.sqrt(50))


def test_rows_of_a_block_are_no_more_than_their_mean() -> None:
    rows = scored(12, 3)[0].rows()
    twice = {name: torch.cat([values, values]) for name, values in rows.items()}
    once, again = (
        standard_errors(scores, torch.arange(12).repeat(times))
        for scores, times in ((rows, 1), (twice, 2))
    )
    assert again == pytest.approx(once)
    pairs = standard_errors(rows, torch.arange(12) // 2)
    means = rows["nll"].reshape(6, -1).mean(1).numpy()
    assert pairs["nll"] == pytest.approx(np.std(means, ddof=1) / math.sqrt(6))


def test_errors_of_means_of_unequal_rows_are_as_large_as_they_vary() -> None:
    count, rows = 1500, 60
    sizes = torch.randint(1, 6, (count, rows))
    here = torch.arange(5) < sizes[..., None]
    values = torch.randn(count, rows, 1) + 0.5 * torch.randn(count, rows, 5) + 2.0
    values = values.masked_fill(~here, NAN)
    means = values.flatten(1).nanmean(1)
    errors = torch.tensor(
        [standard_errors({"nll": one}, torch.arange(rows))["nll"] for one in values[:200]]
    )
    assert float(errors.square().mean().sqrt()) == pytest.approx(float(means.std()), rel=0.06)


def test_groups_without_anything_do_not_count() -> None:
    totals, counts = torch.tensor([3.0, 0.0, 8.0, 4.0]), torch.tensor([1.0, 0.0, 2.0, 1.0])
    some = counts > 0
    assert error_of_ratio(totals, counts) == error_of_ratio(totals[some], counts[some])
