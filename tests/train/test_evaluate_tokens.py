from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import VariationalGPT
from torch import Tensor, nn

from pyro_vdn.diagnostics import fit_temperature, token_scores
from pyro_vdn.diagnostics.tokens.token_metrics import score_columns
from pyro_vdn.diagnostics.tokens.token_scores import average_log_probs
from pyro_vdn.errors import InputError
from pyro_vdn.infer import TokenDraws, token_draws
from pyro_vdn.poutine import deterministic, dropout
from pyro_vdn.train import evaluate_token_draws, evaluate_tokens, fit_token_temperature

VOCABULARY, TIME = 7, 6
LAYERS = ["blocks.0.neurons", "blocks.1.neurons"]


def make_model(**options: Any) -> VariationalGPT:
    return VariationalGPT(
        VOCABULARY, block_size=TIME, num_layers=2, num_heads=2, width=8, **options
    )


def text(rows: int = 5) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(VOCABULARY, (rows, TIME + 1))
    return tokens[:, :-1], tokens[:, 1:]


def fixed_draws(x: Tensor) -> TokenDraws:
    """Draws that depend on the token and its place in the sequence alone."""
    codes = torch.arange(3.0).reshape(3, 1, 1, 1) + torch.arange(float(VOCABULARY))
    logits = torch.sin(codes * (1.0 + x.unsqueeze(-1)) + torch.arange(TIME).unsqueeze(-1))
    return TokenDraws((2 * logits).log_softmax(-1), {"a": x * 0.5, "b": x * 0.25}, {"a": x * 2.0})


@pytest.mark.parametrize("sizes", [[5], [1, 4], [2, 2, 1]])
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_any_batches_give_the_scores_of_all_at_once(sizes: list[int], temperature: float) -> None:
    x, y = text()
    batches = zip(x.split(sizes), y.split(sizes), strict=True)
    found = evaluate_token_draws(fixed_draws, batches, temperature=temperature)
    scores = token_scores(fixed_draws(x).log_probs, y, temperature=temperature)
    for name, column in score_columns(scores).items():
        torch.testing.assert_close(found.table[name], column)
    assert found.metrics.nll == pytest.approx(float(scores.nll.mean()), rel=1e-6)
    assert (found.metrics.tokens, found.metrics.sequences) == (30, 5)


def test_columns_are_in_the_order_of_the_corpus() -> None:
    x, y = text()
    table = evaluate_token_draws(fixed_draws, [(x[:2], y[:2]), (x[2:], y[2:])]).table
    assert table["target"].reshape(5, TIME).equal(y)
    assert table["token"].reshape(5, TIME).equal(x)
    assert table["position"].reshape(5, TIME)[3].tolist() == list(range(TIME))
    assert table["sequence"].reshape(5, TIME)[:, 0].tolist() == list(range(5))
    assert table["kl.a"].tolist() == (0.5 * x).flatten().tolist()
    assert table["kl"].tolist() == (0.75 * x).flatten().tolist()
    assert table["scale"].tolist() == (2.0 * x).flatten().tolist()
    assert {len(column) for column in table.values()} == {30}


def test_a_model_is_scored_by_its_draws() -> None:
    model, (x, y) = make_model(initial_scale=1.0), text()
    guide = NeuronGuide(model)
    found = evaluate_tokens(model, guide, [(x, y)], num_samples=200)
    many = token_draws(model, guide, x, num_samples=600)
    expected = token_scores(many.log_probs, y)
    assert found.metrics.nll == pytest.approx(float(expected.nll.mean()), abs=0.02)
    assert found.metrics.mutual_information == pytest.approx(
        float(expected.mutual_information.mean()), rel=0.1
    )
    assert found.metrics.signals["kl"] == pytest.approx(
        sum(float(many.kl[path].mean()) for path in LAYERS), rel=0.01
    )
    assert list(found.layers) == LAYERS
    layer = found.layers[LAYERS[0]]
    assert layer.rows == 30
    assert float(layer.kl.sum()) == pytest.approx(found.metrics.signals[f"kl.{LAYERS[0]}"])
    assert found.metrics.signals[f"scale.{LAYERS[1]}"] == pytest.approx(1.0)


def test_statistics_of_units_cover_every_batch() -> None:
    model, (x, y) = make_model(), text()
    whole = evaluate_tokens(model, NeuronGuide(model), [(x, y)], num_samples=2)
    parts = [(x[:1], y[:1]), (x[1:], y[1:])]
    in_parts = evaluate_tokens(model, NeuronGuide(model), parts, num_samples=2)
    first = LAYERS[0]  # nothing random stands before it
    assert in_parts.layers[first].rows == 30
    torch.testing.assert_close(in_parts.layers[first].kl, whole.layers[first].kl)


def test_the_same_seed_gives_the_same_figures_and_leaves_the_state_alone() -> None:
    model, pair = make_model(initial_scale=1.0), text()
    guide, state = NeuronGuide(model), torch.random.get_rng_state()
    one, same, other = (
        evaluate_tokens(model, guide, pair, num_samples=3, seed=seed).metrics for seed in (1, 1, 2)
    )
    assert one == same
    assert one.nll != other.nll
    assert torch.random.get_rng_state().equal(state)


