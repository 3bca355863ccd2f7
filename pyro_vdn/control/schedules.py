"""KL weights over training: schedules as pure functions, and the controller that follows one."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pyro_vdn.control.checks import check_range
from pyro_vdn.control.controller import Controller, Program, Seen
from pyro_vdn.control.layers import Controlled, like_layer
from pyro_vdn.nn.shapes import check_positive
from pyro_vdn.poutine import kl_weight

Schedule = Callable[[int], float]


def linear_warmup(step: int, *, steps: int, start: float = 0.0, end: float = 1.0) -> float:
    r"""Return a weight that rises linearly from `start` to `end` and stays there.

    `start + (end - start) min(1, step / steps)`.

    Args:
        step: Steps taken so far, from 0.
        steps: Steps of the rise.
        start: Weight at the beginning.
        end: Weight at the end.

    Example:
        >>> [linear_warmup(step, steps=100) for step in (0, 50, 100, 200)]
        [0.0, 0.5, 1.0, 1.0]

    Source:
        Bowman et al., *Generating Sentences from a Continuous Space*, CoNLL 2016.
    """
    check_positive(steps=steps)
    return start + (end - start) * min(1.0, step / steps)


def cyclical_warmup(
    step: int, *, period: int, rise: float = 0.5, start: float = 0.0, end: float = 1.0
) -> float:
    r"""Return a weight that rises linearly in the first part of every period, then holds.

    With `u = (step mod period) / period`: `start + (end - start) min(1, u / rise)`.

    Args:
        step: Steps taken so far, from 0.
        period: Steps of a period.
        rise: Share of a period in which the weight rises, in (0, 1].
        start: Weight at the beginning of a period.
        end: Weight at its end.

    Example:
        >>> [cyclical_warmup(step, period=100) for step in (0, 25, 50, 99, 100)]
        [0.0, 0.5, 1.0, 1.0, 0.0]

    Source:
        Fu et al., *Cyclical Annealing Schedule*, NAACL 2019.
    """
    check_positive(period=period)
    check_range("rise", rise, 0.0, 1.0, above=True)
    return start + (end - start) * min(1.0, (step % period) / period / rise)


class KLSchedule(Controller):
    """Lets the KL weight of its layers follow a schedule.

    ``wrap(model)`` is `kl_weight` with one live weight for all of them. Weights multiply: a
    `Thermostat` or another `kl_weight` beside it keeps its own.

    Args:
        model: The model, or its layers by path.
        schedule: From the number of steps taken to the weight.

    Raises:
        InputError: For a weight that is negative or not finite, at the start or later.

    Example:
        >>> from functools import partial
        >>> from pyro_vdn.models import Regression
        >>> warmup = KLSchedule(Regression(3), partial(linear_warmup, steps=100))
        >>> warmup.act()
        >>> round(warmup.weight.item(), 4)
        0.01
    """

    def __init__(self, model: Controlled, schedule: Schedule) -> None:
        super().__init__(model)
        self.schedule = schedule
        like = like_layer(next(iter(self.layers.values())))
        self.memory = {"weight": {"": like.new_tensor(self._value())}}

    @property
    def weight(self) -> torch.Tensor:
        """The live weight, a scalar."""
        return self.memory["weight"][""]

    @property
    def due(self) -> bool:
        """Whether the step to come is one to observe: never."""
        return False

    def observe(self, seen: Seen) -> None:
        """Need nothing."""

    def on_time(self) -> None:
        """Set the weight of the step to come."""
        self.weight.fill_(self._value())

    def change(self, path: str) -> None:
        """Leave the layer as it is."""

    def _value(self) -> float:
        value = float(self.schedule(self.step))
        check_range("schedule", value, 0.0, hint="clamp it: max(0.0, value)")
        return value

    def wrap(self, model: Program) -> Program:
        """Return the model with the live weight on its KL."""
        wrapped: Program = kl_weight(model, dict.fromkeys(self.layers, self.weight))
        return wrapped
