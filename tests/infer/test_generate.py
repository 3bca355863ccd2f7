from __future__ import annotations

import math
from typing import Any

import pyro
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import VariationalGPT
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.infer import TokenDraws, TokenReading, generate, read_tokens, token_draws
from pyro_vdn.poutine import deterministic

V, BLOCK = 7, 6


@pytest.fixture
def programs() -> Any:
    pyro.set_rng_seed(1)
    model = VariationalGPT(
        V, block_size=BLOCK, num_layers=2, num_heads=2, width=8, initial_scale=1.0
    )
    with torch.no_grad():
        model.embed.weight.mul_(40)  # sharp predictions that differ between contexts
    return model, NeuronGuide(model)


@pytest.fixture
def twins(programs: Any) -> Any:
    twin = deterministic(programs[0])
    return twin, NeuronGuide(twin)


def predicted(twin: Any, text: Tensor) -> Tensor:
    """Return the probabilities of the token after a text."""
    return token_draws(*twin, text[None, -BLOCK:], num_samples=1).log_probs[0, 0, -1].exp()


def test_the_most_probable_tokens_follow_one_another(twins: Any) -> None:
    text = torch.tensor([1, 5])
    greedy = generate(*twins, text, 12, top_k=1, num_samples=1)
    cold = generate(*twins, text, 12, temperature=1e-3, num_samples=1)
    for token in greedy.tokens:  # well beyond the end of a block
        assert token == predicted(twins, text).argmax()
        text = torch.cat((text, token[None]))
    assert torch.equal(greedy.tokens, cold.tokens)


@pytest.mark.parametrize(("temperature", "top_k"), [(2.0, None), (0.7, 3), (1.0, 99)])
def test_tokens_come_as_often_as_they_should(
    twins: Any, temperature: float, top_k: int | None
) -> None:
    prompt = torch.tensor([2, 0, 4])
    expected = predicted(twins, prompt) ** (1 / temperature)
    if top_k == 3:
        expected[expected.argsort()[:-3]] = 0
    expected /= expected.sum()
    choice = {"temperature": temperature, "top_k": top_k, "num_samples": 1}
    drawn = [int(generate(*twins, prompt, 1, **choice).tokens) for _ in range(120)]
    share = torch.bincount(torch.tensor(drawn), minlength=V) / 120
    assert (share - expected).abs().max() < 4 * math.sqrt(0.25 / 120)
    if top_k == 3:
        assert (share > 0).sum() <= 3


def test_a_seed_gives_the_text_again(programs: Any) -> None:
    def text(seed: int) -> TokenReading:
        pyro.set_rng_seed(seed)
        return generate(*programs, torch.tensor([1]), 20, temperature=3.0, num_samples=2)

    first, again, other = text(0), text(0), text(1)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first.tokens, other.tokens)


def test_scores_are_those_of_the_averaged_distribution(programs: Any) -> None:
    prompt = torch.tensor([3, 3, 1])
    pyro.set_rng_seed(5)
    drawn = generate(*programs, prompt, 1, num_samples=4, temperature=2.0)
    pyro.set_rng_seed(5)
    draws = token_draws(*programs, prompt[None], num_samples=4)
    p = draws.log_probs[:, 0, -1].exp()
    q = p.mean(0)
    entropy = -sum(float(v * v.log()) for v in q)
    within = -sum(float((v * v.log()).sum()) for v in p) / 4
    assert float(drawn.nll) == pytest.approx(-float(q[drawn.tokens].log()))
    assert float(drawn.entropy) == pytest.approx(entropy)
    assert float(drawn.mutual_information) == pytest.approx(entropy - within)
    assert float(drawn.mutual_information) > 1e-3
    kl = sum(float(layer[0, -1]) for layer in draws.kl.values())
    assert float(drawn.kl) == pytest.approx(kl)


