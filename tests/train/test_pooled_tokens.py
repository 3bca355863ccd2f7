from __future__ import annotations

from typing import Any

import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import VariationalGPT
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.infer import TokenDraws, token_draws
from pyro_vdn.poutine import deterministic
from pyro_vdn.train import evaluate_pooled_tokens, evaluate_token_draws, evaluate_tokens

VOCABULARY, TIME = 7, 6


def fitted(*, points: bool) -> tuple[Any, Any]:
    model = VariationalGPT(VOCABULARY, block_size=TIME, num_layers=1, num_heads=2, width=8)
    nn.init.normal_(model.blocks[0].project.weight)
    program = deterministic(model) if points else model
    return program, NeuronGuide(program)


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    tokens = torch.randint(VOCABULARY, (5, TIME + 1))
    return tokens[:, :-1], tokens[:, 1:]


def test_probabilities_of_twins_are_averaged(pair: Any) -> None:
    x, y = pair
    members = [fitted(points=True) for _ in range(3)]
    log_probs = torch.cat([token_draws(*one, x, num_samples=1).log_probs for one in members])
    mixture = log_probs.exp().mean(0).gather(-1, y[..., None]).squeeze(-1)
    found = evaluate_pooled_tokens(members, [(x[:2], y[:2]), (x[2:], y[2:])], num_samples=16)
    torch.testing.assert_close(found.table["nll"], -mixture.log().reshape(-1).float())
    all_at_once = evaluate_token_draws(lambda _: TokenDraws(log_probs, {}, {}), pair)
    assert found.metrics.mutual_information > 1e-4
    assert found.metrics.mutual_information == pytest.approx(
        all_at_once.metrics.mutual_information, rel=1e-5
    )
    assert found.layers == {}


def test_members_count_alike_however_many_draws_they_need(pair: Any) -> None:
    x, y = pair
    twin, random = fitted(points=True), fitted(points=False)
    found = evaluate_pooled_tokens([twin, random], pair, num_samples=1000)
    parts = [
        token_draws(*one, x, num_samples=500).log_probs.logsumexp(0).softmax(-1)
        for one in (twin, random)
    ]
    mixture = torch.stack(parts).mean(0).gather(-1, y[..., None]).squeeze(-1)
    torch.testing.assert_close(
        found.table["nll"], -mixture.log().reshape(-1).float(), atol=0.02, rtol=0.0
    )


def test_one_member_is_scored_as_one_model(pair: Any) -> None:
    one = fitted(points=False)
    alone = evaluate_tokens(*one, pair, num_samples=4, seed=3)
    found = evaluate_pooled_tokens([one], pair, num_samples=4, seed=3)
    assert found.table["nll"].equal(alone.table["nll"])
    state = torch.get_rng_state()
    evaluate_pooled_tokens([one], pair, num_samples=4)
    assert torch.get_rng_state().equal(state)


def test_an_ensemble_of_none_is_refused(pair: Any) -> None:
    with pytest.raises(InputError, match="fitted: expected at least one model, got none"):
        evaluate_pooled_tokens([], pair)
