from __future__ import annotations

from collections.abc import Callable

import pytest
import scoringrules
import torch
from torch import Tensor

from pyro_vdn.diagnostics import _checks, crps_draws, energy_score, variogram_score
from pyro_vdn.errors import InputError

TWO, DRAWS, TARGET = torch.zeros(2), torch.zeros(3, 1, 2), torch.zeros(1, 2)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.fixture(params=[None, 64], ids=["one chunk", "many chunks"])
def _chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param is not None:
        monkeypatch.setattr(_checks, "CHUNK_ELEMENTS", request.param)


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize(("fair", "estimator"), [(False, "nrg"), (True, "fair")])
@pytest.mark.parametrize(("rows", "steps"), [(1, 1), (4, 3), (3, 40)])
def test_energy_score_equals_reference(rows: int, steps: int, fair: bool, estimator: str) -> None:
    draws, target = normal(17, rows, steps), normal(rows, steps, seed=1)
    expected = scoringrules.es_ensemble(
        target.numpy(), draws.numpy(), m_axis=0, v_axis=-1, estimator=estimator
    )
    got = energy_score(draws, target, fair=fair)
    assert got.shape == (rows,)
    torch.testing.assert_close(got, torch.as_tensor(expected), rtol=1e-6, atol=1e-9)


def test_energy_score_of_one_step_is_the_crps() -> None:
    draws, target = normal(30, 6, 1), normal(6, 1, seed=1)
    torch.testing.assert_close(energy_score(draws, target), crps_draws(draws, target)[:, 0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_energy_score_of_half_precision(dtype: torch.dtype) -> None:
    draws, target = normal(40, 3, 4).to(dtype), normal(3, 4, seed=1).to(dtype)
    found = energy_score(draws, target)
    assert found.dtype == dtype
    expected = energy_score(draws.double(), target.double())
    torch.testing.assert_close(found.double(), expected, rtol=0.02, atol=0)


def test_energy_score_keeps_digits_when_draws_are_close() -> None:
    draws, target = (100 + 1e-3 * normal(40, 2, 60)).float(), torch.zeros(2, 60)
    exact = energy_score(draws.double(), target.double())
    torch.testing.assert_close(energy_score(draws, target).double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("score", [energy_score, variogram_score])
def test_rows_of_time_and_outputs_are_trajectories_of_both(score: Callable[..., Tensor]) -> None:
    draws, target = normal(9, 4, 3, 2), normal(4, 3, 2, seed=1)
    assert score(draws, target).shape == (4,)
    torch.testing.assert_close(
        score(draws, target), score(draws.reshape(9, 4, 6), target.reshape(4, 6))
    )


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize("order", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("rows", "steps"), [(1, 1), (4, 3), (3, 11)])
def test_variogram_score_equals_reference(rows: int, steps: int, order: float) -> None:
    draws, target = normal(17, rows, steps), normal(rows, steps, seed=1)
    weights = normal(steps, steps, seed=2).exp()
    for given in (None, weights):
        expected = scoringrules.vs_ensemble(
            target.numpy(),
            draws.numpy(),
            None if given is None else given.numpy(),
            m_axis=0,
            v_axis=-1,
            p=order,
        )
        got = variogram_score(draws, target, order=order, weights=given)
        torch.testing.assert_close(got, torch.as_tensor(expected), rtol=1e-6, atol=1e-9)


def test_variogram_score_sees_lost_correlation_and_no_shift() -> None:
    shared, own = normal(150, 100, 1), normal(150, 100, 6, seed=1)
    truth = normal(100, 1, seed=2) + 0.3 * normal(100, 6, seed=3)
    right, independent = shared + 0.3 * own, 1.09**0.5 * own
    good = variogram_score(right, truth)
    assert float(good.mean()) < 0.5 * float(variogram_score(independent, truth).mean())
    torch.testing.assert_close(variogram_score(right + 5, truth), good)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: energy_score(torch.zeros(3, 2), TWO), r"target: expected shape \(rows, steps\)"),
        (lambda: energy_score(torch.zeros(3, 2, 1), torch.zeros(1, 2)), r"draws: expected shape"),
        (
            lambda: energy_score(torch.zeros(1, 1, 2), torch.zeros(1, 2), fair=True),
            r"at least 2 draws",
        ),
        (lambda: variogram_score(torch.zeros(3, 2), TWO), r"target: expected shape \(rows, steps"),
        (lambda: variogram_score(DRAWS, TARGET, order=0.0), r"order: expected a positive power"),
        (
            lambda: variogram_score(DRAWS, TARGET, weights=torch.ones(3, 2)),
            r"weights: expected shape \(steps, steps\) = \(2, 2\), got shape \(3, 2\)",
        ),
        (
            lambda: variogram_score(DRAWS, TARGET, weights=-torch.eye(2)),
            r"weights: expected weights of zero or more, got -1.0 at \(0, 0\)",
        ),
    ],
)
def test_bad_input_is_refused_with_its_place(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
