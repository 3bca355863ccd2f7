from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pyro_vdn.diagnostics import Comparison, compare, psis, stacking_weights
from pyro_vdn.errors import InputError

Array = NDArray[np.float64]


def made(rows: int = 120, *, seed: int = 0) -> dict[str, Array]:
    """Log densities of three fits that find the same rows hard."""
    generator = np.random.default_rng(seed)
    hard = 2.0 * generator.normal(size=rows)
    return {
        name: hard - loss + 0.5 * generator.normal(size=rows)
        for name, loss in (("twin", 0.4), ("neurons", 0.0), ("dropout", 0.15))
    }


def test_values_are_those_of_arviz() -> None:
    """Written out as `az.compare` computes them from pointwise values."""
    densities = made()
    ours = compare(densities).to_arrays()
    order = sorted(densities, key=lambda name: -densities[name].sum())
    assert ours["name"].tolist() == order == ["neurons", "dropout", "twin"]
    for at, name in enumerate(order):
        values, difference = densities[name], densities[order[0]] - densities[name]
        assert ours["elpd"][at] == pytest.approx(np.sum(values))
        assert ours["se"][at] == pytest.approx((len(values) * np.var(values)) ** 0.5)
        assert ours["elpd_diff"][at] == pytest.approx(np.sum(difference), abs=1e-12)
        assert ours["dse"][at] == pytest.approx(np.sqrt(len(difference) * np.var(difference)))


def test_paired_errors_are_smaller_than_those_of_each() -> None:
    found = compare(made())
    assert all(fit.dse < 0.5 * fit.se for fit in found.fits)
    assert found["twin"].is_worse
    assert not found["neurons"].is_worse


def test_intervals_hold_the_true_difference_as_often_as_they_say() -> None:
    held = 0
    for seed in range(300):
        fit = compare(made(60, seed=seed), level=0.8, weights="pseudo_bma")["twin"]
        held += fit.elpd_diff > 0 and fit.lower <= 60 * 0.4 <= fit.upper
    assert 215 <= held <= 260  # 240 expected, 7 a standard deviation


def test_errors_of_blocks_are_those_of_their_sums() -> None:
    densities = made(60)
    labels = np.repeat(np.arange(12), 5)[np.random.default_rng(1).permutation(60)]
    found = compare(densities, blocks=labels)
    difference = densities["neurons"] - densities["twin"]
    sums = np.array([(difference - difference.mean())[labels == at].sum() for at in range(12)])
    assert found["twin"].dse == pytest.approx(math.sqrt(12 * sums.var(ddof=1)))
    assert found.blocks == 12


def test_rows_said_twice_say_nothing_more_with_blocks() -> None:
    densities = made(50)
    twice = {name: np.repeat(values, 2) for name, values in densities.items()}
    alone, blocked = compare(twice), compare(twice, blocks=np.repeat(np.arange(50), 2))
    per_row = compare(densities)["twin"].dse / 50
    assert blocked["twin"].dse / 100 == pytest.approx(per_row * math.sqrt(50 / 49))
    assert alone["twin"].dse / 100 == pytest.approx(per_row / math.sqrt(2))


def test_missing_rows_are_left_out_for_all() -> None:
    densities = made(40)
    kept = {name: values[2:-3] for name, values in densities.items()}
    densities["twin"][:2] = math.nan
    densities["dropout"][-3:] = math.nan
    found = compare({name: torch.from_numpy(values) for name, values in densities.items()})
    assert (found.rows, found.missing) == (35, 5)
    assert found.fits == compare(kept).fits
    labels = np.random.default_rng(2).integers(8, size=40)
    assert compare(densities, blocks=labels).fits == compare(kept, blocks=labels[2:-3]).fits


def test_weights_are_of_the_kind_asked_for() -> None:
    densities = made()
    ours = compare(densities)
    table = np.stack([densities[fit.name] for fit in ours.fits], axis=1)
    assert [fit.weight for fit in ours.fits] == pytest.approx(stacking_weights(table), abs=1e-6)
    assert compare(densities, weights="pseudo_bma")["neurons"].weight > ours["neurons"].weight


