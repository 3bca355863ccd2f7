"""`fit` on tokens: views, validation, decay, annealed effects."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as lightning
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import VariationalGPT
from torch import Tensor, nn

from pyro_vdn.control import linear_warmup
from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO, PACmELBO, log_density
from pyro_vdn.nn import VariationalNeurons
from pyro_vdn.poutine import deterministic, dropout, kl_weight, scale_noise
from pyro_vdn.testing import same_state
from pyro_vdn.train import Anneal, FitOptions, default_loss, fit
from pyro_vdn.train.held_out import Outcome, find_outcome, held_out_density
from pyro_vdn.train.task import TrainingTask

Pair = tuple[Tensor, Tensor]
BLOCK, VOCABULARY = 8, 5


def windows(tokens: Tensor) -> Pair:
    """Return all overlapping windows and the tokens after theirs, as views."""
    return tokens[:-1].unfold(0, BLOCK, 1), tokens[1:].unfold(0, BLOCK, 1)


@pytest.fixture
def counting() -> tuple[Pair, Pair]:
    """A text that counts 0 1 2 3 4 0 1 ... and can be learned in a few steps."""
    tokens = torch.arange(400) % VOCABULARY
    return windows(tokens[:300]), windows(tokens[300:])


@pytest.fixture
def make() -> Callable[..., Any]:
    def model(**changes: Any) -> VariationalGPT:
        pyro.set_rng_seed(3)
        small = {"block_size": BLOCK, "num_layers": 2, "num_heads": 2, "width": 8}
        return VariationalGPT(VOCABULARY, **{**small, **changes})

    return model


def settings(**changes: Any) -> FitOptions:
    small = {"max_steps": 40, "batch_size": 8, "evaluate_every": 20, "warmup_steps": 2}
    rest = {"validation_samples": 3, "learning_rate": 1e-2, "accelerator": "cpu"}
    return FitOptions(**{**small, **rest, **changes})


def test_a_text_is_learned_from_views(counting: Any, make: Any) -> None:
    train, validation = counting
    storage = train[0].untyped_storage().data_ptr()
    result = fit(kl_weight(make(), 1e-3), train, validation, options=settings(), loss=PACmELBO(2))
    assert train[0].untyped_storage().data_ptr() == storage
    assert train[0].untyped_storage().nbytes() == 400 * 8  # the text's, once
    first, last = (scores["validation_nll"] for scores in result.history)
    assert last < first < 1.05 * math.log(VOCABULARY)
    assert result.history[-1]["validation_elbo_per_row"] < -last * BLOCK


def test_the_validation_score_is_that_of_the_averaged_probability(counting: Any, make: Any) -> None:
    model, (_, (x, y)) = make(initial_scale=1.0), counting
    guide = NeuronGuide(model)
    outcome = find_outcome(model, (x[:2], y[:2]))
    assert outcome == Outcome("next_token", True)
    pyro.set_rng_seed(7)
    per_token, joint = held_out_density(model, guide, x[:4], y[:4], outcome, num_samples=6)
    pyro.set_rng_seed(7)
    general, general_joint = held_out_density(
        model, guide, x[:4], y[:4].unsqueeze(-1), Outcome("next_token", False), num_samples=6
    )
    assert general is not None
    assert per_token is not None
    assert per_token.shape == y[:4].shape
    # Noise is drawn in another order, so the two agree as two sets of draws do.
    assert torch.allclose(per_token, general.squeeze(-1), atol=0.5)
    assert not torch.allclose(per_token.sum(-1), joint)
    assert torch.allclose(joint, general_joint, atol=1.5)
    twin = deterministic(make())
    points = held_out_density(twin, NeuronGuide(twin), x[:4], y[:4], outcome, num_samples=2)
    trace = pyro.poutine.trace(twin).get_trace(x[:4], y[:4])
    trace.compute_log_prob()
    expected = trace.nodes["next_token"]["log_prob"].squeeze(-1)
    assert points[0] is not None
    assert torch.allclose(points[0], expected)
    assert torch.allclose(points[1], expected.sum(-1))


def test_long_validation_texts_are_scored_in_parts(
    counting: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = deterministic(make())
    guide, (_, (x, y)) = NeuronGuide(twin), counting
    outcome = Outcome("next_token", True)
    whole, joint = held_out_density(twin, guide, x, y, outcome, num_samples=1)
    monkeypatch.setattr("pyro_vdn.train.held_out._TOKENS_AT_ONCE", 3 * BLOCK + 1)
    parts, joint_of_parts = held_out_density(twin, guide, x, y, outcome, num_samples=1)
    assert whole is not None
    assert parts is not None
    assert torch.allclose(parts, whole)
    assert torch.allclose(joint_of_parts, joint)


def test_the_only_observed_site_is_the_outcome(counting: Any) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neurons = VariationalNeurons(1, 2)

        def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            with pyro.plate("data", len(x), dim=-2):
                pyro.deterministic("size", x)
                loc = self.neurons(x).sum(-1, keepdim=True)
                drawn: Tensor = pyro.sample("height", dist.Normal(loc, 1.0), obs=y)
            return drawn

    x, y = torch.zeros(20, 1), torch.ones(20, 1)
    assert find_outcome(Named(), (x, y)) == Outcome("height", False)
    options = settings(max_steps=5, evaluate_every=5)
    result = fit(Named(), (x, y), (x, y), options=options, loss=LocalELBO())
    per_output, _ = log_density(result.model, result.guide, x, y, site="height", num_samples=3)
    assert result.validation_nll == pytest.approx(-float(per_output.mean()), rel=0.2)


def test_only_matrices_decay_where_that_is_asked(counting: Any, make: Any) -> None:
    model = make()
    few = (counting[0][0][:2], counting[0][1][:2])
    arguments = model, NeuronGuide(model), default_loss(model, few)

    def decays(which: Any) -> dict[int, float]:
        task = TrainingTask(*arguments, settings(weight_decay=0.1, decay=which), few)
        groups = task.configure_optimizers()["optimizer"].param_groups
        return {id(p): group["weight_decay"] for group in groups for p in group["params"]}

    assert set(decays("all").values()) == {0.1}
    some = decays("matrices")
    assert some.keys() == decays("all").keys()
    assert all(some[id(p)] == (0.1 if p.dim() > 1 else 0.0) for p in model.parameters())
    assert 0.0 in some.values()
    with pytest.raises(InputError, match="decay: expected 'all' or 'matrices', got 'none'"):
        settings(decay="none")
    with pytest.raises(InputError, match="validation_samples: expected at least 1, got 0"):
        settings(validation_samples=0)


class Note(lightning.Callback):
    """Notes an effect's number in every step and at every evaluation."""

    def __init__(self, effect: Any, name: str) -> None:
        self.effect, self.name = effect, name
        self.steps: list[float] = []
        self.evaluations: list[float] = []

    def on_before_backward(self, *arguments: Any) -> None:
        self.steps.append(getattr(self.effect, self.name))

    def on_validation_start(self, *arguments: Any) -> None:
        self.evaluations.append(getattr(self.effect, self.name))


