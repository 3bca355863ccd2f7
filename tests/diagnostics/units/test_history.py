from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import DeepRegression, Regression

from pyro_vdn.diagnostics import TERMS, TrainingHistory
from pyro_vdn.errors import InputError
from pyro_vdn.infer import SVI, LocalELBO
from pyro_vdn.poutine import LayerRecord, kl_weight, record
from pyro_vdn.train.checkpoint import load_checkpoint, save_checkpoint


def a_record(loc: Any, scale: Any) -> LayerRecord:
    """Return the record of rows with the given locations, `(rows, units)`."""
    loc = torch.as_tensor(loc, dtype=torch.float64)
    scale = torch.as_tensor(scale, dtype=torch.float64).expand(loc.shape)
    layer = LayerRecord()
    layer.update(loc, scale, 0.5 * (loc**2 + scale**2 - 1) - scale.log(), torch.ones_like(loc))
    return layer


def filled(steps: Any, mu2: Any) -> TrainingHistory:
    """Return a history in which energy took the given values, `(times, units)`."""
    mu2 = torch.as_tensor(mu2, dtype=torch.float64)
    layer = {"step": list(steps), "kl": mu2, "mu2": mu2, "scale": mu2}
    history = TrainingHistory()
    history.load_state_dict({"layers": {"a": layer}, "terms": {}})
    return history


def test_a_note_keeps_means_over_rows() -> None:
    history = TrainingHistory()
    history.note(5, {"a": a_record([[1.0, 0.0], [3.0, 0.5]], [[0.5, 1.0], [1.0, 2.0]])})
    history.note(9, {"a": a_record([[0.0, 0.0]], [[1.0, 1.0]])})
    assert history.steps("a").tolist() == [5, 9]
    np.testing.assert_allclose(history.of("a", "mu2"), [[5.0, 0.125], [0.0, 0.0]])
    np.testing.assert_allclose(history.of("a", "scale"), [[0.625**0.5, 2.5**0.5], [1.0, 1.0]])
    np.testing.assert_allclose(history.of("a", "kl")[1], [0.0, 0.0])
    assert history.layers == ("a",)


def test_terms_add_up_to_the_loss(double: None) -> None:
    model = kl_weight(DeepRegression(3, num_units=(4, 2)), 0.3)
    data, history = (torch.randn(8, 3), torch.randn(8, 1)), TrainingHistory()
    with record() as seen:
        terms = LocalELBO().terms(model, NeuronGuide(model), *data)
    history.note(1, seen, terms)
    kept = history.terms()
    assert set(kept) == {"step", *TERMS}
    gain = kept["log_likelihood"] + kept["local"] + kept["others"]
    assert kept["kl"] + kept["penalty"] - gain == pytest.approx(float(terms.loss.detach()))
    assert kept["elbo"] == pytest.approx(float(terms.elbo.detach()))
    assert history.layers == ("layers.0", "layers.1")


def test_a_handwritten_loop_and_its_continuation_agree(tmp_path: Path, double: None) -> None:
    def train(history: TrainingHistory, stop: int, steps: range) -> None:
        pyro.set_rng_seed(3)
        pyro.clear_param_store()
        model = Regression(3, num_units=4)
        x, y = torch.randn(20, 3), torch.randn(20, 1)
        svi = SVI(model, NeuronGuide(model), pyro.optim.Adam({"lr": 1e-2}), LocalELBO())
        for step in range(1, stop):
            with record() as seen:
                svi.step(x, y)
            if step in steps:
                history.note(step, seen, LocalELBO().terms(model, NeuronGuide(model), x, y))

    whole, first, second = TrainingHistory(), TrainingHistory(), TrainingHistory()
    train(whole, 31, range(5, 31, 5))
    train(first, 16, range(5, 16, 5))
    save_checkpoint(tmp_path / "a.safetensors", first.state_dict())
    second.load_state_dict(load_checkpoint(tmp_path / "a.safetensors"))
    for quantity in ("kl", "mu2", "scale"):
        np.testing.assert_array_equal(
            second.of("neurons", quantity), whole.of("neurons", quantity)[:3]
        )
    for name, values in second.terms().items():
        np.testing.assert_array_equal(values, whole.terms()[name][:3])
    second.note(20, {"neurons": a_record([[0.0] * 4], 1.0)})
    assert second.steps("neurons").tolist() == [5, 10, 15, 20]


def test_loading_takes_a_copy() -> None:
    history = filled([0, 10], [[1.0], [2.0]])
    state, other = history.state_dict(), TrainingHistory()
    other.load_state_dict(state)
    other.note(20, {"a": a_record([[1.0]], 1.0)})
    assert history.steps("a").tolist() == [0, 10]
    assert state["layers"]["a"]["step"] == [0, 10]