def test_the_table_names_every_fit_in_its_order() -> None:
    text = str(compare({**made(40), "odd": np.append(np.zeros(39), math.nan)}))
    lines = text.splitlines()
    assert [line.split()[1] for line in lines[1:5]] == ["odd", "neurons", "dropout", "twin"]
    assert lines[-1] == "39 rows, 1 more left out"
    assert "95 % interval" in lines[0]
    assert str(compare(made(40), blocks=np.arange(40) // 2)).endswith("40 rows, in 20 blocks")


def test_rows_and_arrays_say_the_same() -> None:
    found = compare(made(40))
    arrays = found.to_arrays()
    for at, row in enumerate(found.to_rows()):
        assert all(arrays[name][at] == value for name, value in row.items())
        assert row["elpd_diff_per_row"] == pytest.approx(row["elpd_diff"] / 40)
    with pytest.raises(KeyError):
        found["nobody"]


@pytest.mark.parametrize(
    ("densities", "options", "message"),
    [
        ({}, {}, "log_densities: expected at least one fit by name, got none"),
        ({"a": np.zeros(3), "b": np.zeros(4)}, {}, r"log_densities\['b'\]: expected 3 rows"),
        ({"a": np.zeros((3, 1))}, {}, r"\['a'\]: expected one log density per row"),
        ({"a": np.array([0, -np.inf, 1])}, {}, "expected finite log densities.* got -inf at 1"),
        ({"a": np.zeros(3)}, {"weights": "equal"}, "weights: expected one of"),
        ({"a": np.zeros(3)}, {"level": 1.0}, "level: expected a share strictly"),
        ({"a": np.zeros(3)}, {"blocks": [0, 0]}, "blocks: expected"),
        ({"a": np.zeros(3)}, {"blocks": [0, 0, 0]}, "blocks: expected at least 2 blocks"),
        ({"a": np.array([0.0, np.nan])}, {}, "log_densities: expected at least 2 rows"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    densities: Mapping[str, Array], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        compare(densities, **options)


def test_leave_one_out_fails_for_local_latents_where_held_out_density_is_right() -> None:
    """Conjugate neurons `z ~ N(0, 1)`, `y | z ~ N(w z, s^2)`: all densities are known.

    Weights `1 / p(y | z)` turn the posterior, of variance v, into the prior: their tail has the
    shape `1 - v`.
    """
    w, s, draws = 3.0, 1.0, 4000
    generator = torch.Generator().manual_seed(0)
    normal = torch.distributions.Normal
    y = math.sqrt(w**2 + s**2) * torch.randn(200, generator=generator, dtype=torch.float64)
    v = s**2 / (w**2 + s**2)
    noise = torch.randn(draws, 200, generator=generator, dtype=torch.float64)
    log_likelihood = normal(w * (v * w / s**2 * y + math.sqrt(v) * noise), s).log_prob(y)
    exact = normal(0.0, math.sqrt(w**2 + s**2)).log_prob(y)

    smoothed = psis(-log_likelihood)
    assert float(smoothed.k_hat.median()) == pytest.approx(1 - v, abs=0.1)
    assert float((smoothed.k_hat > 0.7).double().mean()) > 0.8
    left_out = torch.logsumexp(smoothed.log_weights + log_likelihood, dim=0)

    prior = torch.randn(draws, 1, generator=generator, dtype=torch.float64)
    held_out = normal(w * prior, s).log_prob(y).logsumexp(0) - math.log(draws)
    found = compare({"exact": exact, "loo": left_out, "held out": held_out})
    assert found["loo"].rank == 0  # it promises too much
    assert found["exact"].is_worse
    per_row = (found["loo"].elpd - found["exact"].elpd) / 200
    assert per_row > 0.1
    assert abs(found["held out"].elpd - found["exact"].elpd) / 200 < 0.1 * per_row


def test_one_fit_alone_is_the_best() -> None:
    found = compare({"only": made()["twin"]})
    assert isinstance(found, Comparison)
    assert (found["only"].weight, found["only"].elpd_diff, found["only"].dse) == (1.0, 0.0, 0.0)
    assert re.search(r"0 +only", str(found))