@pytest.mark.parametrize(
    ("effect", "name", "end"),
    [(scale_noise(factor=0.0), "amount", 1000.0), (dropout(p=0.0), "p", 0.99)],
)
def test_an_effect_is_annealed(
    effect: Any, name: str, end: float, counting: Any, make: Any
) -> None:
    note, rise = Note(effect, name), partial(linear_warmup, steps=8, start=0.1, end=end)
    callbacks = [Anneal(effect, name, rise), note]
    options = settings(max_steps=8, evaluate_every=2, learning_rate=0.1)
    result = fit(effect(make()), *counting, options=options, callbacks=callbacks)
    assert note.steps == [rise(step) for step in range(8)]
    assert note.evaluations == [rise(step) for step in (1, 3, 5, 7)]
    assert result.best_step < 8  # too much noise in the end: the effect goes back too
    assert getattr(effect, name) == rise(result.best_step - 1)


def test_an_annealed_run_is_resumed_bit_for_bit(tmp_path: Any, counting: Any, make: Any) -> None:
    class Stop(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
            if trainer.global_step == 6:
                raise KeyboardInterrupt

    def run(folder: str, *more: Any, **rest: Any) -> Any:
        effect = scale_noise(factor=0.1)
        rise = Anneal(effect, "amount", partial(linear_warmup, steps=8, start=0.1))
        options = settings(max_steps=8, evaluate_every=4)
        place = {"folder": tmp_path / folder, **rest}
        return fit(effect(make()), *counting, options=options, callbacks=[rise, *more], **place)

    straight, unwrap = run("straight"), pyro.poutine.unwrap
    assert run("halves", Stop()).interrupted
    resumed = run("halves", resume=tmp_path / "halves")
    states = [unwrap(result.model).state_dict() for result in (straight, resumed)]
    assert same_state(*states)
    assert straight.history == resumed.history


def test_what_cannot_be_annealed_is_refused(counting: Any, make: Any) -> None:
    with pytest.raises(InputError, match=r"an effect with a number 'p', got a NoiseMessenger"):
        Anneal(scale_noise(factor=0.0), "p", lambda step: 0.1)
    with pytest.raises(InputError, match=r"values of 'p' in its range, got 1\.0 at step 0"):
        Anneal(dropout(p=0.0), "p", lambda step: 1.0).set(0)
    falling = Anneal(scale_noise(factor=0.0), "amount", lambda step: 0.5 - step)
    with pytest.raises(InputError, match=r"got -0\.5 at step 1"):
        fit(falling.effect(make()), *counting, options=settings(), callbacks=[falling])
