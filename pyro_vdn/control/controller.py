"""What every controller is: statistics in, a small change of the layers out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_vdn.control.checks import check_range
from pyro_vdn.control.layers import Controlled, like_layer, neuron_layers
from pyro_vdn.errors import InputError
from pyro_vdn.nn.shapes import check_positive
from pyro_vdn.poutine import LayerRecord

Program = Callable[..., Any]
Seen = Mapping[str, LayerRecord]


class Controller(ABC):
    """Keeps a layer of neurons alive: `observe` what a step did, then `act` between two steps.

    A controller changes parameters or weights in place, never the graph, and holds no more than
    its `memory`. ``with watch(controller):`` around a step does both and skips what is not due.

    Args:
        model: The model, or its layers by path (`neuron_layers`).
        every: Steps from one act to the next.
        warmup: Steps before the first act.
        batches: How many of the steps before an act are observed.
        momentum: Weight of a new observation in the running averages, in (0, 1].

    Raises:
        InputError: For a model without neurons, or a number outside its range.

    Example:
        >>> from pyro_vdn.models import Regression
        >>> class Count(Controller):
        ...     def observe(self, seen):
        ...         self.rows = seen["neurons"].kl.count
        ...     def change(self, path):
        ...         pass
        >>> Count(Regression(3), every=10).due
        False
    """

    def __init__(
        self,
        model: Controlled,
        *,
        every: int = 1,
        warmup: int = 0,
        batches: int = 1,
        momentum: float = 1.0,
    ) -> None:
        check_positive(every=every, batches=batches)
        check_range("momentum", momentum, 0.0, 1.0, above=True)
        check_range("warmup", warmup, 0)
        self.layers = neuron_layers(model)
        self.every = every
        self.warmup = warmup
        self.batches = batches
        self.momentum = momentum
        self.step = 0
        #: All that a controller remembers, by quantity and layer path.
        self.memory: dict[str, dict[str, Tensor]] = {}
        #: Paths of layers at which its effects have not been seen in force yet.
        self.unreached = set(self.layers)

    @property
    def due(self) -> bool:
        """Whether the step to come is one to observe."""
        ahead = -(self.step + 1) % self.every  # steps that follow it before the next act
        return ahead < self.batches and self.step + 1 + ahead > self.warmup

    @abstractmethod
    def observe(self, seen: Seen) -> None:
        """Take in what `record` saw during a step, by layer path."""

    def act(self) -> None:
        """Count a step and, where it is time, change the layers."""
        self.step += 1
        if self.step > self.warmup and self.step % self.every == 0:
            self.on_time()

    def on_time(self) -> None:
        """Change every layer."""
        for path in self.layers:
            self.change(path)

    @abstractmethod
    def change(self, path: str) -> None:
        """Change the layer at `path`."""

    def wrap(self, model: Program) -> Program:
        """Return the model with the effects by which this controller reaches the loss."""
        return model

    def records(self, seen: Seen) -> Iterator[tuple[str, LayerRecord]]:
        """Go through the layers with what was seen of each.

        Raises:
            InputError: For a layer of which nothing was seen.
        """
        for path in self.layers:
            if path not in seen:
                raise InputError(
                    type(self).__name__,
                    expected=f"a record of layer '{path}'",
                    got=f"records of {sorted(seen)}",
                    hint="train with NeuronGuide inside `with watch(controller):`, and name layers "
                    'as `record` does by giving the controller {"path": layer}',
                )
            yield path, seen[path]

    def average(
        self, quantity: str, path: str, values: Tensor, *, momentum: float | None = None
    ) -> None:
        """Move the running average of a quantity toward new values; what is not finite is skipped.

        A unit of which nothing finite has been seen is remembered as NaN.

        Args:
            quantity: Name of the quantity.
            path: Path of the layer.
            values: What was observed, `(num_units,)`.
            momentum: Weight of the new values, in (0, 1]; by default that of the controller.
        """
        averages = self.memory.setdefault(quantity, {})
        old = averages.get(path, torch.full_like(values, torch.nan))
        moved = torch.lerp(old, values, self.momentum if momentum is None else momentum)
        moved = torch.where(old.isnan(), values, moved)
        averages[path] = torch.where(moved.isfinite(), moved, old)

    def recall(self, quantity: str, path: str) -> Tensor | None:
        """Return what is remembered of a quantity at a layer, or None."""
        return self.memory.get(quantity, {}).get(path)

    def to(self, device: torch.device | str) -> None:
        """Move the memory to a device; live tensors stay the same objects."""
        for values in self.memory.values():
            for value in values.values():
                value.data = value.to(device)

    def state_dict(self) -> dict[str, Any]:
        """Return whose state it is, step and memory: all that a resumed run needs."""
        memory = {
            quantity: {path: value.clone() for path, value in values.items()}
            for quantity, values in self.memory.items()
        }
        return {**self._identity(), "step": self.step, "memory": memory}

    def _identity(self) -> dict[str, Any]:
        units = {path: layer.shape.num_units for path, layer in self.layers.items()}
        return {"controller": type(self).__name__, "units": units}

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raise `InputError` for the state of another controller, or of other layers.

        Args:
            state: What `state_dict` returned.
        """
        own = self._identity()
        theirs = {key: state.get(key) for key in own}
        if theirs != own:
            raise InputError(
                "state",
                expected=f"that of a {own['controller']} of layers with units {own['units']}",
                got=f"that of a {theirs['controller']} of {theirs['units']}",
                hint="build the controllers that the run was started with",
            )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned; live tensors stay the same objects.

        Args:
            state: What `state_dict` returned.

        Raises:
            InputError: For the state of another controller, or of other layers.
        """
        self.check_state(state)
        self.step = int(state["step"])
        for quantity in [*self.memory, *(new for new in state["memory"] if new not in self.memory)]:
            own = self.memory.setdefault(quantity, {})
            values = state["memory"].get(quantity, {})
            for path in [path for path in own if path not in values]:
                del own[path]
            for path, value in values.items():
                if path in own:
                    own[path].copy_(value)
                else:
                    own[path] = value.to(like_layer(self.layers[path]).device, copy=True)
