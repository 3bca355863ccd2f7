"""Training a Pyro model with neurons on Lightning."""

from __future__ import annotations

import logging
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pyro.infer import ELBO

from pyro_vdn.guides import NeuronGuide
from pyro_vdn.infer.own_store import give_own_store
from pyro_vdn.nn.observed import reads_missing
from pyro_vdn.train.batches import Data, Pair, StepBatches, as_pair
from pyro_vdn.train.checkpoint import load_checkpoint
from pyro_vdn.train.default_loss import default_loss
from pyro_vdn.train.lightning import import_lightning
from pyro_vdn.train.options import FitOptions
from pyro_vdn.train.refused import cleared_when_refused
from pyro_vdn.train.resume import BEST, check_folder, check_resumed, resume_point

Program = Callable[..., Any]
_VALIDATION_ROWS = 1024
_VALIDATION_TOKENS = 8192
_DEFAULTS = FitOptions()


@dataclass(frozen=True)
class FitResult:
    """What `fit` did. The model holds the weights of the best evaluation.

    Args:
        model: The model that was trained.
        guide: Its guide.
        steps: Steps taken, those before a resumption included.
        best_step: Step of the best evaluation; None where training ended before the first.
        validation_nll: Its mean negative log predictive density per output; None as above.
        history: The scores of every evaluation: ``step``, ``train_loss``, ``validation_nll``,
            ``validation_joint_nll`` (per output), ``validation_elbo_per_row``.
        interrupted: Whether Ctrl-C ended training.
        stopped_early: Whether patience ran out.
        seconds: Wall time of this call.
        checkpoint: File of the best checkpoint, where a folder was given.

    Example:
        >>> FitResult(None, None, 10, 5, 0.3, [], False, False, 1.0, None).best_step
        5
    """

    model: Program
    guide: Program
    steps: int
    best_step: int | None
    validation_nll: float | None
    history: list[dict[str, float]] = field(repr=False)
    interrupted: bool
    stopped_early: bool
    seconds: float
    checkpoint: Path | None


def fit(
    model: Program,
    train: Data,
    validation: Data,
    *,
    guide: Program | None = None,
    loss: ELBO | None = None,
    options: FitOptions = _DEFAULTS,
    folder: str | Path | None = None,
    resume: str | Path | None = None,
    progress: bool | str = True,
    callbacks: Sequence[Any] = (),
) -> FitResult:
    """Train a Pyro model, choosing the best checkpoint by the validation NLL.

    The loss is divided by the number of observed target elements in a batch. The validation NLL is
    the mean negative log of the *averaged* predictive density of each output, in closed form where
    the model offers it. Batches and noise depend on ``options.seed`` alone, so a run can be
    repeated, and ``resume`` continues it bit for bit. The global random state is set.

    Args:
        model: A Pyro program called as ``model(x, y)``, bare or wrapped in effects.
        train: Inputs `(rows, ...)` and targets `(rows, outputs)` or `(rows, time, outputs)`, or
            tokens `(rows, time)` and the next ones, or data with ``tensors()``. Where the model
            says ``reads_missing = True``, NaN is missing. Views are not copied: rows may overlap.
        validation: The same, to choose by.
        guide: Its guide; by default `NeuronGuide(model)`.
        loss: An ELBO of Pyro or of this library; by default that of `default_loss`.
        options: The numbers of the run.
        folder: Where to keep ``best.safetensors``, ``last.safetensors`` and logs; must be empty or
            new, or hold the run that is resumed. By default nothing is kept on disk, nor where an
            error ends the run before its first step.
        resume: A ``last.safetensors`` to continue from, or the folder that holds it; the best
            checkpoint beside it goes along into another folder.
        progress: Whether to show a progress bar on a terminal, or its label.
        callbacks: Further Lightning callbacks.

    Returns:
        What happened; `model` and `guide` hold the best weights. After Ctrl-C the result says so.

    Raises:
        InputError: For data of the wrong form, not finite, or another seed than the resumed run's.
        RunFolderError: For a folder that is not empty, or a checkpoint that is missing (the last or
            the best), damaged or of another model.
        DivergedError: For a loss that is not finite; the model then holds the best weights so far.
        MissingPackageError: If Lightning is not installed.

    Example:
        >>> import torch
        >>> from pyro_vdn.models import Regression
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(64, 3)
        >>> y = x[:, :1] + 0.1 * torch.randn(64, 1)
        >>> options = FitOptions(max_steps=20, batch_size=16, evaluate_every=10, accelerator="cpu")
        >>> result = fit(Regression(3), (x[:48], y[:48]), (x[48:], y[48:]), options=options)
        >>> result.steps, len(result.history)
        (20, 2)
    """
    import_lightning()
    missing = reads_missing(model)
    data = as_pair("train", train, missing_allowed=missing)
    held_out = as_pair("validation", validation, missing_allowed=missing)
    start = resume_point(resume)
    check_resumed(start, options, callbacks)
    check_folder(folder, start=start)
    guide = NeuronGuide(model) if guide is None else guide
    give_own_store(model, guide)
    few: Pair = (data[0][: options.batch_size], data[1][: options.batch_size])
    loss = default_loss(model, few) if loss is None else loss
    keep = tempfile.TemporaryDirectory() if folder is None else nullcontext(folder)
    with keep as place, _quiet():
        run = _Run(model, guide, loss, options, Path(place), data, held_out, callbacks, progress)
        result = run(start)
    return result if folder is not None else replace(result, checkpoint=None)


