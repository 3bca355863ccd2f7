from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import Regression
from torch import Tensor, nn

from pyro_vdn.control import Thermostat
from pyro_vdn.control.controller import Seen
from pyro_vdn.diagnostics import TERMS, TrainingHistory
from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO
from pyro_vdn.train import ControlCallback, HistoryCallback, fit, load_checkpoint
from pyro_vdn.train.step_callback import StepCallback


class Interrupt(lightning.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


class Spy(StepCallback):
    """Takes down every step's KLs, and its loss per row as it was optimised."""

    def __init__(self) -> None:
        self.kl: list[Tensor] = []
        self.loss: list[float] = []

    def observe(self, seen: Seen) -> None:
        self.kl.append(seen["neurons"].kl.mean.clone())

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        self.loss.append(float(loss.detach()))


class Noise(nn.Module):
    """What disturbs training where it is not looked at carefully: noise and running statistics."""

    out_features = 3
    in_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.2))

    def forward(self, x: Tensor) -> Tensor:
        noisy: Tensor = self.layers(x)
        return noisy


def as_lists(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.tolist()
    if isinstance(state, dict):
        return {name: as_lists(value) for name, value in state.items()}
    return state


@pytest.mark.parametrize("every", [1, 5])
def test_notes_hold_what_steps_did(every: int, data: Any, options: Any, make_model: Any) -> None:
    history, spy = TrainingHistory(), Spy()
    callbacks = [HistoryCallback(history, every=every), spy]
    fit(make_model(), *data, options=options(), callbacks=callbacks)
    steps = list(range(every, 21, every))
    assert history.steps("neurons").tolist() == steps
    expected = torch.stack([spy.kl[step - 1] for step in steps]).numpy()
    np.testing.assert_array_equal(history.of("neurons", "kl"), expected)


def test_terms_are_those_of_the_loss_before_the_step(
    data: Any, options: Any, make_model: Any
) -> None:
    # The closed form has no noise, so that the terms of the batch sum to the loss of its step.
    history, spy = TrainingHistory(), Spy()
    callbacks = [HistoryCallback(history, every=4), spy]
    fit(make_model(), *data, options=options(), callbacks=callbacks)
    terms = history.terms()
    assert set(terms) == {"step", *TERMS}
    loss = terms["kl"] + terms["penalty"] - sum(terms[n] for n in ("log_likelihood", "local"))
    expected = [spy.loss[step - 1] * 16 for step in (4, 8, 12, 16, 20)]
    np.testing.assert_allclose(loss - terms["others"], expected, rtol=1e-12)


def test_terms_of_fixed_rows(data: Any, options: Any, make_model: Any) -> None:
    rows = data[1][0][:7], data[1][1][:7]
    history = TrainingHistory()
    model = make_model()
    with torch.no_grad():
        before = LocalELBO().terms(model, NeuronGuide(model), *rows)
    noting = HistoryCallback(history, every=1, rows=rows, loss=LocalELBO())
    fit(model, *data, options=options(max_steps=1), callbacks=[noting])
    assert history.terms()["kl"] == pytest.approx([before.kl["neurons"].sum().item()])
    assert len(history.terms()["elbo"]) == 1


def test_fixed_rows_change_by_training_alone(data: Any, options: Any, make_model: Any) -> None:
    history = TrainingHistory()
    noting = HistoryCallback(history, every=1, rows=data[1])
    settings = options(learning_rate=1e-12, weight_decay=0.0)
    fit(make_model(), *data, options=settings, loss=LocalELBO(), callbacks=[noting])
    assert np.ptp(history.terms()["log_likelihood"]) == pytest.approx(0, abs=1e-6)
    assert history.terms()["log_likelihood"][0] < -1.0


def test_a_stock_loss_has_no_terms_but_may_be_given_some(
    data: Any, options: Any, make_model: Any
) -> None:
    without, given = TrainingHistory(), TrainingHistory()
    callbacks = [
        HistoryCallback(without, every=5),
        HistoryCallback(given, every=5, loss=LocalELBO(), name="given"),
    ]
    fit(make_model(), *data, options=options(), loss=Trace_ELBO(), callbacks=callbacks)
    assert without.terms() == {}
    assert given.terms()["step"].tolist() == [5, 10, 15, 20]
    np.testing.assert_array_equal(without.of("neurons"), given.of("neurons"))


def test_looking_does_not_move_training(data: Any, options: Any, make_model: Any) -> None:
    models = [make_model(), make_model()]
    for model in models:
        model.encoder = Noise()
    fit(models[0], *data, options=options(), loss=LocalELBO())
    noting = HistoryCallback(TrainingHistory(), every=1)
    fit(models[1], *data, options=options(), loss=LocalELBO(), callbacks=[noting])
    states = [model.state_dict() for model in models]
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())
    assert states[0]["encoder.layers.0.num_batches_tracked"] > 0
    assert all(part.training for part in models[1].modules())


