from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.poutine.runtime import _PYRO_STACK
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import Regression
from torch import Tensor

from pyro_vdn.control import (
    BandCalibration,
    Controller,
    EnergyBand,
    FreeBits,
    Homeostat,
    KLSchedule,
    ScaleGuard,
    Thermostat,
    compose,
    cyclical_warmup,
    homeostatic,
    projection_off,
    projection_on,
    watch,
)
from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO
from pyro_vdn.nn import VariationalNeurons
from pyro_vdn.testing import same_state
from pyro_vdn.train import ControlCallback, FitOptions, FitResult, fit, load_checkpoint
from pyro_vdn.train.batches import StepBatches

Make = Callable[[Any], Controller]


def thermostat(model: Any) -> Thermostat:
    return Thermostat(model, low=2.0, high=5.0, every=2, warmup=1)


def everything(model: Any) -> Controller:
    band = EnergyBand(model, 0.1, ramp=7, every=3)
    return compose(
        KLSchedule(model, partial(cyclical_warmup, period=12)),
        thermostat(model),
        band,
        BandCalibration(model, band, every=4),
        Homeostat(model, band, compensate={"neurons": model.readout}, every=3, warmup=2),
        ScaleGuard(model, floor=0.31, every=5),
        FreeBits(model, 0.1),
    )


def controlled_fit(
    model: Regression, controller: Controller, *args: Any, callbacks: Any = (), **kwargs: Any
) -> FitResult:
    own = ControlCallback(controller)
    return fit(controller.wrap(model), *args, callbacks=[own, *callbacks], **kwargs)


class RaiseAt(lightning.Callback):
    def __init__(self, step: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.step = step
        self.error = error

    def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
        if trainer.global_step == self.step:
            raise self.error


class RaisingLoss(LocalELBO):
    """Raises inside the model of a training step."""

    def __init__(self, step: int, error: type[BaseException]) -> None:
        super().__init__()
        self.left = step
        self.error = error

    def differentiable_loss(self, *args: Any, **kwargs: Any) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().differentiable_loss(*args, **kwargs)


def train_by_hand(
    model: Regression, controller: Controller, train: Any, options: FitOptions
) -> None:
    """Train as `fit` does, in a loop of its own."""
    controlled = controller.wrap(model)
    guide, loss = NeuronGuide(controlled), LocalELBO()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: options.rate(step) / options.learning_rate
    )
    pyro.set_rng_seed(options.seed)
    batches: Iterator[Any] = iter(
        StepBatches(
            train, options.batch_size, seed=options.seed, steps=lambda: range(options.max_steps)
        )
    )
    for x, y in batches:
        with watch(controller):
            optimizer.zero_grad()
            (loss.differentiable_loss(controlled, guide, x, y) / y.numel()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip)
            optimizer.step()
            schedule.step()


@pytest.mark.parametrize("make", [thermostat, everything])
def test_fit_equals_a_hand_written_loop_bit_for_bit(
    make: Make, data: Any, options: Any, make_model: Any
) -> None:
    settings = options(evaluate_every=20)
    by_hand, in_fit = make_model(), make_model()
    hand, fitted = make(by_hand), make(in_fit)
    train_by_hand(by_hand, hand, data[0], settings)
    controlled_fit(in_fit, fitted, *data, options=settings, loss=LocalELBO())
    assert same_state(by_hand.state_dict(), in_fit.state_dict())
    assert same_state(hand.state_dict(), fitted.state_dict())


def test_the_controller_changes_what_is_learnt(data: Any, options: Any, make_model: Any) -> None:
    free, held = make_model(), make_model()
    settings = options(evaluate_every=20)
    fit(free, *data, options=settings)
    controller = thermostat(held)
    controlled_fit(held, controller, *data, options=settings)
    assert controller.step == 20
    assert bool((controller.weights["neurons"] < 1e-2).all())  # it fell: KLs lie below 2 nats
    assert not same_state(free.state_dict(), held.state_dict())


