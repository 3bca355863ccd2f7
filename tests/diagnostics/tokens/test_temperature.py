from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_vdn.diagnostics.tokens.temperature import TEMPERATURES, TemperatureFit, fit_temperature
from pyro_vdn.errors import InputError


def tokens_at(temperature: float, count: int) -> tuple[Tensor, Tensor]:
    """Predictions that are right at a temperature, and tokens drawn from them at it."""
    generator = torch.Generator().manual_seed(0)
    log_probs = (1.5 * torch.randn(count, 12, generator=generator)).log_softmax(-1)
    drawn = torch.multinomial((log_probs / temperature).softmax(-1), 1, generator=generator)
    return log_probs, drawn.squeeze(-1)


def nll_at(log_probs: Tensor, targets: Tensor, temperature: float) -> float:
    scaled = (log_probs.double() / temperature).log_softmax(-1)
    return float(-scaled.gather(-1, targets.unsqueeze(-1)).mean())


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6])
def test_temperature_is_found_again(temperature: float) -> None:
    assert fit_temperature(*tokens_at(temperature, 6_000)) == pytest.approx(temperature, rel=0.04)


@pytest.mark.parametrize("count", [7, 300])
def test_no_temperature_of_a_fine_grid_is_better(count: int) -> None:
    case = tokens_at(1.3, count)
    fitted = fit_temperature(*case)
    grid = (fitted * torch.linspace(0.5, 2.0, 301)).tolist()
    best = min(grid, key=lambda temperature: nll_at(*case, temperature))
    assert fitted == pytest.approx(best, rel=0.004)
    assert nll_at(*case, fitted) <= nll_at(*case, best) + 1e-9


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_batches_give_the_same_temperature(temperature: float) -> None:
    log_probs, targets = tokens_at(temperature, 1000)
    fit = TemperatureFit()
    for start, end in ((0, 100), (100, 1000)):
        fit.update(log_probs[start:end], targets[start:end])
    assert fit.result() == pytest.approx(fit_temperature(log_probs, targets), rel=1e-4)


@pytest.mark.parametrize(("target", "bound"), [(0, TEMPERATURES[0]), (1, TEMPERATURES[1])])
def test_what_is_always_right_or_never_ends_at_a_bound(target: int, bound: float) -> None:
    case = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([target])
    fit = TemperatureFit()
    fit.update(*case)
    assert fit_temperature(*case) == fit.result() == bound


def test_impossible_tokens_do_no_harm() -> None:
    log_probs, targets = tokens_at(1.5, 500)
    log_probs = torch.cat([log_probs, torch.full((500, 1), -torch.inf)], -1)
    expected = fit_temperature(log_probs[:, :-1], targets)
    assert fit_temperature(log_probs, targets) == pytest.approx(expected, rel=1e-5)


def test_leading_dimensions_do_not_matter() -> None:
    log_probs, targets = tokens_at(1.5, 60)
    grown = fit_temperature(log_probs.reshape(4, 15, 12), targets.reshape(4, 15))
    assert grown == fit_temperature(log_probs, targets)


ONE = torch.zeros(1, dtype=torch.long)
EVEN = torch.full((1, 2), 0.5).log()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: TemperatureFit().result(), r"tokens: expected at least one batch"),
        (lambda: fit_temperature(EVEN.long(), ONE), r"log_probs: .* got torch.int64"),
        (lambda: fit_temperature(EVEN + 1, ONE), r"log_probs: .* is 0, got 1"),
        (lambda: fit_temperature(EVEN, ONE + 2), r"targets: expected tokens in 0 to 1"),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
