from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_vdn.diagnostics import loo_pit, pit
from pyro_vdn.errors import InputError


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def conjugate(rows: int, draws: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return outcomes, targets, log-likelihoods and exact transforms of a Normal mean.

    `mu ~ Normal(0, 1)` and `y ~ Normal(mu, 1)`: without row `i`, `mu` has precision `rows` and mean
    `sum_{j != i} y_j / rows`, and `y_i` has variance one more.
    """
    y = normal(rows, seed=1) + 0.5
    y[0] = 2.5  # far out: it moves its own prediction
    mu = y.sum() / (rows + 1) + normal(draws, 1, seed=2) / (rows + 1) ** 0.5
    without = (y.sum() - y) / rows
    exact = torch.special.ndtr((y - without) / (1 + 1 / rows) ** 0.5)
    return mu + normal(draws, rows, seed=3), y, -0.5 * (y - mu).square(), exact


def test_values_are_those_of_leaving_each_row_out() -> None:
    draws, y, log_likelihood, exact = conjugate(3, 15_000)
    found = loo_pit(draws, y, log_likelihood)
    torch.testing.assert_close(found.values, exact, atol=0.01, rtol=0.0)
    assert bool(found.reliable.all())
    # The prediction that saw the target is another: this is what the weights are for.
    assert float((pit(draws, y) - exact).abs().max()) > 0.04


def test_equal_weights_give_the_plain_transform() -> None:
    draws, y = normal(50, 4, 3).round(), normal(4, 3, seed=1).round()
    for randomised in (True, False):
        found = loo_pit(draws, y, torch.zeros(50, 4, 3).double(), randomised=randomised, seed=5)
        torch.testing.assert_close(found.values, pit(draws, y, randomised=randomised, seed=5))


def test_leaving_out_whole_rows_gives_all_their_values_the_same_weights() -> None:
    draws, y, by_row = normal(200, 4, 3, 2), normal(4, 3, 2, seed=1), normal(200, 4, seed=2)
    rows = loo_pit(draws, y, by_row)
    spread = loo_pit(draws, y, by_row[..., None, None].expand(200, 4, 3, 2))
    torch.testing.assert_close(rows.values, spread.values)
    assert rows.k_hat.shape == (4,)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    draws, y, by_row = normal(40, 7, 2), normal(7, 2, seed=1), normal(40, 7, seed=2)
    whole = loo_pit(draws, y, by_row).values
    monkeypatch.setattr("pyro_vdn.diagnostics._checks.CHUNK_ELEMENTS", 200)
    torch.testing.assert_close(loo_pit(draws, y, by_row).values, whole)


def test_local_latents_are_found_unreliable() -> None:
    # z_i ~ Normal(0, 1), y_i ~ Normal(z_i, s): the posterior of z_i knows y_i alone.
    rows, s = 100, 0.1
    y = normal(rows, seed=1) * (1 + s**2) ** 0.5
    z = y / (1 + s**2) + normal(2000, rows, seed=2) * s / (1 + s**2) ** 0.5
    log_likelihood = -0.5 * ((y - z) / s).square()
    draws = z + s * normal(2000, rows, seed=3)
    found = loo_pit(draws, y, log_likelihood)
    assert float(found.reliable.double().mean()) < 0.3
    # Marginally, y_i ~ Normal(0, 1 + s^2), whatever the other rows: nothing to leave out.
    apart = normal(2000, rows, seed=4) * (1 + s**2) ** 0.5
    exact = torch.special.ndtr(y / (1 + s**2) ** 0.5)
    torch.testing.assert_close(pit(apart, y), exact, atol=0.05, rtol=0.0)
    assert float((found.values - exact).abs().max()) > 0.2


def test_values_keep_their_dtype_and_range() -> None:
    draws = normal(30, 5).float()
    found = loo_pit(draws, torch.full((5,), 99.0), normal(30, 5, seed=1))
    assert found.values.dtype == torch.float32
    assert bool(((found.values > 0.9) & (found.values <= 1.0)).all())


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: loo_pit(normal(9, 3), normal(3), normal(8, 3)),
            r"log_likelihood: expected shape \(9, 3\) or .* got shape \(8, 3\)",
        ),
        (
            lambda: loo_pit(normal(9, 3, 2), normal(3, 2), normal(9, 2)),
            r"log_likelihood: expected shape \(9, 3, 2\) or .* got shape \(9, 2\)",
        ),
        (
            lambda: loo_pit(normal(9, 3), normal(3), normal(9, 3) / 0),
            r"log_likelihood: expected finite values",
        ),
        (lambda: loo_pit(normal(9, 3), normal(4), normal(9, 3)), r"draws: expected shape"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