@pytest.mark.parametrize("make", [thermostat, everything])
@pytest.mark.parametrize("stop", [10, 12])
def test_a_resumed_run_continues_bit_for_bit(
    make: Make, stop: int, tmp_path: Path, data: Any, options: Any, make_model: Any
) -> None:
    places = tmp_path / "straight", tmp_path / "halves"
    runs = [{}], [{"callbacks": [RaiseAt(stop)]}, {"resume": places[1]}]
    for place, calls in zip(places, runs, strict=True):
        for call in calls:
            model = make_model()
            controller = make(model)
            result = controlled_fit(
                model, controller, *data, options=options(), folder=place, loss=LocalELBO(), **call
            )
        assert not result.interrupted
    for name in ("last.safetensors", "best.safetensors"):
        straight, halves = (load_checkpoint(place / name) for place in places)
        for part in ("state_dict", "optimizer_states", "callbacks", "random_state"):
            assert same_state(straight[part], halves[part]), part
    (kept,) = [key for key in straight["callbacks"] if key.startswith("ControlCallback")]
    assert same_state(controller.state_dict(), straight["callbacks"][kept])  # the best one's


def test_the_controller_ends_with_the_state_of_the_best_evaluation(
    tmp_path: Path, data: Any, options: Any, make_model: Any
) -> None:
    (x, _), validation = data
    few = x[:6], torch.randn(6, 1)  # noise to overfit
    model = make_model()
    controller = thermostat(model)
    weights = controller.weights["neurons"]
    settings = options(max_steps=100, learning_rate=5e-2, evaluate_every=10)
    result = controlled_fit(model, controller, few, validation, options=settings, folder=tmp_path)
    assert result.best_step < result.steps
    assert controller.step == result.best_step
    best, last = (
        load_checkpoint(tmp_path / f"{name}.safetensors")["callbacks"] for name in ("best", "last")
    )
    key = ControlCallback(controller).state_key
    assert torch.equal(weights, best[key]["memory"]["weight"]["neurons"])
    assert not torch.equal(weights, last[key]["memory"]["weight"]["neurons"])
    assert controller.weights["neurons"] is weights


def test_an_interrupted_run_ends_with_the_best_state_too(
    data: Any, options: Any, make_model: Any
) -> None:
    model = make_model()
    controller = thermostat(model)
    result = controlled_fit(model, controller, *data, options=options(), callbacks=[RaiseAt(12)])
    assert result.interrupted
    assert controller.step == result.best_step == 10


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize("inside", [False, True])
def test_a_step_that_fails_leaves_nothing_on_the_effect_stack(
    inside: bool, error: type[BaseException], data: Any, options: Any, make_model: Any
) -> None:
    model = make_model()
    controller = compose(thermostat(model), ScaleGuard(model, every=1))
    # One step more, since `fit` runs the loss once before training.
    extra: dict[str, Any] = {"callbacks": [RaiseAt(4, error)]}
    if inside:
        extra = {"loss": RaisingLoss(4, error)}
    if error is KeyboardInterrupt:
        assert controlled_fit(model, controller, *data, options=options(), **extra).interrupted
    else:
        with pytest.raises(error):
            controlled_fit(model, controller, *data, options=options(), **extra)
    assert not _PYRO_STACK
    assert controller.controllers[0].step == (3 if inside else 4)


def test_an_interruption_before_the_controllers_turn_leaves_nothing_behind(
    data: Any, options: Any, make_model: Any
) -> None:
    model = make_model()
    controller = ScaleGuard(model, every=1)
    callbacks = [RaiseAt(4), ControlCallback(controller)]
    assert fit(model, *data, options=options(), callbacks=callbacks).interrupted
    assert not _PYRO_STACK
    assert controller.step == 3


@pytest.mark.parametrize(
    "make",
    [
        thermostat,
        lambda model: KLSchedule(model, lambda step: 0.5),
        lambda model: EnergyBand(model, 0.1),
        lambda model: FreeBits(model, 0.1),
        homeostatic,
    ],
)
def test_a_model_without_the_controllers_effects_is_refused_untrained(
    make: Make, data: Any, options: Any, make_model: Any
) -> None:
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    text = (
        r"model: expected a model wrapped in the effects of its controller, here \w+, got layer "
        r"'neurons' without them.* Try: controlled = controller\.wrap\(model\), then .* or "
        r"fit\(controlled, \.\.\., callbacks="
    )
    with pytest.raises(InputError, match=text):
        fit(model, *data, options=options(), callbacks=[ControlCallback(make(model))])
    assert same_state(model.state_dict(), before)
    assert not _PYRO_STACK