class Counting:
    """A model that counts its runs by the number of draws."""

    def __init__(self, model: Callable[..., Any]) -> None:
        self.model = model
        self.draws: list[int] = []

    def __call__(self, *args: Any) -> Any:
        sizes = [int(frame.size) for frame in pyro.poutine.runtime._PYRO_STACK if _is_draws(frame)]
        self.draws.append(sizes[0])
        return self.model(*args)


def _is_draws(frame: Any) -> bool:
    return getattr(frame, "dim", None) == -4 and hasattr(frame, "size")


@pytest.mark.parametrize("neuron_layers", [(), None])
def test_a_model_without_randomness_takes_one_draw(neuron_layers: tuple[int, ...] | None) -> None:
    model, pair = make_model(neuron_layers=neuron_layers), text()
    twin = Counting(model if neuron_layers == () else deterministic(model))
    found = evaluate_tokens(twin, NeuronGuide(twin), pair, num_samples=16)
    assert set(twin.draws) <= {1, 2}  # 2 are tried once, on one row
    for name in ("mutual_information", "flip_rate", "kl", "scale"):
        assert not found.table[name].any()
    assert found.layers == {}


def test_a_random_model_takes_all_draws_and_one_for_its_statistics() -> None:
    model = make_model()
    counting = Counting(model)
    evaluate_tokens(counting, NeuronGuide(model), text(), num_samples=9)
    assert counting.draws == [1, 9]


def test_dropout_is_random_without_a_kl() -> None:
    model = make_model()
    nn.init.normal_(model.blocks[1].project.weight)
    dropped = dropout(model, 0.5)
    found = evaluate_tokens(dropped, NeuronGuide(dropped), text(), num_samples=8)
    assert found.metrics.mutual_information > 1e-4
    assert found.metrics.signals["kl"] == 0.0


def test_randomness_outside_of_neurons_is_seen() -> None:
    def model(tokens: Tensor, targets: Tensor | None = None) -> Any:
        noise = pyro.sample("noise", pyro.distributions.Normal(0.0, 1.0))
        logits = noise.reshape(-1, 1, 1, 1, 1) * torch.arange(float(VOCABULARY))
        with pyro.plate("data", len(tokens), dim=-3), pyro.plate("tokens", TIME, dim=-2):
            return pyro.sample("next_token", pyro.distributions.Categorical(logits=logits))

    found = evaluate_tokens(model, NeuronGuide(model), text(), num_samples=8)
    assert found.metrics.mutual_information > 0.05


def test_a_whole_text_is_cut_into_batches_and_parts_get_their_mode_back() -> None:
    model = make_model()
    sizes: list[int] = []

    def seen(x: Tensor) -> TokenDraws:
        sizes.append(len(x))
        return fixed_draws(x)

    evaluate_token_draws(seen, text(70))
    assert sizes == [32, 32, 6]
    model.train()
    modes: list[bool] = []
    model.norm.register_forward_hook(lambda part, *_: modes.append(part.training))
    evaluate_tokens(model, NeuronGuide(model), text(), num_samples=2)
    assert modes == [False] * len(modes)
    assert model.norm.training


def test_temperature_is_that_of_the_average_of_draws() -> None:
    model = make_model(initial_scale=1.0)
    nn.init.normal_(model.embed.weight, std=0.7)
    x, y = text(20)
    guide = NeuronGuide(model)
    batches = [(x[:8], y[:8]), (x[8:], y[8:])]
    found = fit_token_temperature(model, guide, batches, num_samples=50)
    draws = token_draws(model, guide, x, num_samples=200)
    assert found == pytest.approx(fit_temperature(average_log_probs(draws.log_probs), y), rel=0.1)
    at_it = evaluate_tokens(model, guide, batches, num_samples=30, temperature=found).metrics.nll
    assert at_it < evaluate_tokens(model, guide, batches, num_samples=30).metrics.nll


X, Y = torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3, dtype=torch.long)


@pytest.mark.parametrize(
    ("batches", "text"),
    [
        ([], r"tokens: expected at least one batch, got none"),
        ([(X,)], r"batches: expected pairs \(x, y\)"),
        ([5], r"batches: expected pairs .* got int of shapes \[\]\. Try: x, y = tokens"),
        ([(X, Y[:, :2])], r"batches: .* shapes \[\(2, 3\), \(2, 2\)\]"),
        ((X, Y[:1]), r"batches: .* shapes \[\(2, 3\), \(1, 3\)\]"),
        ([(X[0], Y[0])], r"batches: .* shapes \[\(3,\), \(3,\)\]"),
        ([(X, Y + VOCABULARY)], r"targets: expected tokens in 0 to 6"),
        ([(X - 1, Y)], r"tokens: expected tokens in 0 to 6"),
    ],
)
def test_bad_batches_are_refused(batches: Any, text: str) -> None:
    model = make_model()
    with pytest.raises(InputError, match=text):
        evaluate_tokens(model, NeuronGuide(model), batches)


def test_bad_numbers_are_refused_before_anything_runs() -> None:
    with pytest.raises(InputError, match=r"temperature: expected a positive number"):
        evaluate_token_draws(fixed_draws, [], temperature=math.nan)
    with pytest.raises(InputError, match=r"num_samples: expected a positive integer"):
        evaluate_tokens(make_model(), make_model(), [], num_samples=0)
