"""Whether the effects of a controller are in force where neurons are drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK

from pyro_vdn.control import Composed, Controller
from pyro_vdn.errors import InputError
from pyro_vdn.nn.sites import Message, is_neuron, layer_of


class ReachMessenger(Messenger):
    """Note what is in force at every neuron's site, to ask whether a controller's effects are.

    Of a step that runs guide and model it keeps the later, the model. Effects are known by their
    class and by what they hold, live tensors and functions, so it does not matter how they were put
    there: wrapped around the model, inside its ``forward``, or as a context around the step.

    Example:
        >>> import torch
        >>> from pyro_vdn.control import Thermostat
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3)
        >>> thermostat = Thermostat(model)
        >>> with ReachMessenger() as reach:
        ...     _ = thermostat.wrap(model)(torch.zeros(2, 3))
        >>> reach.check(thermostat)
    """

    def __init__(self) -> None:
        super().__init__()
        self._in_force: dict[str, set[object]] = {}

    def _pyro_sample(self, msg: Message) -> None:
        if is_neuron(msg):
            self._in_force[layer_of(msg["name"])] = _all_held(_PYRO_STACK)

    def check(self, controller: Controller) -> None:
        """Raise `InputError` where a layer ran without the effects of a controller.

        Args:
            controller: A controller, or several composed.
        """
        for one in _parts(controller):
            needed = _all_held(_effects(one))
            for path in one.layers:
                if not needed <= self._in_force.get(path, needed):
                    raise _out_of_reach(one, path)


def _parts(controller: Controller) -> Iterator[Controller]:
    if isinstance(controller, Composed):
        for one in controller.controllers:
            yield from _parts(one)
    else:
        yield controller


class _Looked(Exception):  # noqa: N818 - no error: it ends a look at the effect stack
    pass


def _effects(controller: Controller) -> list[Messenger]:
    """Return the effects that a controller wraps around a program, seen from inside of it."""
    found: list[Messenger] = []
    outside = len(_PYRO_STACK)

    def look(*args: Any, **kwargs: Any) -> None:
        found.extend(_PYRO_STACK[outside:])
        raise _Looked

    with suppress(_Looked):
        controller.wrap(look)()
    return found


def _held(value: object) -> set[object]:
    """Return what a value is known by, the same for two effects that do the same."""
    if isinstance(value, Messenger):
        parts = (part for name, part in vars(value).items() if not name.startswith("_"))
        return {type(value), *_all_held(parts)}
    if isinstance(value, Mapping):
        return _all_held(value.values())
    if isinstance(value, partial):
        return _all_held((value.func, *value.args, *value.keywords.values()))
    if isinstance(value, MethodType):
        return {(value.__func__, id(value.__self__))}
    if isinstance(value, (str, int, float, FunctionType)):
        return {value}
    return {(type(value), id(value))}


def _all_held(values: Iterable[object]) -> set[object]:
    return {part for value in values for part in _held(value)}


def _out_of_reach(controller: Controller, path: str) -> InputError:
    name = type(controller).__name__
    return InputError(
        "model",
        expected=f"a model wrapped in the effects of its controller, here {name}",
        got=f"layer '{path}' without them, so that {name} would have no say in the loss",
        hint="fit(controller.wrap(model), ..., callbacks=[ControlCallback(controller)]), and a "
        "guide of the wrapped model where you give one",
    )