def test_every_run_is_checked_anew(data: Any, options: Any, make_model: Any) -> None:
    model = make_model()
    controller = thermostat(model)
    controlled_fit(model, controller, *data, options=options(max_steps=5))
    with pytest.raises(InputError, match="here Thermostat, got layer 'neurons' without them"):
        fit(model, *data, options=options(), callbacks=[ControlCallback(controller)])


def test_effects_of_another_instance_do_not_count(data: Any, options: Any, make_model: Any) -> None:
    model = make_model()
    callback = ControlCallback(thermostat(model))
    with pytest.raises(InputError, match="here Thermostat, got layer 'neurons' without them"):
        fit(thermostat(model).wrap(model), *data, options=options(), callbacks=[callback])


def test_a_controller_of_another_model_is_refused(data: Any, options: Any, make_model: Any) -> None:
    text = (
        "controller: expected a controller of the model that is trained, got ScaleGuard of "
        r"neurons, whose layer 'neurons' is of another model\. Try: .*ScaleGuard\(model\)"
    )
    callback = ControlCallback(ScaleGuard(make_model()))
    with pytest.raises(InputError, match=text):
        fit(make_model(), *data, options=options(), callbacks=[callback])


def test_other_controllers_are_refused_on_resuming(
    tmp_path: Path, data: Any, options: Any, make_model: Any
) -> None:
    model = make_model()
    controlled_fit(model, thermostat(model), *data, options=options(max_steps=5), folder=tmp_path)
    other = make_model()
    text = (
        "controller: expected the controllers of the run that is resumed: Thermostat of neurons, "
        "got ScaleGuard of neurons"
    )
    with pytest.raises(InputError, match=text):
        controlled_fit(
            other, ScaleGuard(other), *data, options=options(), folder=tmp_path, resume=tmp_path
        )


def test_a_run_without_controllers_may_be_given_some(
    tmp_path: Path, data: Any, options: Any, make_model: Any
) -> None:
    fit(make_model(), *data, options=options(max_steps=5), folder=tmp_path)
    model = make_model()
    controller = thermostat(model)
    result = controlled_fit(
        model, controller, *data, options=options(), folder=tmp_path, resume=tmp_path
    )
    assert result.steps == 20
    assert controller.step == 15


def test_several_callbacks_equal_one_with_all_composed(
    tmp_path: Path, data: Any, options: Any, make_model: Any
) -> None:
    one, two = make_model(), make_model()
    together = compose(thermostat(one), ScaleGuard(one, floor=0.31, every=3))
    apart = thermostat(two), ScaleGuard(two, floor=0.31, every=3)
    controlled_fit(one, together, *data, options=options())
    callbacks = [ControlCallback(part) for part in apart]
    fit(
        apart[0].wrap(two), *data, options=options(), callbacks=callbacks, folder=tmp_path / "apart"
    )
    assert same_state(one.state_dict(), two.state_dict())
    assert same_state(together.state_dict()["controllers"], [part.state_dict() for part in apart])
    kept = load_checkpoint(tmp_path / "apart" / "last.safetensors")["callbacks"]
    assert {callback.state_key for callback in callbacks} < set(kept)


def test_names_tell_two_alike_apart(data: Any, options: Any, make_model: Any) -> None:
    model = make_model()
    guards = ScaleGuard(model, every=2), ScaleGuard(model, every=3)
    with pytest.raises(RuntimeError, match=r"`callback\.state_key` must be unique"):
        fit(model, *data, options=options(), callbacks=[ControlCallback(one) for one in guards])
    named = [ControlCallback(one, name=str(number)) for number, one in enumerate(guards)]
    fit(model, *data, options=options(max_steps=4), callbacks=named)
    assert [one.step for one in guards] == [4, 4]


def test_a_stock_loss_is_controlled_alike(data: Any, options: Any, make_model: Any) -> None:
    model = make_model()
    controller = compose(thermostat(model), EnergyBand(model, 0.1))
    controlled_fit(model, controller, *data, options=options(), loss=Trace_ELBO())
    assert bool((controller.controllers[0].weights["neurons"] < 1e-2).all())


