"""Controllers inside `fit`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from pyro_vdn.control import Composed, Controller
from pyro_vdn.control.controller import Seen
from pyro_vdn.control.reach import ReachMessenger, forget_reach, is_reached
from pyro_vdn.errors import InputError
from pyro_vdn.train.callbacks import KeepCheckpoints
from pyro_vdn.train.checkpoint import load_checkpoint
from pyro_vdn.train.resume import BEST
from pyro_vdn.train.step_callback import StepCallback


class ControlCallback(StepCallback):
    """Lets a controller watch and steer training: `pyro_vdn.control.watch` as a callback.

    Of every step that is due the controller observes what the layers did, in all processes
    together; it acts after the optimiser's step, alike in every process. Its state is part of the
    checkpoints, so a resumed run continues bit for bit. When `fit` ends, the controller holds, as
    the model does, the state of the best evaluation.

    Hand `fit` the model wrapped in the controller's effects. A run whose model lacks them is
    refused before its first step: weights that never reach the loss would do nothing.

    Args:
        controller: A controller, or several composed.
        name: Name of its state in a checkpoint; by default made of controllers and layers. Two
            callbacks of one run need two names.

    Raises:
        InputError: When training starts, for a model without the controller's effects or another
            model than the controller's; when a run is resumed, for other controllers than the
            run's.

    Example:
        >>> import torch
        >>> from pyro_vdn.control import ScaleGuard, Thermostat, compose
        >>> from pyro_vdn.models import Regression
        >>> from pyro_vdn.train import ControlCallback, FitOptions, fit
        >>> model, x, y = Regression(3), torch.randn(64, 3), torch.randn(64, 1)
        >>> living = compose(Thermostat(model), ScaleGuard(model))
        >>> options = FitOptions(max_steps=20, evaluate_every=20, accelerator="cpu")
        >>> data = (x[:48], y[:48]), (x[48:], y[48:])
        >>> callback = ControlCallback(living)
        >>> result = fit(living.wrap(model), *data, options=options, callbacks=[callback])
        >>> living.controllers[0].step
        20
    """

    def __init__(self, controller: Controller, *, name: str | None = None) -> None:
        self.controller = controller
        self.name = _describe(controller) if name is None else name
        self._reach: ReachMessenger | None = None

    @property
    def state_key(self) -> str:
        """Key of the state in a checkpoint."""
        return f"{type(self).__name__}({self.name})"

    @property
    def due(self) -> bool:
        """Whether the step to come is one to observe."""
        return self.controller.due

    def observe(self, seen: Seen) -> None:
        """Show the step to the controller."""
        self.controller.observe(seen)

    def act(self) -> None:
        """Let the controller act."""
        self.controller.act()

    def around_step(self) -> AbstractContextManager[Any]:
        """Look, until it has been seen, whether the controller's effects are in force."""
        self._reach = None if is_reached(self.controller) else ReachMessenger()
        return nullcontext() if self._reach is None else self._reach

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Move the controller to where the model is."""
        self.controller.to(pl_module.device)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Refuse a controller of another model."""
        forget_reach(self.controller)
        trained = {id(value) for value in pl_module.parameters()}
        for optimizer in trainer.optimizers:
            trained.update(id(p) for group in optimizer.param_groups for p in group["params"])
        for path, layer in self.controller.layers.items():
            own = {id(value) for value in layer.parameters() if value.requires_grad}
            if own and not own & trained:
                raise InputError(
                    "controller",
                    expected="a controller of the model that is trained",
                    got=f"{self.name}, whose layer '{path}' is of another model",
                    hint=f"make it from the same model: {type(self.controller).__name__}(model)",
                )

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """Refuse a model without the controller's effects, before anything is trained."""
        reach, self._reach = self._reach, None
        if reach is not None:
            reach.check(self.controller)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Give the controller the state of the best evaluation."""
        self._end(trainer)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Forget the step that failed; take the state of the best evaluation."""
        super().on_exception(trainer, pl_module, exception)
        self._end(trainer)

    def _end(self, trainer: Any) -> None:
        for keep in trainer.callbacks:
            if isinstance(keep, KeepCheckpoints) and (keep.folder / BEST).exists():
                state = load_checkpoint(keep.folder / BEST)["callbacks"].get(self.state_key)
                if state is not None:
                    self.controller.load_state_dict(state)
        self.controller.to("cpu")  # where Lightning leaves the model

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Refuse to take the place of other controllers; a run without any may be given some."""
        mark = f"{type(self).__name__}("
        kept = [key for key in checkpoint["callbacks"] if key.startswith(mark)]
        if kept and self.state_key not in kept:
            names = [key.removeprefix(mark).removesuffix(")") for key in kept]
            raise InputError(
                "controller",
                expected=f"the controllers of the run that is resumed: {', '.join(names)}",
                got=self.name,
                hint="the same controllers in the same order, under the same name",
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the controller's state."""
        return self.controller.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.controller.load_state_dict(state_dict)


def _describe(controller: Controller) -> str:
    """Name a controller by its class and layers."""
    if isinstance(controller, Composed):
        return " + ".join(_describe(one) for one in controller.controllers)
    return f"{type(controller).__name__} of {', '.join(controller.layers)}"