class _Run:
    """One call of `fit` whose arguments are sound."""

    def __init__(
        self,
        model: Program,
        guide: Program,
        loss: ELBO,
        options: FitOptions,
        folder: Path,
        train: Pair,
        validation: Pair,
        callbacks: Sequence[Any],
        progress: bool | str,
    ) -> None:
        from pyro_vdn.train.callbacks import ConsoleProgress, KeepCheckpoints, Patience
        from pyro_vdn.train.task import RowBatches, TrainingTask

        few = (train[0][: options.batch_size], train[1][: options.batch_size])
        self.task = TrainingTask(model, guide, loss, options, few)
        self.options = options
        self.keep = KeepCheckpoints(folder)
        self.callbacks: list[Any] = [self.keep, *callbacks]
        self.stopper: Any = None
        if options.patience is not None:
            self.stopper = Patience(options.patience)
            self.callbacks.append(self.stopper)
        if progress:
            label = progress if isinstance(progress, str) else "training"
            self.callbacks.append(ConsoleProgress(label))
        self.train, self.validation = train, validation
        self.row_batches = RowBatches

    def __call__(self, start: Path | None) -> FitResult:
        began = time.perf_counter()
        step = 0 if start is None else int(load_checkpoint(start)["global_step"])
        self.keep.start = start
        trainer = _make_trainer(self.options, self.keep.folder, self.callbacks, step)
        interrupted = False
        refusing = cleared_when_refused(self.keep.folder, lambda: int(trainer.global_step) > step)
        with refusing, _interrupts_kept():
            try:
                trainer.fit(self.task, *self._loaders(trainer), ckpt_path=start)
            except (KeyboardInterrupt, SystemExit) as stop:
                # Lightning turns a KeyboardInterrupt into an exit of the whole process.
                if not isinstance(stop, KeyboardInterrupt) and not isinstance(
                    stop.__context__, KeyboardInterrupt
                ):
                    raise
                interrupted = True
            finally:
                self._take_best()
        if trainer.world_size > 1 and not interrupted:
            trainer.strategy.barrier()  # a temporary folder goes with the first process that ends
        best = self.keep.folder / BEST
        stopped_early = self.stopper is not None and self.stopper.stopped_epoch > 0
        return FitResult(
            *self.task.programs,
            steps=int(trainer.global_step),
            best_step=self.keep.best_step,
            validation_nll=None if self.keep.best_step is None else self.keep.best_value,
            history=self.keep.history,
            interrupted=interrupted,
            stopped_early=stopped_early,
            seconds=time.perf_counter() - began,
            checkpoint=best if best.exists() else None,
        )

    def _loaders(self, trainer: Any) -> tuple[Any, Any]:
        options = self.options

        def stretch() -> range:
            first = int(trainer.global_step)
            return range(first, min(first + options.evaluate_every, options.max_steps))

        place = {"rank": trainer.global_rank, "world_size": trainer.world_size}
        batches = StepBatches(
            self.train, options.batch_size, seed=options.seed, steps=stretch, **place
        )
        rows = _VALIDATION_ROWS
        if self.task.outcome.is_token:
            rows = max(1, _VALIDATION_TOKENS // self.validation[1].shape[-1])
        return batches, self.row_batches(self.validation, rows, **place)

    def _take_best(self) -> None:
        """Give the model the best weights; where there was no evaluation, keep those it has."""
        best = self.keep.folder / BEST
        if self.keep.best_step is not None:
            self.task.load_state_dict(load_checkpoint(best)["state_dict"])


def _make_trainer(options: FitOptions, folder: Path, callbacks: list[Any], step: int) -> Any:
    import lightning.pytorch as lightning

    from pyro_vdn.train.checkpoint_io import SafetensorsIO
    from pyro_vdn.train.lightning import make_loggers

    return lightning.Trainer(
        max_steps=options.max_steps,
        max_epochs=-1,
        accelerator=options.accelerator,
        devices=options.devices,
        strategy="auto" if options.devices == 1 else "ddp",
        precision=options.precision,
        gradient_clip_val=options.clip,
        num_sanity_val_steps=0,
        log_every_n_steps=min(50, options.evaluate_every),
        callbacks=callbacks,
        logger=make_loggers(folder, step),
        plugins=[SafetensorsIO()],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,  # tensors made in it could not take part in training later
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Lightning says about choices that were made on purpose."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Encountered NaN", UserWarning)
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _interrupts_kept() -> Iterator[None]:
    """Give Ctrl-C its meaning back, which Lightning takes away when it is pressed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