@pytest.mark.parametrize(
    "preset",
    [
        projection_off,
        lambda model: projection_on(model, 4, compensate={"neurons": model.readout}),
        lambda model: homeostatic(model, 0.3),
    ],
)
def test_presets_train(
    preset: Callable[[Any], Controller], data: Any, options: Any, make_model: Any
) -> None:
    model = make_model()
    controller = preset(model)
    settings = options(max_steps=150, learning_rate=2e-2, evaluate_every=50)
    result = controlled_fit(model, controller, *data, options=settings)
    assert result.history[-1]["validation_nll"] < result.history[0]["validation_nll"]
    assert [one.step for one in controller.controllers] == [result.best_step] * len(
        controller.controllers
    )


@pytest.mark.parametrize("stop", [[], [RaiseAt(4)]])
def test_the_controller_moves_with_the_model(
    stop: list[Any], data: Any, options: Any, make_model: Any
) -> None:
    model = make_model()
    moves = []

    class Moving(ScaleGuard):
        def to(self, device: torch.device | str) -> None:
            moves.append((str(device), self.step))
            super().to(device)

    callbacks = [ControlCallback(Moving(model)), *stop]
    fit(model, *data, options=options(max_steps=5), callbacks=callbacks)
    assert moves == [("cpu", 0), ("cpu", 4 if stop else 5)]


@pytest.mark.parametrize("local", [False, True])
def test_a_plain_function_names_its_layers(local: bool, data: Any, options: Any) -> None:
    layer = VariationalNeurons(3, 4)
    control = compose(thermostat({"": layer}), ScaleGuard({"": layer}))

    def model(x: Tensor, y: Tensor | None = None) -> Tensor:
        pyro.module("layer", layer)
        with pyro.plate("data", len(x), dim=-2):
            return pyro.sample("y", dist.Normal(layer(x).sum(-1, keepdim=True), 0.1), obs=y)

    with pyro.settings.context(module_local_params=local):
        callbacks = [ControlCallback(control)]
        fit(control.wrap(model), *data, options=options(), callbacks=callbacks)
    assert bool((control.controllers[0].weights[""] < 1e-2).all())


def test_mixed_precision(data: Any, options: Any, make_model: Any) -> None:
    torch.set_default_dtype(torch.float32)
    model = make_model()
    (x, y), (held_x, held_y) = data
    pairs = (x.float(), y.float()), (held_x.float(), held_y.float())
    controller = compose(thermostat(model), Homeostat(model, 0.1, every=3, warmup=2))
    controlled_fit(model, controller, *pairs, options=options(precision="bf16-mixed"))
    assert bool((controller.controllers[0].weights["neurons"] < 1e-2).all())
    assert all(value.dtype == torch.float32 for value in model.state_dict().values())


WITHOUT = """
import sys
sys.modules["lightning"] = sys.modules["lightning.pytorch"] = None
import pyro_vdn.train
from pyro_vdn.diagnostics import MissingPackageError
for name, error in (
    ("ControlCallback", MissingPackageError),
    ("HistoryCallback", MissingPackageError),
    ("Nonsense", AttributeError),
):
    try:
        getattr(pyro_vdn.train, name)
    except error as raised:
        print(name, raised)
"""


def test_callbacks_are_imported_when_asked_for() -> None:
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    control, history, nonsense = done.stdout.splitlines()
    for line, name in ((control, "ControlCallback"), (history, "HistoryCallback")):
        assert line.startswith(name)
        assert 'Try: pip install "pyro-vdn[train]"' in line
    assert "module 'pyro_vdn.train' has no attribute 'Nonsense'" in nonsense


@pytest.mark.parametrize(("left", "got"), [(0, "none"), (1, "a part of them")])
def test_a_controlled_run_is_not_resumed_without_all_its_controllers(
    left: int, got: str, tmp_path: Path, data: Any, options: Any, make_model: Any
) -> None:
    def controlled() -> tuple[Any, list[ControlCallback]]:
        model = make_model()
        both = [thermostat(model), ScaleGuard(model)]
        return both[0].wrap(model), [ControlCallback(one) for one in both]

    model, callbacks = controlled()
    first = options(max_steps=4, evaluate_every=2)
    fit(model, *data, options=first, folder=tmp_path, callbacks=callbacks)
    more = options(max_steps=8, evaluate_every=2)
    model, callbacks = controlled()
    text = f"expected the controllers of the run that is resumed: .*, got {got}"
    with pytest.raises(InputError, match=text):
        fit(model, *data, options=more, resume=tmp_path, callbacks=callbacks[:left])
    assert fit(model, *data, options=more, resume=tmp_path, callbacks=callbacks).steps == 8
