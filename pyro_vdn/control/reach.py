"""Whether the effects of a controller are in force where neurons are drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from types import FunctionType, MethodType
from typing import Any, NamedTuple

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK

from pyro_vdn.control.compose import Composed
from pyro_vdn.control.controller import Controller
from pyro_vdn.errors import InputError
from pyro_vdn.nn.sites import Message, is_neuron, layer_of


class ReachMessenger(Messenger):
    """Note what is in force at every neuron's site, to ask whether a controller's effects are.

    It is enough that one run of a step has them: a bare model may be looked at beside it. Where a
    model is replayed against a guide the model counts, and what runs without gradients trains
    nothing. Effects are known by their class and by what they hold, live tensors and functions, so
    it does not matter how they were put there: wrapped around the model, inside its ``forward``, or
    as a context around the step, as long as those of all layers are in force together.

    Example:
        >>> from pyro_vdn.control import Thermostat
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3)
        >>> thermostat = Thermostat(model)
        >>> with ReachMessenger() as reach:
        ...     _ = thermostat.wrap(model)(torch.zeros(2, 3))
        >>> reach.check(thermostat)
        >>> is_reached(thermostat)
        True
    """

    def __init__(self) -> None:
        super().__init__()
        self._runs: dict[str, list[_Run]] = {}

    def _pyro_sample(self, msg: Message) -> None:
        if is_neuron(msg) and torch.is_grad_enabled():
            runs = self._runs.setdefault(layer_of(msg["name"]), [])
            # A replayed model has the guide's infer dictionary, and takes the guide's place.
            runs[:] = [run for run in runs if run.infer is not msg["infer"]]
            runs.append(_Run(msg["infer"], _all_held(_PYRO_STACK)))

    def check(self, controller: Controller) -> None:
        """Raise `InputError` where a layer ran without the effects of a controller.

        Layers that ran with them are taken off its `unreached`; those that did not run stay there.

        Args:
            controller: A controller, or several composed.
        """
        for one in _parts(controller):
            needed = _all_held(_effects(one))
            for path in [path for path in one.layers if path in self._runs]:
                if not any(needed <= run.held for run in self._runs[path]):
                    raise _out_of_reach(one, path)
                one.unreached.discard(path)


class _Run(NamedTuple):
    """A run of a layer: the infer dictionary of its site, and what the effects in force hold."""

    infer: dict[str, Any]
    held: set[object]


def is_reached(controller: Controller) -> bool:
    """Say whether the effects of a controller have been seen in force at each of its layers.

    Args:
        controller: A controller, or several composed.
    """
    return not any(one.unreached for one in _parts(controller))


def forget_reach(controller: Controller) -> None:
    """Let a controller be checked again, for a program that may be another.

    Args:
        controller: A controller, or several composed.
    """
    for one in _parts(controller):
        one.unreached = set(one.layers)


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

    program = controller.wrap(look)
    with suppress(_Looked, TypeError):  # of a program that must have arguments nothing is known
        program()
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
        hint="controlled = controller.wrap(model), then SVI(controlled, NeuronGuide(controlled), "
        "...), or fit(controlled, ..., callbacks=[ControlCallback(controller)])",
    )
