"""A run that is refused before its first step leaves no trace, and nothing else is touched."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
from pyro_vdn.models import Regression
from torch import Tensor

from pyro_vdn.control import ScaleGuard, Thermostat
from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO
from pyro_vdn.train import ControlCallback, fit
from pyro_vdn.train.refused import cleared_when_refused
from pyro_vdn.train.task import DivergedError


class Raise(lightning.Callback):
    def __init__(self, hook: str, error: type[BaseException], step: int = 0) -> None:
        self.error, self.step = error, step
        setattr(self, hook, self.fail)

    def fail(self, trainer: Any, *rest: Any) -> None:
        if trainer.global_step == self.step:
            raise self.error


class NaNAt(LocalELBO):
    """Not finite after a number of runs, of which `fit` makes one before training."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def differentiable_loss(self, *args: Any, **kwargs: Any) -> Tensor:
        self.left -= 1
        loss = super().differentiable_loss(*args, **kwargs)
        return loss * (math.nan if self.left < 0 else 1.0)


def everything_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


#: What refuses a model, by name: arguments of `fit`, and the error.
REFUSALS: dict[str, tuple[Callable[[Any], dict[str, Any]], type[Exception]]] = {
    "a model without its controller's effects": (
        lambda model: {"callbacks": [ControlCallback(Thermostat(model))]},
        InputError,
    ),
    "a controller of another model": (
        lambda model: {"callbacks": [ControlCallback(ScaleGuard(Regression(3)))]},
        InputError,
    ),
    "an error when training starts": (
        lambda model: {"callbacks": [Raise("on_train_start", ZeroDivisionError)]},
        ZeroDivisionError,
    ),
    "a loss that is not finite": (lambda model: {"loss": NaNAt(1)}, DivergedError),
}


@pytest.mark.parametrize("place", ["new", "deeper/new", "empty"])
@pytest.mark.parametrize("why", REFUSALS)
def test_a_refused_run_leaves_nothing_and_the_next_one_starts(
    why: str, place: str, tmp_path: Path, data: Any, options: Any, make_model: Any
) -> None:
    (tmp_path / "empty").mkdir()
    arguments, error = REFUSALS[why]
    model, folder = make_model(), tmp_path / place
    with pytest.raises(error):
        fit(model, *data, options=options(), folder=folder, **arguments(model))
    assert everything_in(tmp_path) == {"empty"}
    fit(make_model(), *data, options=options(max_steps=5), folder=folder)
    assert (folder / "last.safetensors").exists()


def test_a_refused_resumption_elsewhere_leaves_nothing(
    tmp_path: Path, data: Any, options: Any, make_model: Any
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    fit(make_model(), *data, options=options(max_steps=5), folder=one)
    before = everything_in(tmp_path)
    model = make_model()
    callbacks = [ControlCallback(Thermostat(model))]
    with pytest.raises(InputError, match="without them, so that Thermostat"):
        fit(model, *data, options=options(), folder=two, resume=one, callbacks=callbacks)
    assert everything_in(tmp_path) == before


def test_a_refused_resumption_in_place_deletes_nothing(
    tmp_path: Path, data: Any, options: Any, make_model: Any
) -> None:
    fit(make_model(), *data, options=options(max_steps=5), folder=tmp_path)
    (tmp_path / "logs" / "mine.txt").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    model = make_model()
    callbacks = [ControlCallback(Thermostat(model))]
    with pytest.raises(InputError, match="without them, so that Thermostat"):
        fit(model, *data, options=options(), folder=tmp_path, resume=tmp_path, callbacks=callbacks)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("step", [1, 12])
def test_a_run_that_began_keeps_what_it_wrote(
    step: int, tmp_path: Path, data: Any, options: Any, make_model: Any
) -> None:
    folder = tmp_path / "run"
    failing = Raise("on_train_batch_end", ZeroDivisionError, step)
    with pytest.raises(ZeroDivisionError):
        fit(make_model(), *data, options=options(), folder=folder, callbacks=[failing])
    assert (folder / "logs").exists()
    assert (folder / "best.safetensors").exists() == (step == 12)


def test_an_interruption_is_no_refusal(
    tmp_path: Path, data: Any, options: Any, make_model: Any
) -> None:
    stopping = Raise("on_train_batch_start", KeyboardInterrupt)
    result = fit(make_model(), *data, options=options(), folder=tmp_path, callbacks=[stopping])
    assert result.interrupted
    assert (tmp_path / "logs").exists()


def test_files_of_others_stay(tmp_path: Path, data: Any, options: Any, make_model: Any) -> None:
    folder = tmp_path / "run"

    class Writes(lightning.Callback):
        def on_fit_start(self, *rest: Any) -> None:
            (folder / "mine.txt").write_text("mine")

    model = make_model()
    callbacks = [Writes(), ControlCallback(Thermostat(model))]
    with pytest.raises(InputError):
        fit(model, *data, options=options(), folder=folder, callbacks=callbacks)
    assert everything_in(tmp_path) == {"run", "run/mine.txt"}


def test_what_was_there_before_is_never_deleted(tmp_path: Path) -> None:
    for name in ("logs/from_step_0", "other"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("logs/old.csv", "best.safetensors", "last.safetensors"):
        (tmp_path / name).write_text("old")
    before = everything_in(tmp_path)
    with pytest.raises(ZeroDivisionError), cleared_when_refused(tmp_path, lambda: False):
        raise ZeroDivisionError
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize(("rank", "left"), [("0", set()), ("1", {"run", "run/logs"})])
def test_the_first_of_several_processes_clears(
    rank: str, left: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", rank)
    run = tmp_path / "run"

    def fails() -> None:
        with cleared_when_refused(run, lambda: False):
            (run / "logs").mkdir(parents=True)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert everything_in(tmp_path) == left