def a_state(**changes: Any) -> dict[str, Any]:
    state = filled([0, 10], np.ones((2, 2))).state_dict()
    state["layers"]["a"] |= changes
    return state


FOREIGN: dict[str, tuple[Any, str]] = {
    "a number": (7, "int"),
    "nothing": ({}, r"entries \[\]"),
    "parameters": ({"weight": torch.ones(2)}, r"entries \['weight'\]"),
    "no mappings": ({"layers": [1], "terms": []}, "layers or terms that lack"),
    "a layer of another kind": ({"layers": {"a": 1}, "terms": {}}, "layers or terms that lack"),
    "a missing quantity": ({"layers": {"a": {"step": [1]}}, "terms": {}}, "layers or terms"),
    "a missing note": (a_state(kl=torch.ones(1, 2)), "layers or terms that lack"),
    "a number for notes": (a_state(kl=3.0), "layers or terms that lack"),
    "terms without steps": ({"layers": {}, "terms": {"kl": [0.1]}}, "layers or terms that lack"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_states_are_refused_and_change_nothing(name: str) -> None:
    state, got = FOREIGN[name]
    history = filled([0, 10], np.ones((2, 2)))
    with pytest.raises(InputError, match=rf"state_dict: expected what TrainingHistory.* got {got}"):
        history.load_state_dict(state)
    assert history.steps("a").tolist() == [0, 10]


def test_a_refused_note_leaves_nothing_behind() -> None:
    history = filled([0, 10], np.ones((2, 2)))
    good, bad = a_record([[1.0] * 2], 1.0), a_record([[1.0] * 3], 1.0)
    with pytest.raises(InputError, match="layer 'a': expected 2 units"):
        history.note(20, {"b": good, "a": bad})
    with pytest.raises(AttributeError):
        history.note(20, {"a": good}, "no terms")  # type: ignore[arg-type]
    assert history.layers == ("a",)
    assert history.terms() == {}
    history.note(20, {"a": good, "b": good})
    assert history.steps("a").tolist() == [0, 10, 20]
    assert len(history.of("a", "scale")) == 3


def test_an_empty_state_is_one_to_continue_from() -> None:
    history = filled([0, 10], np.ones((2, 2)))
    history.load_state_dict(TrainingHistory().state_dict())
    assert history.layers == ()


def test_drift_of_exact_exponentials() -> None:
    steps = np.arange(0, 1000, 50)
    rates = np.array([0.7, -2.0, 0.0])
    drift = filled(steps, np.exp(np.outer(steps / 1000, rates))).drift("a")
    np.testing.assert_allclose(drift.slope, rates, atol=1e-12)
    np.testing.assert_allclose(drift.standard_error, 0.0, atol=1e-12)


def test_drift_looks_at_the_last_half_alone() -> None:
    steps = np.arange(0, 2001, 100)
    early = np.where(steps < 1000, 100.0, 1.0)
    drift = filled(steps, (early * np.exp(3 * steps / 1000))[:, None]).drift("a")
    np.testing.assert_allclose(drift.slope, [3.0])


@pytest.mark.parametrize("quantity", ["kl", "mu2", "scale"])
def test_drift_is_the_least_squares_line(quantity: Any) -> None:
    steps = np.arange(100, 400, 10)
    values = np.exp(np.random.default_rng(0).normal(size=(30, 2)))
    drift = filled(steps, values).drift("a", quantity)
    time = steps[15:] / 1000
    for unit in range(2):
        fit, covariance = np.polyfit(time, np.log(values[15:, unit]), 1, cov=True)
        assert drift.slope[unit] == pytest.approx(fit[0])
        assert drift.standard_error[unit] == pytest.approx(covariance[0, 0] ** 0.5)


def test_a_dead_unit_does_not_drift() -> None:
    drift = filled([0, 10, 20, 30, 40], np.zeros((5, 1))).drift("a")
    assert (drift.slope[0], drift.standard_error[0]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda h: h.note(10, {}), "step: expected a step after 10, got 10"),
        (lambda h: h.note(20, {"a": a_record([[1.0] * 3], 1.0)}), "layer 'a': expected 2 units"),
        (lambda h: h.of("b"), r"path: .* of \['a'\], got 'b'"),
        (lambda h: h.of("a", "energy"), "quantity: .* got 'energy'"),
        (lambda h: h.steps("b"), r"path: .* of \['a'\], got 'b'"),
        (lambda h: h.drift("a"), "drift: expected at least three notes in the last half .* got 1"),
    ],
)
def test_bad_use_is_refused(call: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        call(filled([0, 10], np.ones((2, 2))))


def test_an_empty_history_knows_no_layer() -> None:
    with pytest.raises(InputError, match="path: expected paths of layers, of"):
        TrainingHistory().of("a")
