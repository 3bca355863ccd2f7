from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import Regression
from torch import Tensor, nn

from pyro_vdn.errors import InputError, RunFolderError
from pyro_vdn.infer import LocalELBO, PACmELBO, log_density
from pyro_vdn.nn import VariationalNeurons
from pyro_vdn.poutine import deterministic, kl_weight
from pyro_vdn.testing import same_state
from pyro_vdn.train import FitResult, default_loss, fit, load_checkpoint
from pyro_vdn.train.task import DivergedError


class RaiseAt(lightning.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


class NaNAt(PACmELBO):
    """Turns to NaN after a number of training steps."""

    def __init__(self, step: int) -> None:
        super().__init__(closed_form=True)
        self.left = step

    def differentiable_loss(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().differentiable_loss(*args, **kwargs)
        self.left -= 1
        return loss * (math.nan if self.left < 0 else 1.0)


def validation_nll(result: FitResult, validation: Any) -> float:
    per_output, _ = log_density(result.model, result.guide, *validation)
    return -float(per_output.mean())


def test_a_resumed_run_equals_a_straight_one_bit_for_bit(
    tmp_path: Path, data: Any, options: Any, make_model: Any
) -> None:
    settings = options(max_steps=200, evaluate_every=50)
    straight = fit(make_model(), *data, options=settings, folder=tmp_path / "straight")
    halves = tmp_path / "halves"
    stopped = fit(make_model(), *data, options=settings, folder=halves, callbacks=[RaiseAt(120)])
    assert stopped.interrupted
    assert stopped.steps == 120
    resumed = fit(make_model(), *data, options=settings, folder=halves, resume=halves)
    assert not resumed.interrupted
    assert same_state(straight.model.state_dict(), resumed.model.state_dict())
    assert straight.history == resumed.history
    assert straight.best_step == resumed.best_step
    for name in ("last.safetensors", "best.safetensors"):
        one, two = (load_checkpoint(folder / name) for folder in (tmp_path / "straight", halves))
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks"):
            assert same_state(one[part], two[part]), part
        assert same_state(one["random_state"], two["random_state"])
        assert one["global_step"] == two["global_step"]


def test_the_noise_of_a_sampled_loss_continues_too(
    tmp_path: Path, data: Any, options: Any, make_model: Any
) -> None:
    straight = fit(make_model(), *data, options=options(), loss=LocalELBO())
    fit(
        make_model(),
        *data,
        options=options(),
        loss=LocalELBO(),
        folder=tmp_path,
        callbacks=[RaiseAt(12)],
    )
    resumed = fit(
        make_model(), *data, options=options(), loss=LocalELBO(), folder=tmp_path, resume=tmp_path
    )
    assert same_state(straight.model.state_dict(), resumed.model.state_dict())


@pytest.mark.parametrize("seed", [0, 1])
def test_seeds_repeat_and_differ(seed: int, data: Any, options: Any, make_model: Any) -> None:
    first, again, other = (
        fit(make_model(), *data, options=options(seed=s)) for s in (seed, seed, seed + 5)
    )
    assert same_state(first.model.state_dict(), again.model.state_dict())
    assert not same_state(first.model.state_dict(), other.model.state_dict())


def test_the_model_holds_the_best_weights(data: Any, options: Any, make_model: Any) -> None:
    train, validation = data
    few = train[0][:6], torch.randn(6, 1)  # noise to overfit
    settings = options(max_steps=200, learning_rate=5e-2, weight_decay=0.0, evaluate_every=10)
    result = fit(make_model(), few, validation, options=settings)
    values = [scores["validation_nll"] for scores in result.history]
    assert result.validation_nll == min(values) < values[-1]
    assert result.best_step == result.history[values.index(min(values))]["step"]
    assert validation_nll(result, validation) == pytest.approx(result.validation_nll)
    assert result.checkpoint is None


def test_training_stops_when_patience_runs_out(data: Any, options: Any, make_model: Any) -> None:
    train, validation = data
    few = train[0][:6], torch.randn(6, 1)
    settings = options(max_steps=500, learning_rate=5e-2, patience=2)
    result = fit(make_model(), few, validation, options=settings)
    assert result.stopped_early
    assert result.steps < 500
    assert result.steps == result.best_step + 2 * settings.evaluate_every


def test_the_last_step_is_evaluated(data: Any, options: Any, make_model: Any) -> None:
    result = fit(make_model(), *data, options=options(max_steps=13))
    assert [scores["step"] for scores in result.history] == [5, 10, 13]
    names = {"train_loss", "validation_nll", "validation_joint_nll", "validation_elbo_per_row"}
    assert names <= set(result.history[0])


def test_ctrl_c_keeps_the_best_checkpoint_and_its_own_meaning(
    tmp_path: Path, data: Any, options: Any, make_model: Any
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    result = fit(make_model(), *data, options=options(), folder=tmp_path, callbacks=[RaiseAt(12)])
    assert result.interrupted
    assert result.best_step == 10
    assert result.checkpoint == tmp_path / "best.safetensors"
    assert signal.getsignal(signal.SIGINT) is handler
    assert validation_nll(result, data[1]) == pytest.approx(result.validation_nll)


def test_ctrl_c_before_the_first_evaluation(data: Any, options: Any, make_model: Any) -> None:
    result = fit(make_model(), *data, options=options(), callbacks=[RaiseAt(2)])
    assert result.interrupted
    assert result.best_step is None
    assert result.validation_nll is None


@pytest.mark.parametrize("local", [False, True])
def test_a_second_instance_trains(local: bool, data: Any, options: Any, make_model: Any) -> None:
    with pyro.settings.context(module_local_params=local):
        first = make_model()
        one = fit(first, *data, options=options())
        second = make_model()
        before = {name: value.clone() for name, value in second.state_dict().items()}
        two = fit(second, *data, options=options())
    moved = [not torch.equal(value, before[name]) for name, value in second.state_dict().items()]
    assert all(moved)
    assert same_state(one.model.state_dict(), two.model.state_dict())


def test_a_wrapped_model_trains_under_its_own_names(
    tmp_path: Path, data: Any, options: Any, make_model: Any
) -> None:
    model = make_model()
    scale = model.neurons.posterior.raw_scale.value.clone()
    twin = deterministic(kl_weight(model, 0.5))
    result = fit(twin, *data, options=options(weight_decay=0.0), folder=tmp_path)
    assert result.model is twin
    assert torch.equal(model.neurons.posterior.raw_scale.value, scale)
    state = load_checkpoint(tmp_path / "last.safetensors")["state_dict"]
    assert {f"model.{name}" for name in model.state_dict()} == set(state)


def test_a_function_with_parameters_of_its_own(data: Any, options: Any, tmp_path: Path) -> None:
    layer = VariationalNeurons(3, 4)

    def model(x: Tensor, y: Tensor | None = None) -> Tensor:
        pyro.module("layer", layer)
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x), dim=-2):
            return pyro.sample("y", dist.Normal(layer(x).sum(-1, keepdim=True), scale), obs=y)

    result = fit(model, *data, loss=Trace_ELBO(), options=options(max_steps=10), folder=tmp_path)
    assert isinstance(default_loss(model, data[0]), LocalELBO)
    assert pyro.param("scale").item() != 1.0
    assert result.steps == 10
    assert "param.scale" in load_checkpoint(tmp_path / "last.safetensors")["state_dict"]


def test_modes_of_parts_survive_validation(data: Any, options: Any, make_model: Any) -> None:
    seen = []

    class See(lightning.Callback):
        def on_train_batch_start(self, *rest: Any) -> None:
            seen.append(model.training)

        def on_validation_batch_start(self, *rest: Any) -> None:
            seen.append(model.training)

    model = make_model()
    fit(model, *data, options=options(max_steps=6), callbacks=[See()])
    assert seen == [True] * 5 + [False, True, False]


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_best(
    data: Any, options: Any, make_model: Any, tmp_path: Path
) -> None:
    model = make_model()
    with pytest.raises(DivergedError, match="got nan at step 12, counted from 0; the best"):
        fit(model, *data, options=options(), loss=NaNAt(13), folder=tmp_path)
    best = load_checkpoint(tmp_path / "best.safetensors")
    assert best["global_step"] == 10
    assert torch.equal(model.readout.linear.bias, best["state_dict"]["model.readout.linear.bias"])


def test_parameters_that_are_not_finite_are_named(data: Any, options: Any, make_model: Any) -> None:
    class Poison(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
            if trainer.global_step == 3:
                nn.init.constant_(model.neurons.posterior.loc.bias, math.nan)

    model = make_model()
    with pytest.raises(DivergedError, match="expected a finite loss, got nan at step 3"):
        fit(model, *data, options=options(), callbacks=[Poison()])


def test_a_folder_that_holds_something_is_refused_untouched(
    tmp_path: Path, data: Any, options: Any, make_model: Any
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="expected an empty or new folder"):
        fit(make_model(), *data, options=options(), folder=tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(RunFolderError, match="expected a folder, got a file"):
        fit(make_model(), *data, options=options(), folder=tmp_path / "mine.txt")


def test_resuming_with_other_batches_is_refused(
    tmp_path: Path, data: Any, options: Any, make_model: Any
) -> None:
    fit(make_model(), *data, options=options(max_steps=5), folder=tmp_path)
    with pytest.raises(InputError, match=r"options\.seed: expected 0, as in the run"):
        fit(make_model(), *data, options=options(seed=1), folder=tmp_path, resume=tmp_path)
    other = Regression(3, num_units=6)
    with pytest.raises(RunFolderError, match="of another model"):
        fit(other, *data, options=options(), folder=tmp_path, resume=tmp_path)
    with pytest.raises(RunFolderError, match="no such file"):
        fit(make_model(), *data, options=options(), resume=tmp_path / "nothing")


def test_logs_are_kept_as_csv(tmp_path: Path, data: Any, options: Any, make_model: Any) -> None:
    fit(make_model(), *data, options=options(), folder=tmp_path)
    header = (tmp_path / "logs/from_step_0/metrics.csv").read_text().splitlines()[0]
    assert {"step", "train_loss", "validation_nll"} <= set(header.split(","))


def test_a_guide_of_its_own_is_kept(data: Any, options: Any, make_model: Any) -> None:
    model = make_model()
    guide = NeuronGuide(model)
    assert fit(model, *data, guide=guide, options=options(max_steps=2)).guide is guide


@pytest.mark.parametrize(
    ("train", "text"),
    [
        ((torch.zeros(0, 3), torch.zeros(0, 1)), "at least 1"),
        ((torch.zeros(4, 3), torch.zeros(5, 1)), "one number of rows"),
        ((torch.full((4, 3), math.nan), torch.zeros(4, 1)), r"nan at \(0, 0\)"),
        ((torch.zeros(4, 3), torch.full((4, 1), math.inf)), r"inf at \(0, 0\)"),
        ((torch.zeros(4, 3), torch.zeros(4)), r"expected shape \(rows, outputs\)"),
        (torch.zeros(4, 3), r"a pair \(x, y\) of tensors"),
    ],
)
def test_bad_data_are_refused_before_anything_is_written(
    train: Any, text: str, data: Any, make_model: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=text):
        fit(make_model(), train, data[1], folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()