@pytest.mark.parametrize("stop", [10, 13])
def test_a_resumed_run_continues_its_history(
    stop: int, tmp_path: Path, data: Any, options: Any, make_model: Any
) -> None:
    def run(**kwargs: Any) -> TrainingHistory:
        history = TrainingHistory()
        stops = kwargs.pop("stops", ())
        model = make_model()
        thermostat = Thermostat(model, low=2.0, high=5.0, every=2)
        noting = HistoryCallback(history, every=3, rows=data[1])
        callbacks = [ControlCallback(thermostat), noting, *stops]
        controlled = thermostat.wrap(model)
        fit(controlled, *data, options=options(), loss=LocalELBO(), callbacks=callbacks, **kwargs)
        return history

    straight = run()
    run(folder=tmp_path, stops=[Interrupt(stop)])
    resumed = run(folder=tmp_path, resume=tmp_path)
    assert as_lists(resumed.state_dict()) == as_lists(straight.state_dict())
    assert resumed.steps("neurons").tolist() == [3, 6, 9, 12, 15, 18]
    kept = load_checkpoint(tmp_path / "last.safetensors")["callbacks"]
    assert as_lists(kept["HistoryCallback(history)"]) == as_lists(straight.state_dict())


def test_a_history_of_another_run_is_refused(data: Any, options: Any, make_model: Any) -> None:
    history = TrainingHistory()
    fit(make_model(), *data, options=options(), callbacks=[HistoryCallback(history, every=5)])
    text = (
        "history: expected one without steps after 0, where training starts, got one with step "
        r"20\. Try: TrainingHistory\(\) for a new run"
    )
    with pytest.raises(InputError, match=text):
        fit(make_model(), *data, options=options(), callbacks=[HistoryCallback(history)])


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"every": 0}, "every: expected"),
        ({"rows": (torch.zeros(4, 3), torch.zeros(5, 1))}, "one number of rows"),
        ({"rows": torch.zeros(4, 3)}, r"rows: expected a pair \(x, y\)"),
    ],
)
def test_bad_settings_are_refused(settings: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        HistoryCallback(TrainingHistory(), **settings)


def test_mixed_precision_takes_terms_in_its_own_arithmetic(data: Any, options: Any) -> None:
    torch.set_default_dtype(torch.float32)
    pairs = [tuple(value.float() for value in pair) for pair in data]
    kinds = []

    class See(LocalELBO):
        def log_likelihood(self, run: Any) -> dict[str, Tensor]:
            kinds.append(torch.is_autocast_enabled("cpu"))
            return super().log_likelihood(run)

    noting = HistoryCallback(TrainingHistory(), every=5, rows=pairs[1], loss=See())
    settings = options(precision="bf16-mixed")
    fit(Regression(3, num_units=5), *pairs, options=settings, callbacks=[noting])
    assert kinds == [True] * 4