def test_a_twin_has_no_information_of_its_own(twins: Any) -> None:
    reading = read_tokens(*twins, torch.arange(V), num_samples=3)
    assert torch.allclose(reading.mutual_information[1:], torch.zeros(V - 1), atol=1e-12)
    assert torch.equal(reading.kl[1:], torch.zeros(V - 1))


@pytest.mark.parametrize("length", [1, 2, BLOCK, BLOCK + 1, BLOCK + 2, 29])
def test_every_token_is_read_once_with_half_a_block_before_it(twins: Any, length: int) -> None:
    text = torch.randint(V, (length,))
    reading = read_tokens(*twins, text, num_samples=1)
    assert torch.equal(reading.tokens, text)
    assert math.isnan(reading.nll[0])
    for place in range(1, length):
        nll = [
            -float(predicted(twins, text[start:place])[text[place]].log())
            for start in range(max(0, place - BLOCK), max(0, place - BLOCK // 2) + 1)
        ]
        assert min(abs(float(reading.nll[place]) - one) for one in nll) < 1e-9


def test_what_was_read_goes_on_with_what_was_drawn(programs: Any) -> None:
    prompt = torch.tensor([0, 1])
    whole = read_tokens(*programs, prompt).followed_by(generate(*programs, prompt, 3))
    assert whole.tokens.shape == whole.kl.shape == (5,)
    assert whole.nll.isnan().tolist() == [True, False, False, False, False]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32])
def test_texts_of_any_integer_type(twins: Any, dtype: torch.dtype) -> None:
    text = torch.tensor([1, 5, 2, 0, 6, 3, 3, 1])
    torch.testing.assert_close(
        read_tokens(*twins, text.to(dtype)).nll, read_tokens(*twins, text).nll, equal_nan=True
    )
    drawn = [generate(*twins, one, 4, top_k=1).tokens for one in (text.to(dtype), text)]
    assert torch.equal(*drawn)


def test_modes_are_given_back(programs: Any) -> None:
    programs[0].train()
    generate(*programs, torch.tensor([1]), 1)
    assert programs[0].training


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"prompt": torch.empty(0, dtype=torch.long)}, r"prompt: expected at least one token"),
        ({"prompt": torch.zeros(2)}, r"integers of shape \(time,\), got torch.float32"),
        ({"prompt": torch.tensor([V])}, f"tokens in 0 to {V - 1}"),
        ({"temperature": 0.0}, r"temperature: expected a number above 0, got 0\.0"),
        ({"temperature": math.nan}, r"got nan"),
        ({"top_k": 0}, "top_k: expected a positive integer"),
        ({"num_tokens": 0}, "num_tokens: expected a positive integer"),
        ({"num_samples": 0}, "num_samples: expected a positive integer"),
    ],
)
def test_what_cannot_be_generated_is_refused(
    programs: Any, changes: dict[str, Any], text: str
) -> None:
    arguments = {"prompt": torch.tensor([1]), "num_tokens": 1, **changes}
    with pytest.raises(InputError, match=text):
        generate(*programs, arguments.pop("prompt"), arguments.pop("num_tokens"), **arguments)


def test_a_model_that_does_not_say_how_much_it_reads_is_refused(programs: Any) -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = programs[0]

        def forward(self, tokens: Tensor) -> Tensor:
            result: Tensor = self.inner(tokens)
            return result

    model = Hidden()
    with pytest.raises(InputError, match="how many tokens the model reads at most"):
        generate(model, NeuronGuide(model), torch.tensor([1]), 1)
    drawn = generate(model, NeuronGuide(model), torch.arange(6), 2, block_size=4)
    assert len(drawn.tokens) == 2


def test_draws_without_neurons_have_no_kl() -> None:
    from pyro_vdn.infer.generate import _scores

    draws = TokenDraws(torch.zeros(2, 3, V).log_softmax(-1), {}, {})
    assert torch.equal(_scores(draws, torch.zeros(3, dtype=torch.long))[3], torch.zeros(3))
