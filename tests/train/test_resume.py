"""Continuing a run in its own folder and in another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from pyro_vdn.models import Regression

from pyro_vdn.control import Thermostat
from pyro_vdn.errors import InputError, RunFolderError
from pyro_vdn.testing import same_state
from pyro_vdn.train import ControlCallback, FitOptions, FitResult, fit, load_checkpoint
from pyro_vdn.train.checkpoint import save_checkpoint
from pyro_vdn.train.resume import BEST, LAST, bring_checkpoints, check_folder, resume_point

STOP = 60


class StopAt(lightning.Callback):
    def __init__(self, step: int = STOP) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.fixture
def noise(data: Any) -> Any:
    """Few rows of noise: the best evaluation comes early, and none is better later."""
    (x, _), validation = data
    return (x[:6], torch.randn(6, 1)), validation


@pytest.fixture
def settings(options: Any) -> FitOptions:
    made: FitOptions = options(max_steps=100, learning_rate=5e-2, evaluate_every=10)
    return made


@pytest.fixture
def stopped(tmp_path: Path, noise: Any, settings: FitOptions, make_model: Any) -> Path:
    """The folder of a run that stopped after its best evaluation."""
    folder = tmp_path / "stopped"
    result = fit(
        make_model(), *noise, options=settings, folder=folder, callbacks=[StopAt()], progress=False
    )
    assert result.interrupted
    assert result.best_step is not None
    assert result.best_step < STOP
    return folder


def assert_equal_runs(one: FitResult, other: FitResult) -> None:
    assert same_state(one.model.state_dict(), other.model.state_dict())
    assert one.history == other.history
    for name in ("steps", "best_step", "validation_nll"):
        assert getattr(one, name) == getattr(other, name), name


@pytest.mark.parametrize("by_file", [False, True])
@pytest.mark.parametrize("kept", [False, True])
def test_a_run_continues_in_another_folder_bit_for_bit(
    by_file: bool,
    kept: bool,
    tmp_path: Path,
    stopped: Path,
    noise: Any,
    settings: FitOptions,
    make_model: Any,
) -> None:
    straight = fit(make_model(), *noise, options=settings, folder=tmp_path / "straight")
    before = contents(stopped)
    there = tmp_path / "deeper" / "there"
    resumed = fit(
        make_model(),
        *noise,
        options=settings,
        folder=there if kept else None,
        resume=stopped / LAST if by_file else stopped,
    )
    assert_equal_runs(straight, resumed)
    assert resumed.best_step is not None
    assert resumed.best_step < STOP  # no evaluation was better after resuming
    assert contents(stopped) == before
    assert (resumed.checkpoint is not None) == kept
    if kept:
        for name in (BEST, LAST):
            one, other = (load_checkpoint(f / name) for f in (tmp_path / "straight", there))
            for part in ("state_dict", "optimizer_states", "callbacks", "random_state"):
                assert same_state(one[part], other[part]), part


def test_a_better_evaluation_later_replaces_the_copy_alone(
    tmp_path: Path, data: Any, options: Any, make_model: Any
) -> None:
    settings = options(max_steps=40, learning_rate=1e-2)
    one, two = tmp_path / "one", tmp_path / "two"
    fit(make_model(), *data, options=settings, folder=one, callbacks=[StopAt(10)])
    before = contents(one)
    result = fit(make_model(), *data, options=settings, folder=two, resume=one)
    assert result.best_step is not None
    assert result.best_step > 10
    assert load_checkpoint(two / BEST)["global_step"] == result.best_step
    assert contents(one) == before


def test_a_run_stopped_before_its_first_evaluation_elsewhere_can_be_resumed_there(
    tmp_path: Path, stopped: Path, noise: Any, settings: FitOptions, make_model: Any
) -> None:
    straight = fit(make_model(), *noise, options=settings)
    there = tmp_path / "there"
    again = {"options": settings, "folder": there}
    fit(make_model(), *noise, resume=stopped, callbacks=[StopAt(STOP - 3)], **again)
    assert_equal_runs(straight, fit(make_model(), *noise, resume=there, **again))


def test_a_controller_ends_with_the_best_state_brought_along(
    tmp_path: Path, noise: Any, settings: FitOptions, make_model: Any
) -> None:
    def run(**kwargs: Any) -> tuple[FitResult, Thermostat]:
        model = make_model()
        thermostat = Thermostat(model, low=2.0, high=5.0, every=2)
        callbacks = [ControlCallback(thermostat), *kwargs.pop("callbacks", [])]
        controlled = thermostat.wrap(model)
        return fit(controlled, *noise, options=settings, callbacks=callbacks, **kwargs), thermostat

    _, straight = run(folder=tmp_path / "straight")
    run(folder=tmp_path / "one", callbacks=[StopAt()])
    result, resumed = run(folder=tmp_path / "two", resume=tmp_path / "one")
    assert resumed.step == result.best_step
    assert result.best_step < STOP
    assert same_state(resumed.state_dict(), straight.state_dict())


@pytest.mark.parametrize("folder", [None, "elsewhere", "stopped"])
def test_a_best_checkpoint_that_is_gone_is_missed_before_training(
    folder: str | None,
    tmp_path: Path,
    stopped: Path,
    noise: Any,
    settings: FitOptions,
    make_model: Any,
) -> None:
    step = load_checkpoint(stopped / LAST)["callbacks"]["KeepCheckpoints"]["best_step"]
    (stopped / BEST).unlink()
    before = contents(tmp_path)
    text = (
        rf"best\.safetensors: no such file, though last\.safetensors comes from a run whose best "
        rf"evaluation was at step {step}\. Try: a folder that holds both files"
    )
    model = make_model()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    place = None if folder is None else tmp_path / folder
    with pytest.raises(RunFolderError, match=text):
        fit(model, *noise, options=settings, folder=place, resume=stopped)
    assert same_state(model.state_dict(), weights)
    assert contents(tmp_path) == before
    assert not (tmp_path / "elsewhere").exists()


def test_a_damaged_best_checkpoint_is_noticed_before_training(
    tmp_path: Path, stopped: Path, noise: Any, settings: FitOptions, make_model: Any
) -> None:
    damaged = bytearray((stopped / BEST).read_bytes())
    damaged[-1] ^= 1
    (stopped / BEST).write_bytes(damaged)
    with pytest.raises(RunFolderError, match="damaged"):
        fit(make_model(), *noise, options=settings, folder=tmp_path / "new", resume=stopped)
    assert not (tmp_path / "new").exists()


def test_the_folder_of_another_run_is_refused_untouched(
    tmp_path: Path, stopped: Path, noise: Any, settings: FitOptions, make_model: Any
) -> None:
    other = tmp_path / "other"
    fit(make_model(), *noise, options=settings, folder=other, callbacks=[StopAt(20)])
    before = contents(tmp_path)
    with pytest.raises(RunFolderError, match=r"other: expected an empty or new folder"):
        fit(make_model(), *noise, options=settings, folder=other, resume=stopped)
    assert contents(tmp_path) == before


def test_its_own_folder_may_be_named_otherwise(
    tmp_path: Path, stopped: Path, noise: Any, settings: FitOptions, make_model: Any
) -> None:
    straight = fit(make_model(), *noise, options=settings)
    (tmp_path / "link").symlink_to(stopped)
    again = {"options": settings, "folder": tmp_path / "link", "resume": stopped}
    assert_equal_runs(straight, fit(make_model(), *noise, **again))


def test_continuing_from_the_best_leaves_the_last_where_it_is(stopped: Path) -> None:
    before = contents(stopped)
    bring_checkpoints(stopped / BEST, stopped)
    assert contents(stopped) == before


def test_checkpoints_are_brought_whole(tmp_path: Path, stopped: Path) -> None:
    there = tmp_path / "a" / "b"
    bring_checkpoints(stopped / LAST, there)
    assert contents(there) == {name: (stopped / name).read_bytes() for name in (BEST, LAST)}


def test_what_cannot_be_written_is_said(tmp_path: Path, stopped: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot be written"):
        bring_checkpoints(stopped / LAST, tmp_path / "file" / "b")


def test_a_run_that_had_no_finite_evaluation_has_no_best_to_bring(
    tmp_path: Path, stopped: Path, noise: Any, settings: FitOptions, make_model: Any
) -> None:
    state = load_checkpoint(stopped / LAST)
    state["callbacks"]["KeepCheckpoints"].update(best_step=None, best_value=float("inf"))
    lone = tmp_path / "lone" / LAST
    save_checkpoint(lone, state)
    result = fit(make_model(), *noise, options=settings, folder=tmp_path / "new", resume=lone)
    assert result.best_step is not None
    assert result.best_step >= STOP


# --- patience ---


@pytest.fixture
def patient(options: Any) -> Callable[[int], FitOptions]:
    def make(patience: int) -> FitOptions:
        made: FitOptions = options(
            max_steps=300, learning_rate=5e-2, evaluate_every=10, patience=patience
        )
        return made

    return make


@pytest.mark.parametrize("elsewhere", [False, True])
def test_patience_goes_on_where_it_was(
    elsewhere: bool, tmp_path: Path, noise: Any, patient: Any, make_model: Any
) -> None:
    straight = fit(make_model(), *noise, options=patient(3), folder=tmp_path / "straight")
    assert straight.stopped_early
    assert straight.best_step is not None
    # One evaluation that was not the best lies before the stop, two after it.
    stop = StopAt(straight.best_step + 15)
    one = tmp_path / "one"
    fit(make_model(), *noise, options=patient(3), folder=one, callbacks=[stop])
    two = tmp_path / "two" if elsewhere else one
    resumed = fit(make_model(), *noise, options=patient(3), folder=two, resume=one)
    assert resumed.stopped_early
    assert_equal_runs(straight, resumed)
    for name in (BEST, LAST):
        ends = [load_checkpoint(f / name)["callbacks"] for f in (tmp_path / "straight", two)]
        assert same_state(*ends)


def test_a_run_that_had_stopped_early_has_nothing_left_to_do(
    tmp_path: Path, noise: Any, patient: Any, make_model: Any
) -> None:
    first = fit(make_model(), *noise, options=patient(2), folder=tmp_path)
    again = fit(make_model(), *noise, options=patient(2), folder=tmp_path, resume=tmp_path)
    assert again.stopped_early
    assert_equal_runs(first, again)


def test_more_patience_lets_it_go_on(
    tmp_path: Path, noise: Any, patient: Any, make_model: Any
) -> None:
    straight = fit(make_model(), *noise, options=patient(5))
    fit(make_model(), *noise, options=patient(2), folder=tmp_path)
    longer = fit(make_model(), *noise, options=patient(5), folder=tmp_path, resume=tmp_path)
    assert_equal_runs(straight, longer)
    assert longer.steps == longer.best_step + 50


def test_resuming_writes_nothing_before_the_next_evaluation(
    stopped: Path, noise: Any, settings: FitOptions, make_model: Any
) -> None:
    before = {name: (stopped / name).read_bytes() for name in (BEST, LAST)}
    again = {"folder": stopped, "resume": stopped, "callbacks": [StopAt(STOP - 5)]}
    fit(make_model(), *noise, options=settings, **again)
    assert {name: (stopped / name).read_bytes() for name in (BEST, LAST)} == before


@pytest.mark.parametrize("bad", ["file", "full"])
def test_where_a_run_may_start(bad: str, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    for name in ("file", "full/file"):
        (tmp_path / name).write_text("")
    check_folder(tmp_path / "full", start=tmp_path / "full" / "file")
    check_folder(tmp_path / "new", start=tmp_path / "full" / "file")
    with pytest.raises(RunFolderError):
        check_folder(tmp_path / bad)
    with pytest.raises(RunFolderError):
        check_folder(tmp_path / bad, start=tmp_path / "nowhere" / LAST)


def test_the_point_to_continue_from(tmp_path: Path) -> None:
    assert resume_point(None) is None
    assert resume_point(tmp_path) == tmp_path / LAST
    assert resume_point(tmp_path / "own.safetensors") == tmp_path / "own.safetensors"


def test_other_models_are_refused_as_before(
    tmp_path: Path,
    stopped: Path,
    noise: Any,
    settings: FitOptions,
    options: Callable[..., FitOptions],
    make_model: Any,
) -> None:
    there = tmp_path / "there"
    with pytest.raises(RunFolderError, match="of another model"):
        fit(Regression(3, num_units=6), *noise, options=settings, folder=there, resume=stopped)
    with pytest.raises(InputError, match=r"options\.batch_size"):
        fit(make_model(), *noise, options=options(batch_size=4), folder=there, resume=stopped)
    assert not there.exists()
